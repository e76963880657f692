"""Who this board is, and which hub it belongs to: the files of the state directory that say so.

    log.key      the key that signs; the board's id is the hash of its public half
    seal.key     the key that secrets are sealed to
    tls.key      the key of the certificate, EC P-256

and from joining on:

    hub.key      the hub's root key
    hub.note     the hub document, as the root key signed it
    tls.pem      the certificate and its chain, and a line that says when it was given
    board.toml   board, name, and which token it was; written last, it makes the others count

`agent.join` fills it, `agent.link` reads it and replaces the hub document, `agent.renewal` replaces
the certificate, `agent.status` shows it.
Keys are made here, once, by `openssl` where the format is X.509; nothing here talks to anybody.

Every file is replaced in one step (0600, fsync), and none is needed before it is there: a start
after a power cut makes what is missing and goes on.  A log key is never made a second time
under a certificate that names another board.
"""

from __future__ import annotations

import binascii
import datetime as dt
import logging
import os
import ssl
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from agent.base.files import PASSING, exists, make_directory, write_file
from agent.wire import note, seal
from agent.wire.decode import Match, decode
from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, Refused
from agent.wire.joining import HubDocument
from agent.wire.messages import ClockState, read_text
from agent.wire.plain import plain

log = logging.getLogger(__name__)

MAX_FILE = 256 * 1024
OPENSSL_TIMEOUT_S = 60
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
"""Tags of times until 2049 and after it (RFC 5280, section 4.1.2.5)."""
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h); Python's ssl has no name for it."""

GIVEN = "given at "
"""What the line in tls.pem begins with; milliseconds since 1970 follow."""
RESTORE = "restore the file from a backup; or move the whole state directory away and join as a new board"


@dataclass(frozen=True, slots=True)
class Membership:
    """``board.toml``: what this board is at its hub, and the hash of the token that it joined with."""

    board: str
    name: str = ""
    token_sha256: Annotated[str, Match(r"([0-9a-f]{64})?", "64 hexadecimal digits")] = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The keys of this board; made by `open_identity`."""

    directory: Path
    log_key: note.Signer
    seal_key: seal.SealKey
    # A document may come with a renewal and from the broker at once, each on a thread.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def board(self) -> str:
        """The board's id: 16 characters of a-z and 2-7."""
        return self.log_key.name

    # --- for joining

    def tls_public_key(self) -> str:
        """The PEM of the public half of the TLS key."""
        return openssl("pkey", "-in", str(self.directory / "tls.key"), "-pubout").decode()

    def certificate_request(self) -> str:
        """A PEM certificate request for this board.  The hub sets the name itself."""
        key = str(self.directory / "tls.key")
        return openssl("req", "-new", "-sha256", "-key", key, "-subj", f"/CN={self.board}").decode()

    def accept(
        self,
        membership: Membership,
        hub_key: note.Verifier,
        hub_note: str,
        chain_pem: str,
        now_ms: int | None = None,
    ) -> None:
        """Keep what joining gave, all of it verified by the caller; ``board.toml`` makes it count.

        ``now_ms``: see `replace_certificate`.
        """
        import tomli_w  # only to write

        with self._turn:
            write_file(self.directory / "hub.key", f"{hub_key.vkey}\n".encode())
            write_file(self.directory / "hub.note", hub_note.encode())
            self.replace_certificate(chain_pem, now_ms)
            write_file(self.directory / "board.toml", tomli_w.dumps(plain(membership)).encode())

    # --- for the link

    def membership(self) -> Membership | None:
        """What this board joined as, or None before.  Raises Corrupt when it names another board."""
        path = self.directory / "board.toml"
        if not path.exists():
            return None
        membership = read_membership(path)
        if membership.board != self.board:
            raise Corrupt(f"{path} is of board {membership.board}, the log key of {self.board}", hint=RESTORE)
        return membership

    def hub_key(self) -> note.Verifier:
        """The root key of the hub.  Raises Corrupt, ConfigError."""
        return _kept_key(self.directory)

    def document(self) -> HubDocument:
        """The hub document.  Raises Corrupt when the hub's key did not sign it, ConfigError."""
        return _kept_document(self.directory)

    def replace_document(self, hub_note: str) -> HubDocument | None:
        """Keep a newer hub document; None when this one is not newer.  Raises Corrupt, Refused."""
        with self._turn:
            document = read_document(hub_note, self.hub_key())
            if document.number <= self.document().number:
                return None
            write_file(self.directory / "hub.note", hub_note.encode())
            return document

    def replace_certificate(self, chain_pem: str, now_ms: int | None) -> None:
        """Keep a certificate for our TLS key, in one step.

        ``now_ms`` is when it was given, None when nobody knows: certificates begin in 2020, so that
        is not in it.  Text before the certificate is allowed (RFC 7468, section 2).
        """
        given = "" if now_ms is None else f"{GIVEN}{now_ms}\n"
        write_file(self.directory / "tls.pem", (given + chain_pem).encode())

    def check_certificate(self, chain_pem: str, ca_pem: str) -> None:
        """Raise Corrupt unless a certificate is by this authority, for our TLS key and in our name."""
        leaf = chain_pem.encode()
        shown = openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-pubkey", stdin=leaf)
        subject, _, key = shown.decode().partition("\n")
        if subject != f"subject=CN={self.board}":
            raise Corrupt(f"the hub's certificate is for {subject[:80]!r}, not for CN={self.board}")
        if key.strip() != self.tls_public_key().strip():
            raise Corrupt("the hub's certificate is for another key than ours")
        try:
            _verify(leaf, ca_pem.encode())
        except OSError as error:
            raise Refused(f"the hub's certificate cannot be checked: {error.strerror or error}") from error

    def certificate(self) -> tuple[int | None, int]:
        """When our certificate was given, if that is known, and when it ends.

        Raises Corrupt, ConfigError.
        """
        pem = _read(self.directory / "tls.pem")
        first = pem.partition("\n")[0].removeprefix(GIVEN)
        try:
            return int(first) if first.isdecimal() else None, certificate_end_ms(pem)
        except Refused as error:
            raise Corrupt(f"{self.directory}/tls.pem is no certificate: {error}", hint=RESTORE) from error

    def certificate_until_ms(self) -> int:
        """When our certificate ends.  Raises Corrupt, ConfigError."""
        return self.certificate()[1]

    def tls(self, ca_pem: str, clock: ClockState) -> ssl.SSLContext:
        """TLS to the hub with our certificate: its authority is ``ca_pem`` and no other."""
        context = trusting(ca_pem, clock)
        try:
            context.load_cert_chain(self.directory / "tls.pem", self.directory / "tls.key")
        except OSError as error:  # ssl.SSLError is one
            raise Corrupt(
                f"{self.directory}/tls.pem and tls.key do not fit: {error}", hint=RESTORE
            ) from error
        return context


