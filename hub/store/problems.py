"""Problems: known faults of boards and of the hub itself, those there are and those there were.

Owns the table `problems`.  Ingest settles what each board says of itself, in the transaction
that keeps its `about`; `hub.fleet.alerts` settles what the hub sees.  A row is open until
`cleared_ms` is set, and history from then on; nobody but these two changes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.messages import Problem
from hub.store.schema import boards, problems

Source = Literal["board", "hub"]
Severity = Literal["notice", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """A problem; ``board`` is None for those of the hub itself, ``source`` who noticed it.

    Times by the hub's clock, but for ``since_ms`` of a board that knows the time: it is its own
    word, and never later than when the hub heard of it.
    """

    id: int
    board: str | None
    source: Source
    code: str
    sentence: str
    hint: str
    severity: Severity
    since_ms: int
    cleared_ms: int | None
    count: int


async def list_problems(
    tx: AsyncConnection,
    *,
    board: str | None = None,
    open: bool | None = True,
    source: Source | None = None,
    severity: Severity | None = None,
    limit: int = 200,
    before: int | None = None,
) -> list[ProblemRow]:
    """The newest problems first, of one board (an id) or of all and the hub.

    ``open``: those there are (True), those there were (False), or both (None); ``before`` is the
    id of the last one on the page before.
    """
    asked = select(problems).order_by(problems.c.id.desc()).limit(limit)
    if board is not None:
        asked = asked.where(problems.c.board == board)
    if open is not None:
        cleared = problems.c.cleared_ms
        asked = asked.where(cleared.is_(None) if open else cleared.is_not(None))
    if source is not None:
        asked = asked.where(problems.c.source == source)
    if severity is not None:
        asked = asked.where(problems.c.severity == severity)
    if before is not None:
        asked = asked.where(problems.c.id < before)
    return [ProblemRow(*row) for row in await tx.execute(asked)]


async def settle(
    tx: AsyncConnection, board: str | None, source: Source, found: Sequence[Problem], at_ms: int
) -> None:
    """Let exactly ``found`` be the open problems of ``board`` (None: of the hub) from this ``source``.

    See `settle_all`.
    """
    await settle_all(tx, source, {board: found}, at_ms)


async def settle_all(
    tx: AsyncConnection, source: Source, found: Mapping[str | None, Sequence[Problem]], at_ms: int
) -> None:
    """The same for many at once: opens what is new, clears what is gone, writes what differs.

    A problem whose ``since_ms`` is 0 or less began at a time that nobody knows: it counts from
    when it is first heard of.
    """
    if not found:
        return
    before: dict[str | None, list[ProblemRow]] = {}
    asked = select(problems).where(
        problems.c.cleared_ms.is_(None), problems.c.source == source, _concerning(found)
    )
    for found_row in await tx.execute(asked):
        before.setdefault(found_row.board, []).append(ProblemRow(*found_row))
    opened: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    cleared: list[dict[str, Any]] = []
    for board, now in found.items():
        open_rows = before.get(board, [])
        for row, problem in _pair(open_rows, now):
            if row is None:
                assert problem is not None, "a pair has at least one half"
                opened.append({"board": board, "source": source, **_values(problem, at_ms, at_ms)})
            elif problem is None:
                cleared.append({"p_id": row.id, "cleared_ms": at_ms})
            elif (values := _values(problem, at_ms, row.since_ms)) != _kept(row):
                changed.append({"p_id": row.id, **values})
    if opened:
        await tx.execute(insert(problems), opened)
    for rows in (changed, cleared):
        if rows:
            await tx.execute(update(problems).where(problems.c.id == bindparam("p_id")), rows)


async def add_past(tx: AsyncConnection, rows: Sequence[tuple[str | None, Problem, int]]) -> None:
    """Note problems that the hub saw and that are over: (board, problem, when it cleared)."""
    if rows:
        await tx.execute(
            insert(problems),
            [
                {"board": board, "source": "hub", "cleared_ms": at_ms, **_values(problem, at_ms, at_ms)}
                for board, problem, at_ms in rows
            ],
        )


async def boards_to_clear(tx: AsyncConnection) -> list[str]:
    """The boards with open problems that may not speak any more, and so will never clear them."""
    gone = select(boards.c.id).where(boards.c.revoked_ms.is_not(None))
    asked = select(problems.c.board).where(problems.c.cleared_ms.is_(None), problems.c.board.in_(gone))
    return list((await tx.execute(asked.distinct())).scalars())


async def clear_boards(tx: AsyncConnection, ids: Sequence[str], at_ms: int) -> None:
    """Clear every open problem of these boards."""
    asked = update(problems).where(problems.c.cleared_ms.is_(None), problems.c.board.in_(ids))
    await tx.execute(asked.values(cleared_ms=at_ms))


async def prune_problems(tx: AsyncConnection, before_ms: int, *, most: int = 500) -> int:
    """Forget problems that cleared before then, at most ``most`` of them; returns how many went."""
    old = select(problems.c.id).where(problems.c.cleared_ms < before_ms).order_by(problems.c.id).limit(most)
    return (await tx.execute(delete(problems).where(problems.c.id.in_(old)))).rowcount


def _concerning(found: Mapping[str | None, object]) -> ColumnElement[bool]:
    ids = [board for board in found if board is not None]
    of_boards = problems.c.board.in_(ids)
    return or_(of_boards, problems.c.board.is_(None)) if None in found else of_boards


def _pair(
    rows: Sequence[ProblemRow], found: Sequence[Problem]
) -> Iterator[tuple[ProblemRow | None, Problem | None]]:
    """Each problem with the open row that it goes on with, by code.

    A board may have several of one code (two sensors that fail).  The same sentence decides then,
    and what is left goes on in order, because a sentence may have a number in it that changes.
    """
    left = list(rows)
    unmatched: list[Problem] = []
    for problem in found:
        same = next(
            (row for row in left if (row.code, row.sentence) == (problem.code, problem.sentence)), None
        )
        if same is None:
            unmatched.append(problem)
            continue
        left.remove(same)
        yield same, problem
    for problem in unmatched:
        alike = next((row for row in left if row.code == problem.code), None)
        if alike is not None:
            left.remove(alike)
        yield alike, problem
    for row in left:
        yield row, None


def _values(problem: Problem, at_ms: int, unknown_ms: int) -> dict[str, Any]:
    return {
        "code": problem.code,
        "sentence": problem.sentence,
        "hint": problem.hint,
        "severity": problem.severity,
        "since_ms": min(problem.since_ms, at_ms) if problem.since_ms > 0 else unknown_ms,
        "count": problem.count,
    }


def _kept(row: ProblemRow) -> dict[str, Any]:
    return {
        name: getattr(row, name) for name in ("code", "sentence", "hint", "severity", "since_ms", "count")
    }
