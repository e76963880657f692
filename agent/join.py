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
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from agent.base.broker import backoff_s
from agent.identity import Identity, Membership, openssl, read_document, trusting
from agent.wire import note
from agent.wire.decode import decode, decode_json
from agent.wire.errors import ConfigError, Corrupt, LichenError, LinkDown, Refused
from agent.wire.joining import JoinAnswer, JoinFile, JoinProof, JoinRequest
from agent.wire.messages import ClockState, compose
from agent.wire.plain import dumps, loads

log = logging.getLogger(__name__)

MAX_JOIN_FILE = 64 * 1024
MAX_ANSWER = 256 * 1024
TIMEOUT_S = 15
HINT = "write it again as `lichen token new` printed it: hub_url, hub_key, ca_sha256 and token"


async def follow(
    identity: Identity,
    path: Path,
    clock: Callable[[], ClockState],
    *,
    low_s: float = 1.0,
    high_s: float = 300.0,
) -> Membership:
    """Do what the join file at ``path`` says, once.

    A board that has joined already joins again if the token is a new one (the hub has moved, or
    it is another hub); if that fails it stays what it is, since a bad file on a boot partition must
    not take a working board off the net.  Raises what `join` raises for a board that has not.
    """
    known = _membership(identity)
    if known is None:
        return await join(identity, path, clock, low_s=low_s, high_s=high_s)
    try:
        file = read_join_file(path)
        if token_hash(file.token) != known.token_sha256:
            known = await asyncio.to_thread(attempt, identity, file, clock())
            log.info("board joined again", extra={"board": known.board, "hub": file.hub_url})
    except LichenError as error:
        log.error("join file not followed", extra={"path": str(path), "error": str(error)})
    else:
        remove(path)
    return known


def _membership(identity: Identity) -> Membership | None:
    """What the board joined as, if all of that is there: a cut in joining again may have mixed it."""
    try:
        identity.document()
        return identity.membership()
    except LichenError:
        return None


async def join(
    identity: Identity,
    path: Path,
    clock: Callable[[], ClockState],
    *,
    low_s: float = 1.0,
    high_s: float = 300.0,
) -> Membership:
    """Join with the file at ``path``, trying again for as long as the hub cannot be reached.

    Raises ConfigError for the file, Refused with the hub's own sentence, Corrupt when the other
    side is not the hub that the file names.
    """
    file = read_join_file(path)
    attempts, said = 0, ""
    while True:
        try:
            # An abandoned attempt ends by its timeouts; the hub answers the next one the same.
            membership = await asyncio.to_thread(attempt, identity, file, clock())
        except LinkDown as error:
            if str(error) != said:
                said = str(error)
                log.warning("hub not reached, trying again", extra={"hub": file.hub_url, "error": said})
            await asyncio.sleep(backoff_s(attempts, low_s=low_s, high_s=high_s))
            attempts += 1
        else:
            log.info("board joined", extra={"board": membership.board, "board_name": membership.name})
            remove(path)
            return membership


def attempt(identity: Identity, file: JoinFile, clock: ClockState) -> Membership:
    """Go through all steps once.  Blocks.  Raises LinkDown besides what `join` raises."""
    hub_key, url = note.Verifier.parse(file.hub_key), urlsplit(file.hub_url)
    ca_pem = _fetch_authority(url, file.ca_sha256)
    request = make_request(identity, file.token, hub_key)
    with _connection(url, trusting(ca_pem, clock)) as connection:
        body = _exchange(connection, "POST", f"{url.path.rstrip('/')}/join", dumps(request))
    answer = decode_json(JoinAnswer, body, max_bytes=MAX_ANSWER)
    check_answer(identity, answer, hub_key)
    membership = Membership(identity.board, answer.name, token_hash(file.token))
    identity.accept(membership, hub_key, answer.hub_note, answer.certificate_pem)
    return membership


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
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, LichenError) as error:
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
    leaf = answer.certificate_pem.encode()
    shown = openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-pubkey", stdin=leaf)
    subject, _, key = shown.decode().partition("\n")
    if subject != f"subject=CN={identity.board}":
        raise Corrupt(f"the hub's certificate is for {subject[:80]!r}, not for CN={identity.board}")
    if key.strip() != identity.tls_public_key().strip():
        raise Corrupt("the hub's certificate is for another key than ours")
    with tempfile.TemporaryDirectory(prefix="lichen-join-") as folder:
        ca, chain = Path(folder, "ca.pem"), Path(folder, "chain.pem")
        ca.write_text(document.ca_pem)
        chain.write_bytes(leaf)
        # The dates are left to the connection, which knows whether the clock can be trusted.
        options = ("-no_check_time", "-purpose", "sslclient", "-CAfile", str(ca), "-untrusted", str(chain))
        openssl("verify", *options, str(chain))


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


# --- HTTPS -------------------------------------------------------------------------------------


def _fetch_authority(url: SplitResult, ca_sha256: str) -> str:
    """The hub's certificate authority, known by its hash.  Raises Corrupt when it is another."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with _connection(url, unverified) as connection:
        body = _exchange(connection, "GET", f"{url.path.rstrip('/')}/ca.pem")
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


@contextmanager
def _connection(url: SplitResult, context: ssl.SSLContext) -> Iterator[HTTPSConnection]:
    """A connection whose failures are told as LinkDown, a bad certificate as Corrupt."""
    where = f"{url.hostname}:{url.port or 443}"
    connection = HTTPSConnection(url.hostname or "", url.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        yield connection
    except ssl.SSLCertVerificationError as error:
        raise Corrupt(
            f"the certificate of the hub at {where} does not hold: {error.verify_message}",
            hint="hub_url must name the host as the hub knows itself (host in its hub.toml)",
        ) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise LinkDown(f"the hub at {where} does not answer: {reason}") from error
    finally:
        connection.close()


def _exchange(connection: HTTPSConnection, method: str, path: str, body: bytes | None = None) -> bytes:
    """The body of a successful answer.  Raises Refused with what the hub says, LinkDown."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, headers)
    with connection.getresponse() as response:
        answer = response.read(MAX_ANSWER + 1)
    if len(answer) > MAX_ANSWER:
        raise Refused(f"the hub's answer to {path} is over {MAX_ANSWER} bytes", code="too-large")
    if 200 <= response.status < 300:
        return answer
    error = _problem(response.status, answer)
    if response.status >= 500 or response.status == 429:
        raise LinkDown(f"the hub cannot answer now: {error}", code=error.code, hint=error.hint)
    raise error


@dataclass(frozen=True, slots=True)
class Problem:
    """What we read of a problem document (RFC 9457)."""

    type: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""


def _problem(status: int, body: bytes) -> Refused:
    """The hub's own sentence; the bare status when there is none."""
    try:
        problem = decode_json(Problem, body, max_bytes=MAX_ANSWER)
    except Refused:
        problem = Problem()
    sentence = problem.detail or problem.title or f"the hub refused with HTTP status {status}"
    return Refused(sentence[:500], code=problem.type.rpartition(":")[2] or "refused", hint=problem.hint[:500])
