"""Whoever is cancelled while his work waits for the writer thread may rely on it all the same."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from agent.base.sqlite import Connection, Database


async def test_work_that_waits_for_its_turn_is_done_although_the_caller_is_gone(tmp_path: Path) -> None:
    gate = threading.Event()

    def hold(_: Connection) -> None:
        gate.wait(5)

    def write(tx: Connection) -> None:
        tx.execute("INSERT INTO note VALUES ('kept')")

    schema = "CREATE TABLE note (text TEXT) STRICT;"
    async with Database.open(tmp_path / "notes.db", schema, version=1) as database:
        async with asyncio.TaskGroup() as group:
            group.create_task(database.run(hold), name="hold")
            waiting = group.create_task(database.run(write), name="write")
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            gate.set()
        kept = await database.run(lambda tx: tx.execute("SELECT text FROM note").fetchall())
    assert kept == [("kept",)]
