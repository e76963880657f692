"""Boards that do not keep to their limits are kept out at the broker for a while, then let in again.

Owns who is out and until when.  Ingest drops what is beyond the limits, which protects the store;
but each message still costs the broker and the hub a look, so who goes on is refused everything by
the broker's access list, and its session is ended: with mosquitto 2.0 one that is denied stays open,
and goes on sending.  `hub.fleet.link` runs it on each connection to the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import NoReturn

from agent.base.broker import Address, Connect
from hub.fleet.alerts import Alerts
from hub.fleet.limits import Allowances
from hub.fleet.revocation import end_session

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often to look, while somebody exceeds the limits or is out."""
OUT_S = 60.0
OUT_MOST_S = 960.0
FORGET_S = 3600.0
"""After so long without being put out, the time begins at the first again; until then it doubles."""


class Throttle:
    """Who is out.  ``deny`` tells the broker whom to refuse everything, beside revoked boards.

    ``out_s``: for how long, the first time.
    """

    def __init__(
        self,
        allowances: Allowances,
        alerts: Alerts,
        *,
        deny: Callable[[Collection[str]], None],
        out_s: float = OUT_S,
    ) -> None:
        self._allowances = allowances
        self._alerts = alerts
        self._deny = deny
        self._out_s = out_s
        self._out: dict[str, float] = {}  # until when, by the loop's clock
        self._last: dict[str, tuple[float, float]] = {}  # of who was out: until when, and for how long

    async def run(self, connect: Connect, address: Address) -> NoReturn:
        """Put out and let in until cancelled.  ``address``: the broker's socket for the hub itself."""
        while True:
            if not self._out and not self._allowances.exceeding:
                self._allowances.bell.clear()
                await self._allowances.bell.wait()
            await asyncio.sleep(LOOK_S)
            now_s = asyncio.get_running_loop().time()
            back = [board for board, until_s in self._out.items() if until_s <= now_s]
            for board in back:
                del self._out[board]
                log.info("board is let in again", extra={"board": board})
            new = [board for board in self._allowances.stubborn() if board not in self._out]
            for board in new:
                self._put_out(board, now_s)
            if back or new:
                self._deny(self._out.keys())
            for board in new:
                await end_session(connect, address, board)

    def _put_out(self, board: str, now_s: float) -> None:
        until_s, for_s = self._last.get(board, (-FORGET_S, 0.0))
        for_s = self._out_s if now_s - until_s > FORGET_S else min(2 * for_s, OUT_MOST_S)
        self._out[board] = now_s + for_s
        self._last[board] = (now_s + for_s, for_s)
        log.warning("board is kept out", extra={"board": board, "for_s": for_s})
        self._alerts.exceeded(board, out_for_s=for_s)
