"""How long a board that was away for ages takes to bring its usage log to its hub.

A real hub and a real agent, which has ``RECORDS`` of them that the hub lacks: years of three apps.  From the
first package on; that the agent reads all of it at its start is not counted.
"""

from __future__ import annotations

import time
from pathlib import Path

from agent.clock import Clock
from agent.identity import open_identity
from agent.usage.ledger import Ledger
from bench.budget import Row
from bench.ledger import APPS, BATCH, Made
from support.lab import Board, Lab

RECORDS = 500_000
LIMITS = "\n[limits]\nusage_bytes_per_day = 1073741824\n"
"""So much at once is more than a board may write in the field, even in the 60 days that may come at once."""


async def measure(folder: Path) -> list[Row]:
    """The one row about the sync; takes some minutes."""
    async with Lab(folder) as lab:
        with (lab.hub_dir / "hub.toml").open("a") as config:
            config.write(LIMITS)
        await lab.start_hub()
        board = await lab.add_board("pump", sensors=[])
        await board.start()
        await lab.until(lambda: held(lab) > 0, "the board has joined, and its log is at the hub")
        await board.stop()
        size = await _write(board)
        await board.start()
        await lab.until(lambda: held(lab) > 1, "it begins", within_s=300, every_s=0.01)
        began_s, begun = time.monotonic(), held(lab)
        await lab.until(lambda: cosigned(lab) >= size, "all is cosigned", within_s=900, every_s=0.1)
        took_s = (time.monotonic() - began_s) * RECORDS / (size - begun)
    note = (
        "a board that has them all, over HTTPS; verified, stored, in columns, in tiles, cosigned;"
        f" {RECORDS / took_s:,.0f} a second; board and hub on this machine"
    )
    return [Row("usage: sync of 500,000 records", took_s, "s", 60, 30, note=note)]


async def _write(board: Board) -> int:
    """Let the board, which is off, have its records; the size of its log."""
    made, key = Made(), open_identity(board.state).log_key
    async with Ledger.open(board.state / "usage", log_key=key, clock=Clock.system()) as ledger:
        for _ in range(RECORDS // BATCH):
            await ledger.append([made.container(APPS[at % len(APPS)]) for at in range(BATCH)])
        return ledger.size


def held(lab: Lab) -> int:
    """How many entries the hub has."""
    rows = lab.ask(lab.hub_dir / "hub.db", "SELECT sum(size) FROM usage_logs")
    return int(rows[0][0] or 0) if rows else 0


def cosigned(lab: Lab) -> int:
    """The size of the largest checkpoint that it has cosigned."""
    sql = "SELECT max(size) FROM usage_checkpoints WHERE cosigned_ms IS NOT NULL"
    rows = lab.ask(lab.hub_dir / "hub.db", sql)
    return int(rows[0][0] or 0) if rows else 0
