"""Where apps are, and what became of each change there.

Owns the tables `placements` (what orders are made of) and `results` (what boards said of it).
`hub.apps.deploy` places, `hub.apps.orders` composes, `hub.apps.reports` settles.  Boards that are put out
or replaced change it, too: `drop_board` and `move_board`, each in the transaction that does so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, delete, insert, select, update

from hub.store.database import Tx, upsert
from hub.store.orders import delete_order, mark_stale
from hub.store.schema import app_reports, apps, placements, results


@dataclass(frozen=True, slots=True)
class Placement:
    """An app on a board.  ``manifest``: an `agent.wire.order.App` as plain data, without what is sealed, or
    None when the order has it no more; ``secrets``: what belongs into it, sealed by the hub's vault;
    ``leaving``: the row goes when the board says that the app is gone."""

    app: str
    board: str
    revision: int
    manifest: dict[str, Any] | None
    secrets: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a revision on a board; ``outcome`` is empty until the board has said it.

    ``generation`` is that of the order which had it first, ``begun_ms`` when the board began to work
    on it, ``running`` the revision that ran when it was settled.
    """

    app: str
    revision: int
    board: str
    generation: int = 0
    begun_ms: int | None = None
    settled_ms: int | None = None
    outcome: str = ""
    reason: str = ""
    hint: str = ""
    running: int = 0


@dataclass(frozen=True, slots=True)
class OpenResult:
    """The result of a placement that may still change; ``is_ordered``: the order names the app."""

    result: Result
    leaving: bool
    is_ordered: bool


async def placements_of(
    tx: Tx, *, names: Collection[str] | None = None, board: str | None = None
) -> list[Placement]:
    """The placements of the apps of these names, or on a board, or all."""
    asked = select(placements).order_by(placements.c.app, placements.c.board)
    if names is not None:
        asked = asked.where(placements.c.app.in_(names))
    if board is not None:
        asked = asked.where(placements.c.board == board)
    return [_placement(row) for row in await tx.execute(asked)]


async def boards_with(tx: Tx, is_meant: Callable[[str], bool]) -> list[str]:
    """The boards whose orders name an image that is meant."""
    asked = select(placements.c.board, placements.c.manifest).where(placements.c.manifest.is_not(None))
    found = {
        row.board
        for row in await tx.execute(asked)
        if any(is_meant(service["image"]) for service in row.manifest.get("services", ()))
    }
    return sorted(found)


async def place(tx: Tx, rows: Sequence[Placement]) -> None:
    """Put apps where they are to be, or let them leave; each is asked for anew, so its result is open."""
    for row in rows:
        values = {name: getattr(row, name) for name in Placement.__slots__}
        values["leaving"] = int(row.leaving)
        changed = {name: value for name, value in values.items() if name not in ("app", "board")}
        asked = upsert(tx, placements).values(values)
        await tx.execute(asked.on_conflict_do_update(index_elements=["app", "board"], set_=changed))
        await tx.execute(insert(results).values(app=row.app, revision=row.revision, board=row.board, **_OPEN))


async def remove_placement(tx: Tx, app: str, board: str) -> None:
    """An app is gone from a board."""
    await tx.execute(delete(placements).where(placements.c.app == app, placements.c.board == board))


async def note_generation(tx: Tx, board: str, generation: int) -> None:
    """Say of every result that no order had so far that this one has it."""
    asked = update(results).where(results.c.board == board, results.c.generation == 0)
    await tx.execute(asked.values(generation=generation))


async def results_of(tx: Tx, app: str, revisions: Collection[int]) -> list[Result]:
    """What became of these revisions of an app, on every board."""
    asked = select(results).where(results.c.app == app, results.c.revision.in_(revisions))
    return [Result(*row) for row in await tx.execute(asked.order_by(results.c.revision, results.c.board))]


async def newest_results(
    tx: Tx, *, board: str | None = None, names: Collection[str] | None = None
) -> list[Result]:
    """Of each placement what became of the revision that it asks for."""
    asked = select(results).join(placements, _OF_PLACEMENT).order_by(results.c.app, results.c.board)
    if board is not None:
        asked = asked.where(results.c.board == board)
    if names is not None:
        asked = asked.where(results.c.app.in_(names))
    return [Result(*row) for row in await tx.execute(asked)]