def open_identity(directory: Path) -> Identity:
    """Load the keys; make those that are missing.  Blocks (disk, `openssl`).

    Raises Corrupt for a key that is damaged, or missing although the board has joined; ConfigError.
    """
    make_directory(directory)
    log_key = _log_key(directory)
    seal_path, tls_path = directory / "seal.key", directory / "tls.key"
    if not seal_path.exists():
        write_file(seal_path, f"{seal.generate().text}\n".encode())
    if not tls_path.exists():
        curve = ("-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve")
        write_file(tls_path, openssl("genpkey", "-algorithm", "EC", *curve))
    try:
        seal_key = seal.SealKey.parse(_read(seal_path))
    except LichenError as error:
        raise Corrupt(f"{seal_path} is no sealing key: {error}", hint=RESTORE) from error
    return Identity(directory, log_key, seal_key)


def recognise(directory: Path) -> tuple[Membership, HubDocument] | None:
    """Who this board is and its hub, without making anything; None before it has joined.

    Raises Corrupt, ConfigError.
    """
    if not exists(directory / "board.toml"):
        return None
    return read_membership(directory / "board.toml"), _kept_document(directory)


def _log_key(directory: Path) -> note.Signer:
    path = directory / "log.key"
    if not path.exists():
        if (directory / "board.toml").exists():
            # A new key would be a new board under an old board's certificate.
            raise Corrupt(f"{path} is missing, although this board has joined a hub", hint=RESTORE)
        signer = note.generate()
        write_file(path, f"{signer.skey}\n".encode())
        log.info("board identity made", extra={"board": signer.name})
        return signer
    try:
        signer = note.Signer.parse(_read(path).strip())
    except LichenError as error:
        raise Corrupt(f"{path} is no key: {error}", hint=RESTORE) from error
    if signer.name != note.party_id(signer.public_key):
        raise Corrupt(f"{path} is named {signer.name!r}, not by its own hash", hint=RESTORE)
    return signer


def read_membership(path: Path) -> Membership:
    """Read a ``board.toml``.  Raises Corrupt, ConfigError."""
    try:
        return decode(Membership, tomllib.loads(_read(path)))
    except (tomllib.TOMLDecodeError, LichenError) as error:
        raise Corrupt(f"{path} cannot be understood: {error}", hint=RESTORE) from error


def _kept_key(directory: Path) -> note.Verifier:
    path = directory / "hub.key"
    try:
        return note.Verifier.parse(_read(path).strip())
    except Refused as error:
        raise Corrupt(f"{path} is no key: {error}", hint=RESTORE) from error


