"""How a board joins a hub: from a join file to a certificate and the hub document.

Called by `agent.app` at a start with a join file, and by ``lichen-agent join``.  The steps of
`attempt` are those of the design, in order:

1.  Fetch the hub's certificate authority over a connection that proves nothing, and compare its
    hash with the one in the join file: from here on the hub is known by it.
2.  Connect again, now verified, and send the token, a certificate request, the public keys, and
    the log key's signature over hub, token and keys.
3.  Check the answer before any of it is kept: the hub document by the root key in the join
    file, the certificate by the authority, our key, our id.
4.  Keep it (``board.toml`` last), then remove the join file.

The keys are on the disk before the first step, and the hub answers the same token and log key
again, so a cut anywhere leaves a join file, and the next start does it once more.

This module never decides whether to join, keeps no connection, and is imported only to join.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from agent.base.broker import backoff_s
from agent.clock import Clock
from agent.https import MAX_ANSWER, connection, deadline_s, exchange
from agent.identity import Identity, Membership, read_document, trusting
from agent.wire import note
from agent.wire.decode import decode, decode_json
from agent.wire.errors import ConfigError, Corrupt, LichenError, LinkDown, Refused
from agent.wire.joining import JoinAnswer, JoinFile, JoinProof, JoinRequest
from agent.wire.messages import compose
from agent.wire.plain import dumps, loads

log = logging.getLogger(__name__)

MAX_JOIN_FILE = 64 * 1024
HINT = "write it again as `lichen token new` printed it: hub_url, hub_key, ca_sha256 and token"


@dataclass(frozen=True, slots=True)
class Admission:
    """What a hub has answered, verified; nothing of it is kept before `keep`."""

    identity: Identity
    membership: Membership
    hub_key: note.Verifier
    answer: JoinAnswer
    path: Path

    def keep(self, clock: Clock) -> Membership:
        """Be a board of that hub from now on; its join file has done its work."""
        answer = self.answer
        self.identity.accept(
            self.membership, self.hub_key, answer.hub_note, answer.certificate_pem, clock.known_ms()
        )
        log.info("board joined", extra={"board": answer.board, "board_name": answer.name})
        remove(self.path)
        return self.membership


async def join(
    identity: Identity, path: Path, clock: Clock, *, low_s: float = 1.0, high_s: float = 300.0
) -> Membership:
    """Join with the file at ``path``, trying again for as long as the hub cannot be reached.

    Raises ConfigError for the file, Refused with the hub's own sentence, Corrupt when the other
    side is not the hub that the file names.
    """
    admission = await _apply(identity, path, clock, low_s, high_s)
    return await asyncio.to_thread(admission.keep, clock)


async def join_again(
    identity: Identity, path: Path, clock: Clock, *, low_s: float = 1.0, high_s: float = 300.0
) -> Admission | None:
    """Try what a join file says while the board goes on as what it is; see `is_new`.

    None, and the board stays what it is, if that fails: a bad file on a boot partition must not
    take a working board off the net.
    """
    try:
        return await _apply(identity, path, clock, low_s, high_s)
    except LichenError as error:
        log.error("join file not followed", extra={"path": str(path), "error": str(error)})
        return None


def is_new(membership: Membership, path: Path) -> bool:
    """Whether a join file brings a token that this board has not joined with.

    It may then be for another hub, or this one has moved.  One that is spent is removed.
    """
    try:
        spent = token_hash(read_join_file(path).token) == membership.token_sha256
    except ConfigError as error:
        log.error("join file not followed", extra={"path": str(path), "error": str(error)})
        return False
    if spent:
        remove(path)
    return not spent


async def _apply(identity: Identity, path: Path, clock: Clock, low_s: float, high_s: float) -> Admission:
    file = read_join_file(path)
    attempts, said = 0, ""
    while True:
        try:
            # An abandoned attempt ends by its deadline; the hub answers the next one the same.
            return await asyncio.to_thread(attempt, identity, file, path, clock)
        except LinkDown as error:
            if str(error) != said:
                said = str(error)
                log.warning("hub not reached, trying again", extra={"hub": file.hub_url, "error": said})
            await asyncio.sleep(backoff_s(attempts, low_s=low_s, high_s=high_s))
            attempts += 1


def attempt(identity: Identity, file: JoinFile, path: Path, clock: Clock) -> Admission:
    """Go through all steps but the last once.  Blocks.  Raises LinkDown besides what `join` raises."""
    hub_key, url, until_s = note.Verifier.parse(file.hub_key), urlsplit(file.hub_url), deadline_s()
    ca_pem = _fetch_authority(url, file.ca_sha256, until_s)
    request = make_request(identity, file.token, hub_key)
    with connection(url, trusting(ca_pem, clock.state()), until_s) as verified:
        body = exchange(verified, "POST", f"{url.path.rstrip('/')}/join", dumps(request))
    answer = decode_json(JoinAnswer, body, max_bytes=MAX_ANSWER)
    check_answer(identity, answer, hub_key)
    membership = Membership(identity.board, answer.name, token_hash(file.token))
    return Admission(identity, membership, hub_key, answer, path)


def read_join_file(path: Path) -> JoinFile:
    """Read a join file, TOML or JSON.  Raises ConfigError naming file, key, and what to do."""
    try:
        if path.stat().st_size > MAX_JOIN_FILE:
            raise ConfigError(f"it is over {MAX_JOIN_FILE} bytes")
        # A card is often written on Windows: a byte order mark is no reason to stay offline.
        text = path.read_bytes().decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            table = loads(text.encode(), max_bytes=MAX_JOIN_FILE)
        else:
            table = tomllib.loads(text)
        file = decode(JoinFile, table, strict=True)
        _check_addresses(file)
    except OSError as error:
        raise ConfigError(
            f"the join file {path} cannot be read: {error.strerror or error}",
            hint="check its name and place; a board that has joined has removed it",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, LichenError) as error:
        raise ConfigError(f"the join file {path} cannot be used: {error}", hint=HINT) from error
    return file


def _check_addresses(file: JoinFile) -> None:
    try:
        url = urlsplit(file.hub_url)
        (url.hostname or "").encode("idna")  # as looking it up does
        known = url.scheme == "https" and url.hostname and (url.port is None or url.port > 0)
    except ValueError:  # a port that is no number, a name with two dots in a row
        known = False
    if not known:
        raise ConfigError(f"hub_url: {file.hub_url!r} is not an address such as https://hub.example:8421")
    try:
        hub_key = note.Verifier.parse(file.hub_key)
    except Refused as error:
        raise ConfigError(f"hub_key: {error}") from error
    if hub_key.name != note.party_id(hub_key.public_key):
        raise ConfigError(f"hub_key: {hub_key.name!r} is not the id of this key")


def make_request(identity: Identity, token: str, hub_key: note.Verifier) -> JoinRequest:
    """What is sent: the proof binds our keys to this hub and this token."""
    proof = JoinProof(hub_key.name, token_hash(token), identity.tls_public_key(), identity.seal_key.public)
    return JoinRequest(
        token=token,
        log_key=identity.log_key.vkey,
        seal_key=identity.seal_key.public,
        csr_pem=identity.certificate_request(),
        proof=note.sign(compose("join", proof), identity.log_key),
    )


def check_answer(identity: Identity, answer: JoinAnswer, hub_key: note.Verifier) -> None:
    """Raise Corrupt or Refused unless the answer is this hub's and for this board."""
    if answer.board != identity.board:
        raise Corrupt(f"the hub answered for board {answer.board[:64]!r}, this is {identity.board}")
    document = read_document(answer.hub_note, hub_key)
    identity.check_certificate(answer.certificate_pem, document.ca_pem)


def token_hash(token: str) -> str:
    """The SHA-256 of a token in hexadecimal: all that is kept of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def remove(path: Path) -> None:
    """Remove a join file that has done its work."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # The token is spent; the boot partition may be read-only for us.
        log.warning("join file cannot be removed", extra={"path": str(path), "error": str(error)})


def _fetch_authority(url: SplitResult, ca_sha256: str, until_s: float) -> str:
    """The hub's certificate authority, known by its hash.  Raises Corrupt when it is another."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with connection(url, unverified, until_s) as anybody:
        body = exchange(anybody, "GET", f"{url.path.rstrip('/')}/ca.pem")
    try:
        der = ssl.PEM_cert_to_DER_cert(body.decode("ascii"))
    except ValueError as error:
        raise Refused(f"{url.geturl()}/ca.pem is not a certificate: {error}") from error
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), ca_sha256):
        raise Corrupt(
            f"the hub at {url.geturl()} has another certificate authority than the join file says",
            hint="the join file is of another hub, or somebody answers in its place: ask for a new join file",
        )
    return ssl.DER_cert_to_PEM_cert(der)