async def gone_results(tx: Tx, names: Collection[str]) -> list[Result]:
    """Of these apps the boards that they have left by their newest revision."""
    newest = (apps.c.name == results.c.app) & (apps.c.revision == results.c.revision)
    asked = select(results).join(apps, newest)
    asked = asked.where(results.c.app.in_(names), results.c.outcome == "gone")
    return [Result(*row) for row in await tx.execute(asked)]


async def open_results(tx: Tx, boards: Collection[str]) -> list[OpenResult]:
    """Of what is placed on these boards the results that have no good end yet."""
    ordered = placements.c.manifest.is_not(None).label("ordered")
    asked = (
        select(*results.c, placements.c.leaving, ordered)
        .join(placements, _OF_PLACEMENT)
        .where(results.c.board.in_(boards), results.c.outcome.in_(("", "failed", "refused")))
        .order_by(results.c.app, results.c.board)
    )
    width = len(Result.__slots__)
    return [
        OpenResult(Result(*row[:width]), bool(row.leaving), bool(row.ordered))
        for row in await tx.execute(asked)
    ]


async def begin_result(tx: Tx, row: Result, at_ms: int) -> None:
    """A board has begun to work on it."""
    await tx.execute(update(results).where(_key(row)).values(begun_ms=at_ms))


async def settle_result(
    tx: Tx, row: Result, at_ms: int, *, outcome: str, reason: str = "", hint: str = "", running: int = 0
) -> None:
    """A board has said how it ended."""
    said = {"settled_ms": at_ms, "outcome": outcome, "reason": reason, "hint": hint, "running": running}
    await tx.execute(update(results).where(_key(row)).values(said))


async def supersede(tx: Tx, app: str, revision: int, at_ms: int) -> None:
    """Nobody waits any more for what became of the revisions before this one."""
    older = and_(results.c.app == app, results.c.revision < revision, results.c.settled_ms.is_(None))
    said = {"settled_ms": at_ms, "outcome": "dropped", "reason": f"revision {revision} took its place"}
    await tx.execute(update(results).where(older).values(said))


# --- boards that go ------------------------------------------------------------------------------


async def drop_board(tx: Tx, board: str, at_ms: int) -> None:
    """A board was put out: nothing is placed there any more, and it has no order."""
    still = and_(results.c.board == board, results.c.settled_ms.is_(None))
    said = {"settled_ms": at_ms, "outcome": "dropped", "reason": "the board was put out of the fleet"}
    await tx.execute(update(results).where(still).values(said))
    await tx.execute(delete(placements).where(placements.c.board == board))
    await tx.execute(delete(app_reports).where(app_reports.c.board == board))
    await delete_order(tx, board)


async def move_board(tx: Tx, old: str, new: str, at_ms: int) -> list[str]:
    """A board takes the place of another, with its apps; returns their names.

    Its order is made soon, with secrets that are sealed for it (`hub.apps.orders`).
    """
    moved = [row for row in await placements_of(tx, board=old) if not row.leaving]
    await drop_board(tx, old, at_ms)
    await place(tx, [Placement(row.app, new, row.revision, row.manifest, row.secrets) for row in moved])
    if moved:
        await mark_stale(tx, [new])
    return [row.app for row in moved]


# ---------------------------------------------------------------------------------------------------

_OF_PLACEMENT = and_(
    placements.c.app == results.c.app,
    placements.c.board == results.c.board,
    placements.c.revision == results.c.revision,
)

_OPEN = {"generation": 0, "outcome": "", "reason": "", "hint": "", "running": 0}


def _key(row: Result) -> Any:
    return and_(results.c.app == row.app, results.c.revision == row.revision, results.c.board == row.board)


def _placement(row: Row[Any]) -> Placement:
    fields = dict(row._mapping)
    fields["leaving"] = bool(fields["leaving"])
    return Placement(**fields)
