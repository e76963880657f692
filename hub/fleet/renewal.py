"""How a board renews its certificate: by the one that it has, or by its log key when that has ended.

Owns the rules of ``GET /renew`` and ``POST /renew``; the web layer calls it and tells which board
the certificate of the connection names, if there was one.  Either way the board has to be known
here and not revoked, and of the certificate request only the public key is taken.

A board that was away for longer than its certificate was good for has only its log key.  It
signs (hub, challenge, new TLS key); the challenge is the hub's, so an old signature that somebody
kept is worth nothing.  A challenge carries its end and a tag of this process in itself: those that
are merely asked for cost no memory, and only those that were used are remembered, for a minute.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from agent.wire import note
from agent.wire.errors import Corrupt, Refused
from agent.wire.joining import Challenge, RenewAnswer, RenewProof, RenewRequest
from agent.wire.messages import read_text
from hub.access.keys import Keyring
from hub.access.throttle import Throttle
from hub.fleet.authority import Authority
from hub.fleet.revocation import refuse_revoked
from hub.store import boards, events
from hub.store.boards import BoardRow
from hub.store.certificates import add_certificate
from hub.store.database import Store, Tx

log = logging.getLogger(__name__)

CHALLENGE_MS = 60_000
AGAIN = "ask for a new one: GET /renew"


class Renewal:
    """Decides about requests to renew.  ``document`` says the signed hub document of now."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        keys: Keyring,
        now_ms: Callable[[], int],
        *,
        document: Callable[[], str],
        executor: Executor | None = None,
    ) -> None:
        self._store = store
        self._authority = authority
        self._keys = keys
        self._now_ms = now_ms
        self._document = document
        self._executor = executor
        self._challenges = Challenges(now_ms)
        # By address: nobody guesses a signature, but looking at one costs something.
        self._throttle = Throttle(now_ms, free=10, base_ms=1000, high_ms=60_000)
        # By board: one that renews in a loop may not fill the hub with certificates.
        self._pace = Throttle(now_ms, free=5, base_ms=60_000, high_ms=3_600_000, size=16_384)

    def challenge(self) -> Challenge:
        """What a board without a valid certificate has to sign, within a minute."""
        return Challenge(self._challenges.draw())

    async def renew(self, request: RenewRequest, *, peer: str = "", remote: str = "") -> RenewAnswer:
        """A new certificate for a board that this hub knows.

        ``peer`` is the board that the valid certificate of the connection names; ``remote`` the
        address that asks.  Raises Refused: "revoked", "forbidden" (unknown here, false proof),
        "expired" (the challenge), "invalid" (the request), "too-many".
        """
        now_ms = self._now_ms()
        if peer:  # the handshake has proven it; behind its address may be a whole site
            board = await self._speaker(request, peer)
        else:
            board = await self._stranger(request, remote)
        self._pace.charge(board)
        loop = asyncio.get_running_loop()
        issued = await loop.run_in_executor(
            self._executor, self._authority.issue, board, request.csr_pem, now_ms
        )
        async with self._store.write() as tx:
            await _member(tx, board)
            await add_certificate(tx, board, issued.serial, now_ms, issued.not_after_ms)
            text = "certificate renewed" if peer else "certificate renewed by the log key"
            await events.add_event(tx, at_ms=now_ms, kind="renewed", text=text, board=board, actor="board")
        log.info("certificate renewed", extra={"board": board, "by": "certificate" if peer else "log key"})
        return RenewAnswer(issued.pem, self._document())

    async def _stranger(self, request: RenewRequest, remote: str) -> str:
        """`_speaker` of a connection that showed no certificate, and not too often."""
        self._throttle.check(remote)
        try:
            return await self._speaker(request, "")
        except Refused:
            if remote:
                self._throttle.charge(remote)
            raise

    async def _speaker(self, request: RenewRequest, peer: str) -> str:
        """The id of the board that has shown that it asks.  Raises Refused."""
        if peer and request.board not in ("", peer):
            raise Refused(f"the certificate is that of {peer}, not of {request.board[:64]}", code="forbidden")
        async with self._store.read() as tx:
            row = await _find(tx, peer or request.board)
        if not peer:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, self._check_proof, request, row)
        refuse_revoked(row)
        return row.id

    def _check_proof(self, request: RenewRequest, row: BoardRow) -> None:
        """The log key's own word that it wants this certificate now; uses the challenge up."""
        from hub.fleet import certificates  # late, as in authority

        if not request.proof:
            raise Refused(
                "no valid certificate and no proof by the log key",
                code="forbidden",
                hint="connect with the board's certificate, or sign a challenge: GET /renew",
            )
        try:
            text = note.open_note(request.proof, note.Verifier.parse(row.log_key))
            proof = read_text("renew", RenewProof, text)
        except Corrupt as error:
            raise Refused(f"the proof is not signed by the log key: {error}", code="forbidden") from error
        if proof.hub != self._keys.hub:
            raise Refused("the proof was made for another hub", code="forbidden")
        if certificates.public_key(proof.tls_key) != certificates.request_key(request.csr_pem):
            raise Refused("the proof was made for another TLS key", code="forbidden")
        self._challenges.use(proof.challenge)


class Challenges:
    """Random texts that are good once, for a minute, in the process that drew them.

    >>> challenges = Challenges(lambda: 0)
    >>> text = challenges.draw()
    >>> challenges.use(text)
    >>> challenges.use(text)
    Traceback (most recent call last):
    agent.wire.errors.Refused: the challenge was used before
    """

    def __init__(self, now_ms: Callable[[], int], *, most: int = 16_384) -> None:
        self._now_ms = now_ms
        self._key = secrets.token_bytes(32)
        self._most = most
        self._used: OrderedDict[bytes, int] = OrderedDict()  # to when each would have ended

    def draw(self) -> str:
        """A new one; nothing is kept of it."""
        body = (self._now_ms() + CHALLENGE_MS).to_bytes(8) + secrets.token_bytes(12)
        return base64.b32encode(body + self._tag(body)).decode().rstrip("=").lower()

    def use(self, text: str) -> None:
        """Use one up.  Raises Refused: "forbidden" when it is not ours or was used, "expired"."""
        now_ms = self._now_ms()
        body = self._body(text)
        until_ms = int.from_bytes(body[:8])
        if until_ms <= now_ms:
            raise Refused("the challenge is over a minute old", code="expired", hint=AGAIN)
        while self._used and next(iter(self._used.values())) <= now_ms:
            self._used.popitem(last=False)
        if body in self._used:
            raise Refused("the challenge was used before", code="forbidden", hint=AGAIN)
        if len(self._used) >= self._most:
            # Only proofs of boards of this hub get here, each at its own pace.
            raise Refused("too many boards renew at once", code="too-many", hint="try again in a minute")
        self._used[body] = until_ms

    def _body(self, text: str) -> bytes:
        try:
            raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
        except (ValueError, binascii.Error):
            raw = b""
        body, tag = raw[:20], raw[20:]
        if not hmac.compare_digest(tag, self._tag(body)):
            raise Refused("the challenge is none of this hub's", code="forbidden", hint=AGAIN)
        return body

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:20]


async def _find(tx: Tx, board: str) -> BoardRow:
    row = await boards.find_board(tx, board)
    if row is None:
        raise Refused(
            f"this hub knows no board {board[:64]!r}",
            code="forbidden",
            hint="it has to join: make a token with lichen token new",
        )
    return row


async def _member(tx: Tx, board: str) -> None:
    """Look once more, in the transaction that writes.  Raises Refused."""
    refuse_revoked(await _find(tx, board))
