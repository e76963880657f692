"""What the hub sees wrong, over hours of virtual time, with its database and without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from agent.wire.errors import Refused
from agent.wire.messages import About
from hub.fleet.alerts import Alerts
from hub.fleet.commit import Commit, Dropped
from hub.fleet.latest import Latest
from hub.store import boards
from hub.store.boards import PresenceChange
from hub.store.database import Store, Tx
from hub.store.gaps import GapRow
from hub.store.problems import ProblemRow, list_problems
from support.still import still_store
from support.virtual import WALL_MS, VirtualLoop, virtual

A, B = "a" * 16, "b" * 16
GB = 10**9


class Fleet:
    """A hub's picture and its alerts; the test says what boards and the machine do."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.skew_ms = 0
        self.free = 100 * GB
        self.latest = Latest()
        self.alerts = Alerts(store, self.latest, self.now_ms, disk=lambda: (self.free, 500 * GB))

    def now_ms(self) -> int:
        return WALL_MS + self.skew_ms + int(asyncio.get_running_loop().time() * 1000 + 1e-3)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *ids: str) -> AsyncIterator[Fleet]:
        async with still_store(path) as store:
            fleet = cls(store)
            if ids:
                async with store.write() as tx:
                    for id in ids:
                        await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=fleet.now_ms())
            await fleet.latest.load(store)
            async with fleet.running():
                yield fleet

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The alerts as `hub.app` and the link run them."""
        await self.alerts.load()
        self.alerts.broker_found()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.alerts.run(), name="alerts")
            yield
            task.cancel()

    def hear(self, *ids: str, at_ms: int | None = None) -> None:
        """Boards say something, and ingest commits it."""
        commit = Commit(self.now_ms())
        for id in ids:
            commit.believed[id] = self.now_ms() if at_ms is None else at_ms
            self.latest.heard(id, commit.believed[id])
        self.alerts.learn(commit)

    async def come(self, *ids: str, every_ms: int = 60_000) -> None:
        """Boards are born, and describe themselves."""
        commit = Commit(self.now_ms())
        for id in ids:
            about = About(id, "1", "", "", "0" * 32, 0, report_every_ms=every_ms)
            commit.believed[id] = self.now_ms()
            commit.abouts[id] = about
            self.latest.presence(id, "online", self.now_ms())
            self.latest.about(id, about, self.now_ms())
        async with self.store.write() as tx:
            changes = [PresenceChange(id, "online", "n", self.now_ms()) for id in ids]
            await boards.save_presence(tx, changes)
            await boards.save_abouts(tx, commit.abouts, self.now_ms(), most_sensors=512)
        self.alerts.learn(commit)

    async def talk(self, seconds: int, *ids: str) -> None:
        """So long boards report every minute."""
        for _ in range(seconds // 60):
            await asyncio.sleep(60)
            self.hear(*ids)

    async def rows(self, *, open: bool | None = True) -> list[ProblemRow]:
        async with self.store.read() as tx:
            return await list_problems(tx, open=open)

    async def codes(self, *, open: bool | None = True) -> list[tuple[str | None, str]]:
        return [(row.board, row.code) for row in reversed(await self.rows(open=open))]

    def shown(self, board: str) -> list[str]:
        """The problems of a board as pages have them."""
        return [problem.code for problem in self.latest.boards[board].problems]


# --- silence -------------------------------------------------------------------------------------


@virtual
async def test_a_board_is_silent_after_three_of_its_own_intervals(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A, B) as fleet:
        await fleet.come(A)
        await fleet.come(B, every_ms=300_000)
        await asyncio.sleep(184)
        assert (fleet.shown(A), await fleet.codes()) == ([], [])
        await asyncio.sleep(4)
        assert fleet.shown(A) == ["board-silent"]
        [row] = await fleet.rows()
        assert (row.board, row.source, row.severity, row.since_ms) == (A, "hub", "fail", WALL_MS)
        assert row.sentence == "The board is silent, and should report every 1 min"
        await asyncio.sleep(700)
        assert fleet.shown(B) == []
        await asyncio.sleep(30)
        assert fleet.shown(B) == ["board-silent"]
        fleet.hear(A)
        assert fleet.shown(A) == []
        await asyncio.sleep(2)
        assert await fleet.codes() == [(B, "board-silent")]
        [past] = await fleet.rows(open=False)
        assert (past.board, past.cleared_ms) == (A, fleet.now_ms() - 2000)


@virtual
async def test_an_interval_that_becomes_shorter_counts_at_once(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A, every_ms=300_000)
        await asyncio.sleep(30)
        await fleet.come(A, every_ms=2_000)
        await asyncio.sleep(13)
        assert fleet.shown(A) == ["board-silent"]


@virtual
async def test_a_board_that_said_goodbye_has_a_minute_to_come_back(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        fleet.latest.presence(A, "offline", fleet.now_ms())
        await asyncio.sleep(50)
        await fleet.come(A)
        await asyncio.sleep(30)
        assert await fleet.codes(open=None) == []
        fleet.latest.presence(A, "offline", fleet.now_ms())
        await asyncio.sleep(125)
        [row] = await fleet.rows()
        assert row.sentence == "The board is offline"


@virtual
async def test_a_will_is_no_sign_of_life(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        await asyncio.sleep(195)
        fleet.latest.presence(A, "offline", fleet.now_ms())
        fleet.hear(A)
        await asyncio.sleep(300)
        assert (await fleet.codes(), await fleet.codes(open=False)) == ([(A, "board-silent")], [])


@virtual
async def test_a_board_that_joined_and_is_never_heard(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db") as fleet:
        async with fleet.store.write() as tx:
            await boards.add_board(tx, id=A, log_key="", seal_key="", joined_ms=fleet.now_ms())
        await asyncio.sleep(170)
        assert await fleet.codes() == []
        await asyncio.sleep(80)
        [row] = await fleet.rows()
        assert (row.code, row.sentence) == ("board-silent", "The board has joined, and was never heard")
        assert row.since_ms == WALL_MS
        await fleet.come(A)
        await asyncio.sleep(2)
        assert (await fleet.codes(), fleet.shown(A)) == ([], [])


@virtual
async def test_after_a_restart_boards_have_time_to_come_back(tmp_path: Path) -> None:
    """While the hub was away nobody could be heard, and they come back within their back-off."""
    async with Fleet.open(tmp_path / "hub.db", A, B) as fleet:
        await fleet.come(A, B)
        await asyncio.sleep(100)
        fleet.hear(B)
        await asyncio.sleep(100)
        assert await fleet.codes() == [(A, "board-silent")]
    await asyncio.sleep(3600)
    async with Fleet.open(tmp_path / "hub.db") as fleet:
        assert fleet.shown(A) == ["board-silent"]
        await asyncio.sleep(350)
        assert await fleet.codes() == [(A, "board-silent")]
        fleet.hear(A, at_ms=WALL_MS)  # something old, that the broker had kept
        assert fleet.shown(A) == ["board-silent"]
        fleet.hear(A)
        await asyncio.sleep(20)
        assert await fleet.codes() == [(B, "board-silent")]


@virtual
@pytest.mark.parametrize("jump_ms", [365 * 86_400_000, -365 * 86_400_000])
async def test_a_hub_whose_clock_is_set_does_not_take_its_boards_for_silent(
    tmp_path: Path, jump_ms: int
) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        await asyncio.sleep(30)
        fleet.skew_ms = jump_ms
        await fleet.talk(600, A)
        assert await fleet.codes(open=None) == []


@virtual
async def test_without_its_broker_the_hub_says_so_and_nothing_of_boards(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        fleet.alerts.broker_lost()
        fleet.alerts.broker_lost()
        await asyncio.sleep(10)
        assert await fleet.codes() == []
        await asyncio.sleep(1000)
        assert await fleet.codes() == [(None, "broker-down")]
        assert [problem.code for problem in fleet.latest.problems] == ["broker-down"]
        fleet.alerts.broker_found()
        await fleet.talk(300, A)
        assert (await fleet.codes(), fleet.latest.problems) == ([], ())


@virtual
async def test_ten_thousand_boards_cost_nearly_nothing(tmp_path: Path) -> None:
    """An hour of a fleet that is well: how often there is a look, and what it costs."""
    ids = [f"{number:016d}".translate(str.maketrans("0189", "abcd")) for number in range(10_000)]
    async with Fleet.open(tmp_path / "hub.db") as fleet:
        for id in ids:
            fleet.latest.presence(id, "online", fleet.now_ms())
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        spent_s, wakeups = 0.0, loop.wakeups
        for _ in range(60):
            began_s = time.process_time()
            await asyncio.sleep(60)
            spent_s += time.process_time() - began_s
            fleet.hear(*ids)
        assert loop.wakeups - wakeups < 3 * 60
        assert spent_s < 3.6, "a thousandth of the hour"
        assert await fleet.codes(open=None) == []


# --- what ingest tells ---------------------------------------------------------------------------


@virtual
async def test_limits_and_refused_messages_end_when_it_is_quiet(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A, B) as fleet:
        await fleet.come(A, B)
        for _ in range(5000):
            fleet.alerts.exceeded(A)
        fleet.alerts.refused(A, "the payload is not zlib data")
        await fleet.talk(60, A, B)
        found = {row.code: row for row in await fleet.rows()}
        assert found.keys() == {"limits-exceeded", "messages-refused"}
        assert found["limits-exceeded"].count == 5000
        assert "not zlib" in found["messages-refused"].sentence
        assert {row.board for row in found.values()} == {A}
        await fleet.talk(300, A, B)
        assert await fleet.codes() == [(A, "messages-refused")]
        await fleet.talk(600, A, B)
        assert await fleet.codes() == []
        assert len(await fleet.rows(open=False)) == 2


@virtual
async def test_a_new_count_is_stored_but_not_each_time(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        fleet.alerts.exceeded(A)
        await asyncio.sleep(2)
        fleet.alerts.exceeded(A)
        await asyncio.sleep(2)
        assert [row.count for row in await fleet.rows()] == [1]
        await asyncio.sleep(10)
        assert [row.count for row in await fleet.rows()] == [2]


@virtual
async def test_who_is_kept_out_is_named_for_as_long(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        fleet.alerts.exceeded(A, out_for_s=960)
        await fleet.talk(1200, A)
        [row] = await fleet.rows()
        assert "kept out for 960 s" in row.sentence
        await fleet.talk(120, A)
        assert await fleet.codes() == []


@pytest.mark.slow
@virtual
async def test_gaps_and_two_machines_with_one_identity(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        commit = Commit(fleet.now_ms())
        commit.gaps.append(GapRow(A, "s" * 16, 1, 1234, None, None, "outbox-full", fleet.now_ms()))
        commit.dropped.append(Dropped(A, "invalid", "blocks: no"))
        returned(commit, A)
        fleet.alerts.learn(commit)
        await asyncio.sleep(2)
        found = {row.code: row for row in await fleet.rows()}
        assert found.keys() == {"readings-gap", "identity-twice", "messages-refused"}
        assert found["readings-gap"].sentence.startswith("1234 readings are lost for good")
        assert found["identity-twice"].severity == "fail"
        await fleet.talk(3700, A)
        assert await fleet.codes() == [(A, "readings-gap")]
        await fleet.talk(86_400 - 3600, A)
        assert await fleet.codes() == []


def returned(commit: Commit, board: str) -> None:
    """Let an earlier boot of a board be back."""
    cast("set[str]", commit.returned).add(board)


@virtual
async def test_who_never_joined_or_was_revoked_is_in_no_row(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A, B) as fleet:
        await fleet.come(A, B)
        fleet.alerts.refused("x" * 16, "no such board")
        fleet.alerts.refused(A, "bad")
        fleet.alerts.refused(B, "bad")
        await asyncio.sleep(2)
        async with fleet.store.write() as tx:
            await boards.revoke_board(tx, B, fleet.now_ms())
        fleet.latest.forget(B)
        await fleet.talk(120, A)
        assert await fleet.codes() == [(A, "messages-refused")]
        assert [row.board for row in fleet.alerts.unsaved()] == []


# --- the hub's own -------------------------------------------------------------------------------


@virtual
async def test_a_disk_that_fills_and_empties(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db") as fleet:
        fleet.free = GB // 2
        await asyncio.sleep(65)
        [row] = await fleet.rows()
        assert (row.board, row.code, row.severity) == (None, "hub-disk-low", "warn")
        assert row.sentence == "The hub's disk is nearly full: 500 MB are left"
        fleet.free = GB // 4
        await asyncio.sleep(75)
        [row] = await fleet.rows()
        assert "250 MB" in row.sentence
        assert row.count == 1
        fleet.free = 2 * GB
        await asyncio.sleep(65)
        assert await fleet.codes() == []


class FullStore:
    """A store on a disk that may be full."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False
        self.read = store.read

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Tx]:
        if self.full:
            raise Refused("hub.db: no space left on the disk", code="disk-full", hint="make room")
        async with self._store.write() as tx:
            yield tx


