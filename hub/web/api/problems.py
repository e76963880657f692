"""Problems in the API: known faults of boards and of the hub, those there are and those there were.

Owns how what the store holds is joined with what it cannot take now, as on a full disk: the page
of problems asks `find_problems` too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.wire.decode import Range
from hub.store import boards
from hub.store import problems as store
from hub.store.problems import ProblemRow, Severity
from hub.web.api import table
from hub.web.api.paging import SAYS, After, id_after
from hub.web.api.route import Call
from hub.web.api.table import Table
from hub.web.parts import Parts


@dataclass(frozen=True, slots=True)
class KnownProblem:
    """A known fault: stable `code`, one sentence, a hint.

    `board` is an id, or null for the hub itself; `source` says who noticed it, the board or the
    hub. `id` is 0 for one that the hub cannot store now. `cleared_ms` is null while there is it.
    """

    id: int
    board: str | None
    source: Literal["board", "hub"]
    code: str
    sentence: str
    hint: str
    severity: Severity
    since_ms: int
    cleared_ms: int | None
    count: int


@dataclass(frozen=True, slots=True)
class BoardProblemQuery:
    """Which problems of a board."""

    open: Literal["true", "false", "all"] = field(
        default="true", metadata={"says": "Those there are, those that have cleared, or both"}
    )
    severity: Literal["notice", "warn", "fail"] | None = field(
        default=None, metadata={"says": "Only those of this severity"}
    )
    limit: Annotated[int, Range(1, 1000)] = field(
        default=200, metadata={"says": "Most problems in one answer"}
    )
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class ProblemQuery(BoardProblemQuery):
    """Which problems."""

    board: str = field(default="", metadata={"says": "Only those of this board (id or name)"})


@dataclass(frozen=True, slots=True)
class ProblemPage:
    """The newest problems first; ``next`` asks for older ones and is missing on the last page."""

    problems: tuple[KnownProblem, ...]
    next: str | None = None


def table_of(page: ProblemPage) -> Table:
    """Problems as CSV."""
    return Table(
        ("since", "cleared", "board", "source", "severity", "code", "sentence", "hint", "count"),
        (
            (
                table.time(each.since_ms),
                table.time(each.cleared_ms),
                each.board,
                each.source,
                each.severity,
                each.code,
                table.text(each.sentence),
                table.text(each.hint),
                each.count,
            )
            for each in page.problems
        ),
    )


OPEN = {"true": True, "false": False, "all": None}


async def list_problems(call: Call, query: ProblemQuery) -> ProblemPage:
    """List problems of all boards and of the hub."""
    return await _page(call, query.board or None, query)


async def list_board_problems(call: Call, board: str, query: BoardProblemQuery) -> ProblemPage:
    """List problems of one board."""
    return await _page(call, board, query)


async def _page(call: Call, board: str | None, query: BoardProblemQuery) -> ProblemPage:
    if board is not None:
        async with call.parts.store.read() as tx:
            board = (await boards.get_board(tx, board)).id
    rows = await find_problems(
        call.parts,
        board,
        open=OPEN[query.open],
        severity=query.severity,
        limit=query.limit + 1,
        before=id_after(query.after),
    )
    unsaved = [row for row in rows if not row.id]
    stored = rows[len(unsaved) :]
    page = stored[: query.limit]
    found = tuple(
        KnownProblem(*(getattr(row, name) for name in KnownProblem.__slots__)) for row in unsaved + page
    )
    return ProblemPage(found, str(page[-1].id) if len(stored) > len(page) else None)


async def find_problems(
    parts: Parts,
    board: str | None = None,
    *,
    open: bool | None = True,
    severity: Severity | None = None,
    limit: int = 200,
    before: int | None = None,
) -> list[ProblemRow]:
    """The newest problems first, of one board (an id) or of all and the hub.

    Those that the store cannot take now come before all others, and count for no page.
    """
    async with parts.store.read() as tx:
        rows = await store.list_problems(
            tx, board=board, open=open, severity=severity, limit=limit, before=before
        )
    if before is not None or open is False:
        return rows
    unsaved = [
        row
        for row in parts.alerts.unsaved()
        if board in (None, row.board) and severity in (None, row.severity)
    ]
    return unsaved + rows
