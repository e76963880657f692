"""Orders: of what is placed on a board the one signed text, and its way there.

Owns how an order is composed, when a new generation of one is made, and when it is published: retained
on the board's ``down/order``, once for each generation.  `hub.apps.deploy` renews orders inside the
transaction of a change; whoever else changes what orders are made of marks them as stale in a transaction
of its own (`hub.store.orders`) and rings `wake`.  `run` lives on the hub's connection to its broker.

    placements  --renew-->  row (signed, committed)  --bell-->  published

A generation is one more than the highest that this hub made or the board spoke of: a hub that was
restored may know of fewer than its boards.  An order by an older key is stale, too, so a rotation is
nothing special.  What a board refuses is never taken back here: the operator decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NoReturn

from agent.base.broker import Message, Session
from agent.wire import note, topics
from agent.wire.decode import decode
from agent.wire.envelope import MAX_PAYLOAD
from agent.wire.errors import Busy, Corrupt, Refused
from agent.wire.messages import compose
from agent.wire.order import App, Order
from hub.access.keys import Keyring
from hub.access.vault import Vault
from hub.apps.images import registry_of
from hub.apps.logins import read_logins
from hub.apps.secret_texts import RegistryLogin, recall, sealed
from hub.store import boards, orders, placements
from hub.store.app_reports import find_reports
from hub.store.boards import BoardRow
from hub.store.database import Store, Tx
from hub.store.orders import OrderRow
from hub.store.placements import Placement

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""After the store could not be written."""


class Orders:
    """The orders of one hub.  Belongs to one event loop; runs on one session at a time.

    ``keys`` may be rotated: what is signed next is signed with the new key.  ``announced`` returns once
    every board was told of it.
    """

    def __init__(
        self,
        store: Store,
        keys: Keyring,
        vault: Vault,
        now_ms: Callable[[], int],
        *,
        announced: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._keys = keys
        self._vault = vault
        self._now_ms = now_ms
        self._announced = announced
        self._bell = asyncio.Event()
        self._repeated: set[tuple[str, int]] = set()

    def wake(self) -> None:
        """Some order is stale, or is not published."""
        self._bell.set()

    def may_repeat(self, board: str, generation: int) -> bool:
        """Whether to publish this order once more, as its board does not seem to have heard of it.

        Once on each connection: what it says may just have crossed the order on the way.
        """
        if (board, generation) in self._repeated:
            return False
        self._repeated.add((board, generation))
        return True

    # --- make ------------------------------------------------------------------------------------

    async def renew(self, tx: Tx, ids: Collection[str]) -> None:
        """Make a new generation of the orders of these boards, of what is placed there now.

        Raises Refused (code "too-large", or a key of a board that is none) and Corrupt (the vault).
        Whoever called it rings `wake` after the commit.
        """
        found = await orders.find_orders(tx, ids)
        reports = await find_reports(tx, ids)
        logins = {login.registry: login for login in await read_logins(tx, self._vault)}
        for id in ids:
            board = await boards.find_board(tx, id)
            if board is None or board.revoked_ms is not None:
                continue
            before = found.get(id, OrderRow(id))
            report = reports.get(id)
            reported = max(before.reported, report.apps.generation if report else 0)
            generation = max(before.generation, reported) + 1
            text = await self._signed(tx, board, generation, logins)
            row = OrderRow(
                board=id,
                generation=generation,
                reported=reported,
                published=before.published,
                signer=self._keys.order.vkey,
                issued_ms=self._now_ms(),
                note=text,
            )
            await orders.save_order(tx, row)
            await placements.note_generation(tx, id, generation)

    async def _signed(
        self, tx: Tx, board: BoardRow, generation: int, logins: Mapping[str, RegistryLogin]
    ) -> str:
        rows = await placements.placements_of(tx, board=board.id)
        apps = tuple(self._whole(row, logins, board) for row in rows if row.manifest is not None)
        order = Order(board.id, generation, self._now_ms(), apps)
        text = note.sign(compose("order", order), self._keys.order)
        if (size := len(text.encode())) > MAX_PAYLOAD:
            raise Refused(
                f"the order of {board.name} has {size:,} bytes with this, and may have {MAX_PAYLOAD:,}",
                code="too-large",
                hint="large configs belong into an image or a volume",
            )
        return text

    def _whole(self, row: Placement, logins: Mapping[str, RegistryLogin], board: BoardRow) -> App:
        manifest = decode(App, row.manifest)
        used = {registry_of(service.image) for service in manifest.services}
        texts = recall(self._vault, row.app, row.secrets)
        mine = [login for name, login in sorted(logins.items()) if name in used]
        return sealed(manifest, texts, mine, board.seal_key)

    # --- publish ---------------------------------------------------------------------------------

    async def run(self, session: Session) -> NoReturn:
        """Make what is stale anew and publish what is not, until the link ends.  Raises LinkDown."""
        self._repeated.clear()
        while True:
            self._bell.clear()
            try:
                await self._refresh()
                await self._publish(session)
            except (Refused, Busy) as error:
                log.error("orders wait", extra={"reason": error.code, "error": str(error)})
                await asyncio.sleep(RETRY_S)
                continue
            await self._bell.wait()

    async def _refresh(self) -> None:
        """Make new orders for boards whose old ones are stale."""
        failed: set[str] = set()
        while True:
            async with self._store.read() as tx:
                found = await orders.stale_boards(tx, self._keys.order.vkey, limit=100 + len(failed))
            stale = [board for board in found if board not in failed]
            if not stale:
                return
            for board in stale:
                try:
                    async with self._store.write() as tx:
                        await self.renew(tx, [board])
                except (Refused, Corrupt) as error:
                    if error.code.startswith("disk"):
                        raise
                    # The others must get theirs; it is tried again with the next change.
                    failed.add(board)
                    async with self._store.write() as tx:
                        await orders.note_failure(tx, board, str(error))
                    log.error("order not made", extra={"board": board, "error": str(error)})

    async def _publish(self, session: Session) -> None:
        while True:
            async with self._store.read() as tx:
                rows = await orders.unpublished(tx)
            if not rows:
                return
            # A board that hears of an order first, and then of the key that signed it, refuses it.
            await self._announced()
            for row in rows:
                await session.publish(
                    Message(topics.down(row.board, "order"), row.note.encode(), retain=True)
                )
                log.info("order published", extra={"board": row.board, "generation": row.generation})
            async with self._store.write() as tx:
                gone = [
                    row.board
                    for row in rows
                    if not await orders.note_published(tx, row.board, row.generation)
                ]
            for board in gone:  # it was put out just then, and its topics were emptied before
                await session.publish(Message(topics.down(board, "order"), b"", retain=True))