@virtual
async def test_a_full_disk_is_told_from_memory_and_stored_when_it_is_over(tmp_path: Path) -> None:
    async with still_store(tmp_path / "hub.db") as store:
        fleet = Fleet(cast("Store", full := FullStore(store)))
        async with fleet.running():
            full.full = True
            for _ in range(100):
                fleet.alerts.failed(Refused("hub.db: no space left on the disk", code="disk-full"))
            await asyncio.sleep(60)
            [shown] = fleet.latest.problems
            assert (shown.code, shown.severity, shown.count) == ("hub-disk-full", "fail", 1)
            [unsaved] = fleet.alerts.unsaved()
            assert (unsaved.id, unsaved.board, unsaved.code) == (0, None, "hub-disk-full")
            assert await fleet.rows(open=None) == []
            full.full = False
            await asyncio.sleep(15)
            assert (fleet.latest.problems, fleet.alerts.unsaved()) == ((), [])
            [row] = await fleet.rows(open=False)
            assert row.code == "hub-disk-full"
            assert (row.since_ms, row.cleared_ms) == (WALL_MS, WALL_MS + 61_000)


@virtual
async def test_what_was_open_is_taken_up_by_the_next_start(tmp_path: Path) -> None:
    async with Fleet.open(tmp_path / "hub.db", A) as fleet:
        await fleet.come(A)
        fleet.alerts.exceeded(A)
        fleet.alerts.behind()
        await asyncio.sleep(2)
        [first, second] = await fleet.rows()
    async with Fleet.open(tmp_path / "hub.db") as fleet:
        assert await fleet.rows() == [first, second]
        assert (fleet.shown(A), [each.code for each in fleet.latest.problems]) == (
            ["limits-exceeded"],
            ["hub-behind"],
        )
        assert fleet.alerts.unsaved() == []
        await fleet.talk(360, A)
        assert await fleet.codes() == []


@pytest.mark.slow
@virtual
async def test_a_whole_fleet_falls_silent_in_slices(tmp_path: Path) -> None:
    ids = [f"{'a' * 12}{chr(97 + n // 260)}{chr(97 + n // 26 % 10)}{chr(97 + n % 26)}a" for n in range(1200)]
    async with Fleet.open(tmp_path / "hub.db", *ids) as fleet:
        await fleet.come(*ids)
        await asyncio.sleep(200)
        async with fleet.store.read() as tx:
            assert len(await list_problems(tx, limit=5000)) == 1200
        fleet.hear(*ids)
        await asyncio.sleep(5)
        assert await fleet.codes() == []
