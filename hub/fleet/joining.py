"""How a board joins: one request with a token and proofs, one answer with a certificate.

Owns the rules of ``POST /join`` and what a join writes; the web layer calls it for whoever
asks, so everything in a request is a stranger's word until it is proven here:

1. the token, by its hash: without one nothing else is looked at, and the answer is one sentence;
2. the board's id, which follows from its log key and from nothing else;
3. that this token may admit this board: open, or used by this very board before, so that a
   lost answer strands nobody while a stolen token is worth nothing to another key;
4. the proof, signed by the log key, over this hub, this token, the TLS key and the sealing key;
5. the certificate request, of which only the public key is taken.

Name and labels come from the token alone, or from the board that it replaces.  A board that is
known keeps those it has.  Then a certificate is signed on a thread, and board, use of the token,
certificate and event are written in one transaction that looks at 3 again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire import note, seal
from agent.wire.errors import Corrupt, Refused
from agent.wire.joining import JoinAnswer, JoinFile, JoinProof, JoinRequest
from agent.wire.messages import read_text
from hub.access.keys import Keyring
from hub.access.throttle import Throttle
from hub.config import Config
from hub.fleet.authority import Authority
from hub.fleet.replacement import hand_over, predecessor, take_apps
from hub.fleet.revocation import refuse_revoked
from hub.store import boards, events, orders, tokens
from hub.store.boards import BoardRow
from hub.store.certificates import add_certificate
from hub.store.database import Store, Tx
from hub.store.secrets import fingerprint
from hub.store.tokens import Token

if TYPE_CHECKING:
    from hub.fleet.certificates import Issued

log = logging.getLogger(__name__)

ANOTHER = "make a new token on the hub: lichen token new"


@dataclass(frozen=True, slots=True)
class _Applicant:
    """Who asks: the id that follows from its log key, and the key itself."""

    board: str
    key: note.Verifier
    seal_key: str


@dataclass(frozen=True, slots=True)
class _Admission:
    """That it may join: what the hub knows of it, and whether it used this very token before."""

    known: BoardRow | None
    again: bool


class Joining:
    """Decides about join requests.

    ``document`` says the signed hub document of now; ``put_out`` ends what a board that was
    revoked in the store still has open; ``renew_orders`` rings for orders that a join has made stale.
    """

    def __init__(
        self,
        store: Store,
        authority: Authority,
        keys: Keyring,
        config: Config,
        now_ms: Callable[[], int],
        *,
        document: Callable[[], str],
        put_out: Callable[[], Awaitable[None]],
        renew_orders: Callable[[], None],
        executor: Executor | None = None,
    ) -> None:
        self._store = store
        self._authority = authority
        self._keys = keys
        self._config = config
        self._now_ms = now_ms
        self._document = document
        self._put_out = put_out
        self._renew_orders = renew_orders
        self._executor = executor
        # No token is ever guessed; this keeps a stranger's attempts from costing anything.
        self._throttle = Throttle(now_ms, free=10, base_ms=1000, high_ms=60_000)

    def join_file(self, secret: str) -> JoinFile:
        """What a technician puts on a card: where this hub is, how to know it, and a token."""
        return JoinFile(
            hub_url=self._config.board_url,
            hub_key=self._keys.root.vkey,
            ca_sha256=self._authority.ca_sha256,
            token=secret,
        )

    async def join(self, request: JoinRequest, remote: str = "") -> JoinAnswer:
        """Let a board in.  ``remote`` is the address that asks, to slow down who guesses tokens.

        Raises Refused: "forbidden" (wrong, revoked or used token, false proof, id or key of
        somebody else), "revoked" (the board), "expired", "invalid", "too-many".
        """
        now_ms = self._now_ms()
        self._throttle.check(remote)
        async with self._store.read() as tx:
            token = await self._token(tx, request.token, remote)
            applicant = _applicant(request)
            await _admit(tx, token, applicant, now_ms)
        loop = asyncio.get_running_loop()
        issued = await loop.run_in_executor(self._executor, self._issue, request, applicant, now_ms)
        async with self._store.write() as tx:
            token = await self._token(tx, request.token, remote)
            admission = await _admit(tx, token, applicant, now_ms)
            name = await _enter(tx, token, applicant, admission, now_ms)
            await add_certificate(tx, applicant.board, issued.serial, now_ms, issued.not_after_ms)
        log.info("board joined", extra={"board": applicant.board, "board_name": name, "token": token.id})
        self._renew_orders()
        if token.replaces is not None:
            await self._put_out()
        return JoinAnswer(applicant.board, issued.pem, self._document(), name)

    async def _token(self, tx: Tx, secret: str, remote: str) -> Token:
        found = await tokens.find_token(tx, secret)
        if found is None:
            if remote:
                self._throttle.charge(remote)
            raise Refused("this hub knows no such join token", code="forbidden", hint=ANOTHER)
        return found

    def _issue(self, request: JoinRequest, applicant: _Applicant, now_ms: int) -> Issued:
        """Check the proof and sign the certificate; a millisecond of work, on a thread."""
        _check_proof(request, applicant, self._keys.hub)
        return self._authority.issue(applicant.board, request.csr_pem, now_ms)


def _applicant(request: JoinRequest) -> _Applicant:
    """Who asks, by its log key.  Raises Refused for a key that is weak, or named as another board."""
    key = note.Verifier.parse(request.log_key)
    board = note.party_id(key.public_key)
    if key.name != board:
        raise Refused(
            f"the log key is named {key.name[:64]!r}, but a board with this key is {board}",
            code="forbidden",
        )
    return _Applicant(board, key, seal.check_public(request.seal_key))


async def _admit(tx: Tx, token: Token, applicant: _Applicant, now_ms: int) -> _Admission:
    """What is known of a board that may join with this token now.  Raises Refused."""
    if token.revoked_ms is not None:
        raise Refused("this join token was revoked", code="forbidden", hint=ANOTHER)
    again = await tokens.has_used(tx, token.id, applicant.board)
    # A board that has used the token gets its answer again, whenever: it may have lost the first.
    if not again and token.used >= token.uses:
        raise Refused("this join token has been used by another board", code="forbidden", hint=ANOTHER)
    if not again and token.expires_ms <= now_ms:
        hours = (now_ms - token.expires_ms) // 3_600_000
        raise Refused(f"this join token expired {hours} h ago", code="expired", hint=ANOTHER)
    known = await _known(tx, applicant)
    if token.replaces is not None and known is not None and not again and known.id != token.replaces:
        raise Refused(
            f"this machine has joined as {known.name!r}, so it cannot take the place of another board",
            code="conflict",
            hint="give it new keys (remove its state directory), or use a token without --replaces",
        )
    return _Admission(known, again)


async def _known(tx: Tx, applicant: _Applicant) -> BoardRow | None:
    row = await boards.find_board(tx, applicant.board)
    if row is None:
        return None
    if row.log_key != applicant.key.vkey:
        raise Refused(f"the id {row.id} belongs to a board with another log key", code="forbidden")
    refuse_revoked(row)
    return row


def _check_proof(request: JoinRequest, applicant: _Applicant, hub: str) -> None:
    """The log key's own word that it joins this hub, with this token and these keys."""
    from hub.fleet import certificates  # late, as in authority

    try:
        proof = read_text("join", JoinProof, note.open_note(request.proof, applicant.key))
    except Corrupt as error:
        raise Refused(f"the proof is not signed by the log key: {error}", code="forbidden") from error
    bound = {
        "hub": proof.hub == hub,
        "token": proof.token_sha256 == fingerprint(request.token),
        "TLS key": certificates.public_key(proof.tls_key) == certificates.request_key(request.csr_pem),
        "sealing key": proof.seal_key == request.seal_key,
    }
    if wrong := [what for what, holds in bound.items() if not holds]:
        raise Refused(f"the proof was made for another {' and '.join(wrong)}", code="forbidden")


async def _enter(tx: Tx, token: Token, applicant: _Applicant, admission: _Admission, now_ms: int) -> str:
    """Write down that the board is here; returns its name."""
    board = admission.known
    old = None
    if board is None:
        old = await predecessor(tx, token, applicant.board)
        if old is not None:
            await hand_over(tx, old, applicant.board, now_ms)
        board = await boards.add_board(
            tx,
            id=applicant.board,
            name=old.name if old else token.name or f"board-{applicant.board[:4]}",
            labels=old.labels if old else token.labels,
            log_key=applicant.key.vkey,
            seal_key=applicant.seal_key,
            joined_ms=now_ms,
        )
        if old is not None:
            await take_apps(tx, old, board.id, now_ms)
    elif board.seal_key != applicant.seal_key:
        await boards.rekey_board(tx, board.id, applicant.seal_key)
        await orders.mark_stale_if_any(tx, board.id)  # what is sealed in it is for the old key
    if not admission.again:
        await tokens.use_token(tx, token.id, board.id, now_ms)
        text = f"joined {'again ' if admission.known else ''}with token {token.id}"
        text += f", in place of {old.id}" if old else ""
        await events.add_event(tx, at_ms=now_ms, kind="joined", text=text, board=board.id, actor="board")
    return board.name