def _kept_document(directory: Path) -> HubDocument:
    path = directory / "hub.note"
    try:
        return read_document(_read(path), _kept_key(directory))
    except Refused as error:
        # We wrote it whole: a note that is cut off is damage, and not somebody's refusal.
        raise Corrupt(f"{path} cannot be understood: {error}", hint=RESTORE) from error


def read_document(hub_note: str, hub_key: note.Verifier) -> HubDocument:
    """The hub document in a note by the hub with this root key.  Raises Corrupt, Refused."""
    document = read_text("hub", HubDocument, note.open_note(hub_note, hub_key))
    if document.hub != note.party_id(hub_key.public_key):
        raise Corrupt(f"the hub document is of hub {document.hub}, its key of {hub_key.name}")
    return document


def trusting(ca_pem: str, clock: ClockState) -> ssl.SSLContext:
    """A TLS context for clients that trusts this authority alone, and checks the host's name.

    Unless the kernel's clock is synced the dates of certificates are not looked at: a board without
    a battery wakes up in the past, and the authority is pinned anyway.  That goes for state "hub",
    too: OpenSSL asks the kernel.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, TypeError, ValueError) as error:  # TypeError: it is not ASCII, ValueError: empty
        raise Corrupt(f"the hub's certificate authority is no certificate: {error}") from error
    if clock != "synced":
        context.verify_flags |= NO_CHECK_TIME
    return context


def certificate_end_ms(pem: str) -> int:
    """When the first certificate in a PEM text ends, in ms since 1970.  Raises Refused.

    Its notAfter is the second time of the fifth field, after a version, serial number, algorithm
    and issuer (RFC 5280, section 4.1); our hubs write all of them.
    """
    _, begin, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    try:
        if not (begin and end):
            raise ValueError("no certificate in it")
        fields = _fields(_fields(_fields(binascii.a2b_base64(body))[0][1])[0][1])
        tag, text = _fields(fields[4][1])[1]
        digits = {UTC_TIME: "20", GENERALIZED_TIME: ""}[tag] + text.decode("ascii").removesuffix("Z")
        month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(4, 14, 2))
        until = dt.datetime(int(digits[:4]), month, day, hour, minute, second, tzinfo=dt.UTC)
    except (ValueError, IndexError, KeyError) as error:
        raise Refused(f"a certificate that cannot be read: {error}") from error
    return int(until.timestamp() * 1000)


def _fields(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and contents of each element in a row (X.690, section 8.1)."""
    found = []
    while der:
        size, at = der[1], 2
        if size & 0x80:
            at += size & 0x7F
            size = int.from_bytes(der[2:at])
        if len(der) < at + size:
            raise ValueError("it is cut off")
        found.append((der[0], der[at : at + size]))
        der = der[at + size :]
    return found


def _verify(chain: bytes, ca: bytes) -> None:
    """Raise Corrupt unless the authority issued the certificate; OSError without memory for that."""
    with _in_memory(ca) as ca_file, _in_memory(chain) as chain_file:
        path = f"/dev/fd/{chain_file}"
        # The dates are left to the connection, which knows whether the clock can be trusted.
        options = ("-no_check_time", "-purpose", "sslclient", "-CAfile", f"/dev/fd/{ca_file}")
        openssl("verify", *options, "-untrusted", path, path, files=(ca_file, chain_file))


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """The descriptor of a file that needs no disk, which may be full or read-only."""
    descriptor = os.memfd_create("lichen-certificate")
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(data)
        yield descriptor


def openssl(*arguments: str, stdin: bytes = b"", files: Sequence[int] = ()) -> bytes:
    """What ``openssl``, which gets ``files``, writes to its standard output.

    Raises ConfigError, Corrupt, Refused.
    """
    import subprocess  # only when a key or certificate is made

    try:
        done = subprocess.run(
            ["openssl", *arguments],
            input=stdin,
            capture_output=True,
            pass_fds=files,
            timeout=OPENSSL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        reason = "the command openssl is missing"
        raise ConfigError(reason, hint="install the package openssl") from error
    except OSError as error:  # too little memory for another process, say
        raise Refused(f"openssl cannot be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise Corrupt(f"openssl {arguments[0]} did not end within {OPENSSL_TIMEOUT_S} s") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Corrupt(f"openssl {arguments[0]} failed: {told[-1][:200]}")
    return done.stdout


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE:
            raise Corrupt(f"{path} is over {MAX_FILE} bytes", hint=RESTORE)
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) in PASSING:
            raise Busy(f"{path} cannot be read now: {error}") from error
        raise ConfigError(f"{path} cannot be read: {error}", hint=RESTORE) from error
