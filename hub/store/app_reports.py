"""What boards last said of their apps.

Owns the table `app_reports`: one row for each board, as `up/apps` was decoded.  `hub.apps.reports` writes
it inside the transaction of ingest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select

from agent.wire.apps import Apps
from agent.wire.decode import decode, plain
from hub.store.database import Tx, upsert
from hub.store.schema import app_reports


@dataclass(frozen=True, slots=True)
class AppReport:
    """What a board said, and when by the hub's clock."""

    board: str
    at_ms: int
    apps: Apps


async def save_reports(tx: Tx, said: Mapping[str, Apps], heard_ms: Mapping[str, int]) -> None:
    """Keep what boards say, and when they were heard, in place of what they said before."""
    for board, report in said.items():
        values = {"at_ms": heard_ms[board], "report": plain(report)}
        asked = upsert(tx, app_reports).values(board=board, **values)
        await tx.execute(asked.on_conflict_do_update(index_elements=["board"], set_=values))


async def find_reports(tx: Tx, boards: Collection[str]) -> dict[str, AppReport]:
    """What these boards last said, by board; those that never did are left out."""
    asked = select(app_reports).where(app_reports.c.board.in_(boards))
    rows = await tx.execute(asked)
    return {board: AppReport(board, at_ms, decode(Apps, report)) for board, at_ms, report in rows}
