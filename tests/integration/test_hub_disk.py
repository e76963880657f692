"""The hub's disk is full, for real: a small file system of its own, and real processes.

No crash, a problem that is told though it cannot be stored, and recovery by itself, also of a hub
that is started while there is no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lab import Board, Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FAST = {
    "report": {"every_s": 0.2, "commit_every_s": 0.1},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 1, "resend_s": 2},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1}
    ],
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where the hub is going to live."""
    path = tmp_path / "hub"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
async def lab(tmp_path: Path, small_disk: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        assert lab.hub_dir == small_disk
        await lab.start_hub()
        yield lab


def fill(disk: Path) -> Path:
    """Leave not a byte."""
    path = disk / "fill"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


async def codes(lab: Lab, **params: str) -> list[tuple[str, int]]:
    """Code and id of each problem of the hub itself; the id is 0 while it is in memory only."""
    found: list[dict[str, Any]] = (await lab.api("GET", "/problems", params=params))["problems"]
    return [(each["code"], each["id"]) for each in found if each["board"] is None]


async def has(lab: Lab, *expected: str) -> bool:
    return {code for code, _ in await codes(lab)} == set(expected)


def check_all_there(board: Board) -> None:
    """What the hub holds of each stream is without a hole, and no gap was recorded."""
    database = board.lab.hub_dir / "hub.db"
    assert board.lab.ask(database, "SELECT * FROM gaps") == []
    for stream, count, last in board.lab.ask(
        database, "SELECT stream, sum(count - skip), max(seq0 + count - 1) FROM batches GROUP BY stream"
    ):
        assert count == last, f"{stream}: {count} of {last}"


async def test_a_full_disk_is_told_and_recovered_from(lab: Lab, small_disk: Path) -> None:
    board = await lab.add_board("pump", **FAST)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 10, "readings are stored")

    filled = fill(small_disk)
    await lab.until(lambda: board.held() > 30, "the board keeps what the hub cannot take")
    assert ("hub-disk-full", 0) in await codes(lab)
    await lab.api("GET", f"/boards/{board.id}")
    async with asyncio.timeout(5):
        assert await lab.healthy()

    # A restart finds the disk as it is, and is none: it runs, and says the same.
    await lab.hub.kill()
    await lab.start_hub()
    await lab.until(lambda: has(lab, "hub-disk-full", "hub-disk-low"), "it is told again")
    assert lab.hub.running
    stored = board.stored()

    filled.unlink()
    await lab.until(lambda: board.stored() > stored + 30 and board.held() < 20, "the backlog arrives")
    await lab.until(lambda: has(lab), "nothing is wrong any more", within_s=70)
    past = await codes(lab, open="false")
    assert "hub-disk-full" in dict(past)
    assert all(id > 0 for _, id in past)
    await lab.until(lambda: is_online(lab, board), "its birth was not lost")
    check_all_there(board)


async def is_online(lab: Lab, board: Board) -> bool:
    shown = await lab.api("GET", f"/boards/{board.id}")
    return bool(shown["presence"] == "online")
