"""Who was put out of this hub, and that it stays out on every path by which a board comes.

Owns what follows from the column `revoked_ms`, which is the one list: joining, renewing and the
web's guard ask `refuse_revoked`, ingest believes nothing, and for the broker this module writes
the revocation list and the access list, ends the open session and clears what is retained.

Level, not edge: `enforce` makes files of what the store says, at the start and after each
change, and `run` goes over all revoked boards on each connection to the broker.  So a revocation
that was cut short by a crash is whole after the next start, and a broker that lost its newest
minute to a crash is cleared again.

A session that is open feels neither list: with the access list it only falls silent.  It ends
when somebody else connects with its client id, which the hub does over its own socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import NoReturn

from agent.base.broker import Address, Connect, Message, Session
from agent.wire import topics
from agent.wire.errors import Refused
from hub.fleet.authority import Authority
from hub.fleet.latest import Latest
from hub.store import boards, certificates, events, placements
from hub.store.boards import BoardRow
from hub.store.database import Store

log = logging.getLogger(__name__)

RETAINED_UP = ("presence", "about", "apps")
RETAINED_DOWN = ("hub", "order", "ack", "receipt")


class Revocation:
    """Puts boards out.  ``deny`` tells the broker which boards may do nothing from now on."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        latest: Latest,
        now_ms: Callable[[], int],
        *,
        deny: Callable[[Iterable[str]], None],
        executor: Executor | None = None,
    ) -> None:
        self._store = store
        self._authority = authority
        self._latest = latest
        self._now_ms = now_ms
        self._deny = deny
        self._executor = executor
        self._turn = asyncio.Lock()
        self._bell = asyncio.Event()

    async def revoke(self, id_or_name: str, actor: str) -> BoardRow:
        """Put a board out for good; ``actor`` is the admin who asks.  Again is the same as once.

        Raises Refused (code "not-found").
        """
        now_ms = self._now_ms()
        async with self._store.write() as tx:
            row = await boards.get_board(tx, id_or_name)
            if await boards.revoke_board(tx, row.id, now_ms):
                text = f"revoked {row.name}"
                await events.add_event(tx, at_ms=now_ms, kind="revoked", text=text, board=row.id, actor=actor)
                await placements.drop_board(tx, row.id, now_ms)
                log.info("board revoked", extra={"board": row.id, "board_name": row.name, "by": actor})
            row = await boards.get_board(tx, row.id)
        await self.enforce()
        return row

    async def enforce(self) -> None:
        """Let files, broker and pages say what the store says.  Whoever revokes in the store calls it."""
        loop = asyncio.get_running_loop()
        async with self._turn:  # or an older list could be written over a newer one
            async with self._store.read() as tx:
                serials = await certificates.revoked_serials(tx)
                revoked = await certificates.revoked_boards(tx)
            await loop.run_in_executor(
                self._executor, self._authority.ensure_revoked, serials, self._now_ms()
            )
            self._deny(revoked)
        for board in revoked:
            self._latest.forget(board)
        self._bell.set()

    async def run(self, session: Session, connect: Connect, address: Address) -> NoReturn:
        """End the sessions of revoked boards, and clear what is retained of them.  Raises LinkDown.

        ``address`` is that of ``session``: of the broker's socket for the hub itself.
        """
        done: set[str] = set()
        while True:
            self._bell.clear()
            async with self._store.read() as tx:
                revoked = await certificates.revoked_boards(tx)
            for board in revoked:
                if board not in done:
                    await end_session(connect, address, board)
                    await _clear(session, board)
                    done.add(board)
            await self._bell.wait()


async def end_session(connect: Connect, address: Address, board: str) -> None:
    """End the session of a board; ``address`` is that of the hub itself.  Raises LinkDown."""
    # MQTT 5.0, section 3.1.4: the server ends the session that has this client id.  The clean
    # start drops what was queued for it.
    async with connect(replace(address, client_id=board)):
        log.debug("session ended", extra={"board": board})


async def _clear(session: Session, board: str) -> None:
    """An empty retained message removes the one that is kept (MQTT 5.0, section 3.3.1.3)."""
    kept = [topics.up(board, leaf) for leaf in RETAINED_UP]
    kept += [topics.down(board, leaf) for leaf in RETAINED_DOWN]
    for topic in kept:
        await session.publish(Message(topic, b"", retain=True))


def refuse_revoked(row: BoardRow) -> None:
    """Raise Refused (code "revoked") when the board was revoked."""
    if row.revoked_ms is not None:
        raise Refused(
            f"the board {row.id} was revoked on this hub",
            code="revoked",
            hint="to let this machine in again, give it new keys: remove its state directory",
        )
