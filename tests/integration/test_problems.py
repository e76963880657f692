"""Problems on a real database: opened, carried on, cleared and forgotten by difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from agent.wire.messages import Problem
from hub.store import boards
from hub.store.database import Store
from hub.store.problems import (
    ProblemRow,
    add_past,
    boards_to_clear,
    clear_boards,
    list_problems,
    prune_problems,
    settle,
    settle_all,
)
from support.blank import new_store
from support.stream import BOARD

OTHER = "c" * 16
DISK = Problem("disk-low", "1 GB is left", "remove something", "warn", 500)
COLD = Problem("sensor-failing", "room does not answer", since_ms=700)
HOT = Problem("sensor-failing", "stove does not answer", since_ms=800)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path / "hub.db") as opened:
        async with opened.write() as tx:
            for id in (BOARD, OTHER):
                await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=0)
        yield opened


async def said(store: Store, at_ms: int, *problems: Problem, board: str | None = BOARD) -> None:
    async with store.write() as tx:
        await settle(tx, board, "board" if board else "hub", problems, at_ms)


async def rows(store: Store, *, open: bool | None = True, board: str | None = None) -> list[ProblemRow]:
    async with store.read() as tx:
        return await list_problems(tx, open=open, board=board)


async def test_a_problem_opens_goes_on_and_clears(store: Store) -> None:
    await said(store, 1000, DISK)
    [opened] = await rows(store)
    assert opened == ProblemRow(
        opened.id, BOARD, "board", "disk-low", "1 GB is left", "remove something", "warn", 500, None, 1
    )
    await said(store, 2000, Problem("disk-low", "100 MB is left", "remove something", "fail", 500, 3))
    [worse] = await rows(store)
    assert (worse.id, worse.sentence, worse.severity, worse.count) == (opened.id, "100 MB is left", "fail", 3)
    await said(store, 3000)
    assert await rows(store) == []
    [past] = await rows(store, open=False)
    assert (past.id, past.since_ms, past.cleared_ms) == (opened.id, 500, 3000)
    await said(store, 4000, DISK)
    assert [row.cleared_ms for row in await rows(store, open=None)] == [None, 3000]


async def test_saying_the_same_again_writes_nothing(store: Store) -> None:
    await said(store, 1000, DISK, COLD)
    async with store.write() as tx:
        before = (await tx.exec_driver_sql("SELECT total_changes()")).scalar_one()
        await settle(tx, BOARD, "board", [COLD, DISK], 2000)
        assert (await tx.exec_driver_sql("SELECT total_changes()")).scalar_one() == before


async def test_two_sensors_fail_and_one_recovers(store: Store) -> None:
    await said(store, 1000, COLD, HOT)
    await said(store, 2000, HOT)
    [left] = await rows(store)
    assert (left.sentence, left.since_ms) == ("stove does not answer", 800)


async def test_a_beginning_that_nobody_knows_is_when_it_was_heard_of(store: Store) -> None:
    await said(store, 1000, Problem("disk-low", "full", since_ms=0))
    await said(store, 2000, Problem("disk-low", "full", since_ms=0))
    assert [row.since_ms for row in await rows(store)] == [1000]
    await said(store, 3000, Problem("disk-low", "full", since_ms=400))  # its clock is known by now
    assert [row.since_ms for row in await rows(store)] == [400]


async def test_no_problem_begins_in_the_future(store: Store) -> None:
    await said(store, 1000, Problem("disk-low", "full", since_ms=2**53))
    assert [row.since_ms for row in await rows(store)] == [1000]


async def test_sources_boards_and_the_hub_do_not_touch_each_other(store: Store) -> None:
    await said(store, 1000, DISK)
    await said(store, 1000, DISK, board=OTHER)
    await said(store, 1000, DISK, board=None)
    async with store.write() as tx:
        await settle_all(tx, "hub", {BOARD: [HOT], None: [COLD]}, 2000)
    assert {(row.board, row.source, row.code) for row in await rows(store)} == {
        (BOARD, "board", "disk-low"),
        (OTHER, "board", "disk-low"),
        (BOARD, "hub", "sensor-failing"),
        (None, "hub", "sensor-failing"),
    }
    assert [row.source for row in await rows(store, board=BOARD)] == ["hub", "board"]


async def test_pages_and_severities(store: Store) -> None:
    await said(store, 1000, *(Problem(f"p-{number}", "x", severity="notice") for number in range(5)), DISK)
    async with store.read() as tx:
        first = await list_problems(tx, limit=4)
        rest = await list_problems(tx, limit=4, before=first[-1].id)
        warned = await list_problems(tx, severity="warn")
    assert [row.code for row in (*first, *rest)] == ["disk-low", "p-4", "p-3", "p-2", "p-1", "p-0"]
    assert [row.code for row in warned] == ["disk-low"]


async def test_a_revoked_board_has_no_problems_any_more(store: Store) -> None:
    await said(store, 1000, DISK)
    await said(store, 1000, DISK, board=OTHER)
    async with store.write() as tx:
        await boards.revoke_board(tx, BOARD, 2000)
        gone = await boards_to_clear(tx)
        await clear_boards(tx, gone, 2000)
    assert gone == [BOARD]
    assert [row.board for row in await rows(store)] == [OTHER]


async def test_history_is_forgotten_and_what_is_open_is_not(store: Store) -> None:
    await said(store, 1000, DISK, COLD)
    await said(store, 2000, COLD)
    async with store.write() as tx:
        await add_past(tx, [(None, HOT, 2500)])
        assert await prune_problems(tx, 2600, most=1) == 1
        assert await prune_problems(tx, 2600) == 1
        assert await prune_problems(tx, 10**12) == 0
    assert [row.code for row in await rows(store, open=None)] == ["sensor-failing"]
