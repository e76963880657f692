"""How many apps each of some boards has, and how many of them are as they are to be.

Owns one question about several tables, for the table of the fleet, which asks it for a hundred boards at a
time; so reports are looked into as they are stored.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, select

from hub.store.database import Tx
from hub.store.schema import app_reports, placements, results

GOOD = ("running", "stopped")
BAD = ("degraded", "failed")


@dataclass(frozen=True, slots=True)
class AppCount:
    """Apps of a board: those that do what was asked of them, those that cannot, and all."""

    good: int
    bad: int
    all: int


async def count_apps(tx: Tx, boards: Collection[str]) -> dict[str, AppCount]:
    """The counts by board; boards without apps are left out."""
    asked = (
        select(placements.c.board, placements.c.app, results.c.outcome)
        .join(
            results,
            and_(
                placements.c.app == results.c.app,
                placements.c.board == results.c.board,
                placements.c.revision == results.c.revision,
            ),
        )
        .where(placements.c.board.in_(boards), placements.c.leaving == 0)
    )
    outcomes = (await tx.execute(asked)).all()
    told = select(app_reports.c.board, app_reports.c.report).where(
        app_reports.c.board.in_({row.board for row in outcomes})
    )
    bad = {
        (row.board, app["name"])
        for row in await tx.execute(told)
        for app in row.report.get("apps", ())
        if app["state"] in BAD
    }
    counts: dict[str, AppCount] = {}
    for board, app, outcome in outcomes:
        before = counts.get(board, AppCount(0, 0, 0))
        is_bad = outcome in ("failed", "refused") or (outcome in GOOD and (board, app) in bad)
        is_good = outcome in GOOD and not is_bad
        counts[board] = AppCount(before.good + is_good, before.bad + is_bad, before.all + 1)
    return counts
