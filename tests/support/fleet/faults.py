"""What happens to a fleet: faults drawn by chance, one after the other and several at once.

`Faults.run` draws until its time is over; each fault lasts as long as it was drawn to, and ends by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from support.fleet.board import Board
from support.fleet.hub import Hub
from support.fleet.machine import HOUR_S
from support.fleet.network import Network

Fault = Callable[[], Awaitable[None]]
MINUTE_S = 60.0
BETWEEN_S = 12 * MINUTE_S
"""The mean time from the beginning of one fault to that of the next."""


class Faults:
    """``seen`` counts what has happened, by name."""

    def __init__(
        self, dice: random.Random, group: asyncio.TaskGroup, network: Network, hub: Hub, boards: list[Board]
    ) -> None:
        self.seen: Counter[str] = Counter()
        self._dice = dice
        self._group = group
        self._network = network
        self._hub = hub
        self._boards = boards
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Let things happen for so long, and wait until they are over."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / BETWEEN_S))
            if loop.time() >= end_s:
                break
            self._draw()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _draw(self) -> None:
        kinds, weights = zip(*_WEIGHTS.items(), strict=True)
        (kind,) = self._dice.choices(kinds, weights)
        self.seen[kind.__name__] += 1
        task = self._group.create_task(kind(self), name=kind.__name__)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _some(self, low_s: float, high_s: float) -> None:
        """Wait for a while: short ones are as likely as long ones."""
        share = self._dice.random()
        await asyncio.sleep(low_s ** (1 - share) * high_s**share)

    # --- of the network and the broker -----------------------------------------------------------

    async def line_breaks(self) -> None:
        self._network.break_line(self._dice.choice(self._boards).id)

    async def line_swallows(self) -> None:
        board = self._dice.choice(self._boards)
        self._network.swallow(board.id)
        await self._some(5, 15 * MINUTE_S)
        self._network.release(board.id)

    async def no_network(self) -> None:
        board = self._dice.choice(self._boards)
        self._network.cut_off.add(board.id)
        self._network.break_line(board.id)
        await self._some(10, 30 * HOUR_S)
        self._network.cut_off.discard(board.id)

    async def broker_killed(self) -> None:
        if not self._network.broker.dead:
            self._network.broker.kill()
            await self._some(1, MINUTE_S)
            self._network.broker.start()

    async def broker_loses_its_database(self) -> None:
        if not self._network.broker.dead:
            self._network.broker.kill()
            self._network.broker.retained.clear()
            await self._some(1, MINUTE_S)
            self._network.broker.start()

    async def broker_frozen(self) -> None:
        if not (self._network.broker.dead or self._network.broker.frozen):
            self._network.broker.freeze()
            await self._some(5, 10 * MINUTE_S)
            self._network.broker.thaw()

    # --- of a board ------------------------------------------------------------------------------

    async def _with_board(self, fault: Callable[[Board], Awaitable[None]]) -> None:
        """To a board to which nothing else is happening."""
        board = self._dice.choice(self._boards)
        if board.busy:
            return
        board.busy = True
        await fault(board)
        board.busy = False

    async def agent_killed(self) -> None:
        async def fault(board: Board) -> None:
            await board.kill()
            await self._some(2, MINUTE_S)
            board.start(self._group)

        await self._with_board(fault)

    async def agent_restarted(self) -> None:
        async def fault(board: Board) -> None:
            await board.stop()
            await self._some(2, 10)
            board.start(self._group)

        await self._with_board(fault)

    async def power_cut(self) -> None:
        async def fault(board: Board) -> None:
            await board.kill()
            await self._some(20, 2 * HOUR_S)
            board.machine.power_on()
            board.start(self._group)

        await self._with_board(fault)

    async def power_cuts_in_a_row(self) -> None:
        async def fault(board: Board) -> None:
            for _ in range(self._dice.randint(2, 6)):
                await board.kill()
                board.machine.power_on()
                board.start(self._group)
                await self._some(1, 5 * MINUTE_S)

        await self._with_board(fault)

    async def clock_set_by_hand(self) -> None:
        self._dice.choice(self._boards).machine.set_clock()

    async def board_disk_full(self) -> None:
        async def fault(board: Board) -> None:
            await board.fill_disk()
            await self._some(MINUTE_S, 12 * HOUR_S)
            await board.free_disk()

        await self._with_board(fault)

    async def board_disk_full_and_power_cut(self) -> None:
        async def fault(board: Board) -> None:
            await board.fill_disk()
            await self._some(MINUTE_S, HOUR_S)
            await board.kill()
            board.machine.power_on()
            board.start(self._group)
            await self._some(MINUTE_S, HOUR_S)
            await board.free_disk()

        await self._with_board(fault)

    # --- of the hub ------------------------------------------------------------------------------

    async def _with_hub(self, fault: Callable[[Hub], Awaitable[None]]) -> None:
        if self._hub.busy:
            return
        self._hub.busy = True
        await fault(self._hub)
        self._hub.busy = False

    async def hub_killed(self) -> None:
        async def fault(hub: Hub) -> None:
            await hub.kill()
            await self._some(1, 20 * MINUTE_S)
            hub.start(self._group)

        await self._with_hub(fault)

    async def hub_restarted(self) -> None:
        async def fault(hub: Hub) -> None:
            await hub.stop()
            await self._some(1, 3 * HOUR_S)
            hub.start(self._group)

        await self._with_hub(fault)

    async def hub_disk_full(self) -> None:
        async def fault(hub: Hub) -> None:
            await hub.fill_disk()
            await self._some(MINUTE_S, 2 * HOUR_S)
            await hub.free_disk()

        await self._with_hub(fault)

    async def somebody_watches(self) -> None:
        board = self._dice.choice(self._boards)
        await self._hub.watch(board.id, self._dice.uniform(10, 3 * MINUTE_S))


_WEIGHTS: dict[Callable[[Faults], Awaitable[None]], int] = {
    Faults.line_breaks: 10,
    Faults.line_swallows: 8,
    Faults.no_network: 8,
    Faults.broker_killed: 3,
    Faults.broker_loses_its_database: 1,
    Faults.broker_frozen: 3,
    Faults.agent_killed: 10,
    Faults.agent_restarted: 4,
    Faults.power_cut: 8,
    Faults.power_cuts_in_a_row: 2,
    Faults.clock_set_by_hand: 6,
    Faults.board_disk_full: 4,
    Faults.board_disk_full_and_power_cut: 2,
    Faults.hub_killed: 6,
    Faults.hub_restarted: 2,
    Faults.hub_disk_full: 2,
    Faults.somebody_watches: 4,
}
"""How likely each is beside the others."""
