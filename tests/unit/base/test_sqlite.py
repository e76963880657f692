"""One file, one writer thread, transactions that hold."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.base.sqlite import Connection, Database
from agent.wire.errors import Busy, ConfigError, Corrupt, Refused
from support.virtual import virtual

SCHEMA = "CREATE TABLE note (text TEXT NOT NULL) STRICT;"


def notes(tx: Connection) -> list[str]:
    return [text for (text,) in tx.execute("SELECT text FROM note ORDER BY rowid")]


async def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('kept')"))
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        assert await db.run(notes) == ["kept"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.db"]


async def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    def half(tx: Connection) -> None:
        tx.execute("INSERT INTO note VALUES ('lost')")
        raise ZeroDivisionError

    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        with pytest.raises(ZeroDivisionError):
            await db.run(half)
        assert await db.run(notes) == []


async def test_transactions_run_one_after_the_other_in_one_thread(tmp_path: Path) -> None:
    threads = set()

    def count(tx: Connection) -> None:
        threads.add(threading.get_ident())
        (found,) = tx.execute("SELECT count(*) FROM note").fetchone()
        tx.execute("INSERT INTO note VALUES (?)", (str(found),))

    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(db.run(count), name=f"count {number}")
        assert await db.run(notes) == [str(number) for number in range(50)]
    assert len(threads) == 1


async def test_a_cursor_ends_in_the_thread_that_made_it(tmp_path: Path) -> None:
    sql = "INSERT INTO note VALUES (?)"
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        cursor = await db.run(lambda tx: tx.executemany(sql, [("one",), ("two",)]))
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            cursor.fetchall()
        assert await db.run(notes) == ["one", "two"]


async def test_it_is_set_up_for_a_card(tmp_path: Path) -> None:
    names = (
        "locking_mode",
        "page_size",
        "journal_mode",
        "synchronous",
        "wal_autocheckpoint",
        "journal_size_limit",
        "foreign_keys",
    )

    def settings(tx: Connection) -> dict[str, object]:
        return {name: tx.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        found = await db.run(settings)
    assert found == {
        "locking_mode": "exclusive",
        "page_size": 2048,
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "wal_autocheckpoint": 512,
        "journal_size_limit": 1024 * 1024,
        "foreign_keys": 1,
    }


async def test_the_log_does_not_grow(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1, synchronous="NORMAL") as db:
        for _ in range(50):
            await db.run(
                lambda tx: tx.executemany("INSERT INTO note VALUES (?)", [("x" * 1000,) for _ in range(200)])
            )
        assert (tmp_path / "notes.db-wal").stat().st_size < 3 * 1024 * 1024


# --- versions ------------------------------------------------------------------------------------


async def test_a_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=3):
        pass
    with pytest.raises(ConfigError, match="has version 3, this program knows versions up to 2"):
        async with Database.open(tmp_path / "notes.db", SCHEMA, version=2):
            pass


async def test_an_older_file_is_upgraded_step_by_step(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('old')"))
    upgrades = {
        1: "ALTER TABLE note ADD COLUMN at INTEGER NOT NULL DEFAULT 0;",
        2: "UPDATE note SET at = 7;",
    }
    async with Database.open(tmp_path / "notes.db", "unused", version=3, upgrades=upgrades) as db:
        assert await db.run(lambda tx: tx.execute("SELECT text, at FROM note").fetchall()) == [("old", 7)]


async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1):
        pass
    broken = {1: "CREATE TABLE other (x INTEGER); INSERT INTO nowhere VALUES (1);"}
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        async with Database.open(tmp_path / "notes.db", SCHEMA, version=2, upgrades=broken):
            pass
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        tables = await db.run(lambda tx: tx.execute("SELECT name FROM sqlite_schema").fetchall())
    assert tables == [("note",)]


async def test_the_index_of_the_log_is_never_written(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('x')"))
        await db.probe()
        assert {file.name for file in tmp_path.iterdir()} == {"notes.db", "notes.db-wal"}


# --- one owner, or readers -------------------------------------------------------------------------


async def test_readers_read_what_nobody_has_open(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Database.open(path, SCHEMA, version=1) as owner:
        await owner.run(lambda tx: tx.execute("INSERT INTO note VALUES ('seen')"))
    async with (
        Database.open(path, SCHEMA, version=1, read_only=True) as reader,
        Database.open(path, SCHEMA, version=1, read_only=True) as other,
    ):
        assert await reader.run(notes) == await other.run(notes) == ["seen"]
        with pytest.raises(ConfigError, match="readonly"):
            await reader.run(lambda tx: tx.execute("INSERT INTO note VALUES ('no')"))


@pytest.mark.slow  # a second owner waits for five seconds
@pytest.mark.parametrize("read_only", [True, False])
async def test_a_file_that_is_open_is_busy(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.db"
    async with Database.open(path, SCHEMA, version=1) as owner:
        with pytest.raises(Busy, match="locked by another process"):
            async with Database.open(path, SCHEMA, version=1, read_only=read_only):
                pass
        await owner.run(lambda tx: tx.execute("INSERT INTO note VALUES ('undisturbed')"))
        assert await owner.run(notes) == ["undisturbed"]


async def test_the_owner_waits_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Database.open(path, SCHEMA, version=1) as db:
        await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('kept')"))

    async def own() -> list[str]:
        async with Database.open(path, SCHEMA, version=1) as db:
            return await db.run(notes)

    async with Database.open(path, SCHEMA, version=1, read_only=True) as reader:
        await reader.run(notes)
        owning = asyncio.create_task(own(), name="own")
        await asyncio.sleep(0.1)
        assert not owning.done()
    assert await owning == ["kept"]


async def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        async with Database.open(tmp_path / "missing.db", SCHEMA, version=1, read_only=True):
            pass
    assert list(tmp_path.iterdir()) == []


# --- bad days --------------------------------------------------------------------------------------


async def test_what_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_bytes(b"certainly not SQLite" * 100)
    with pytest.raises(Corrupt, match="not a sound SQLite file"):
        async with Database.open(tmp_path / "notes.db", SCHEMA, version=1):
            pass


async def test_a_damaged_page_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Database.open(path, SCHEMA, version=1) as db:
        await db.run(
            lambda tx: tx.executemany("INSERT INTO note VALUES (?)", [("x" * 1000,) for _ in range(50)])
        )
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    async with Database.open(path, SCHEMA, version=1) as db:
        with pytest.raises(Corrupt):
            await db.run(notes)


async def test_a_missing_directory_is_a_mistake_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        async with Database.open(tmp_path / "nowhere" / "notes.db", SCHEMA, version=1):
            pass


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    """A limit on the number of pages is what SQLite takes for a full disk."""

    async def main() -> None:
        async with Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
            await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('before')"))
            await db.run(lambda tx: tx.execute("PRAGMA max_page_count = 4"))
            with pytest.raises(Refused) as caught:
                await db.run(lambda tx: tx.executemany("INSERT INTO note VALUES (?)", [("x" * 1000,)] * 100))
            assert caught.value.code == "disk-full"
            assert await db.run(notes) == ["before"]
            await db.run(lambda tx: tx.execute("PRAGMA max_page_count = 100000"))
            await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('after')"))

    asyncio.run(main())


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom agent.base.sqlite import Database\n"
        "async def main():\n"
        f"    async with Database.open(Path(sys.argv[1]), {SCHEMA!r}, version=1) as db:\n"
        "        await db.run(lambda tx: tx.execute(\"INSERT INTO note VALUES ('committed')\"))\n"
        "        def die(tx):\n"
        "            tx.execute(\"INSERT INTO note VALUES ('torn')\")\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        await db.run(die)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "notes.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.with_name("notes.db-wal").stat().st_size > 0

    async def read(read_only: bool) -> list[str]:
        async with Database.open(path, SCHEMA, version=1, read_only=read_only) as db:
            return await db.run(notes)

    # A reader leaves an index beside the log, which the owner must not believe.
    assert asyncio.run(read(read_only=True)) == ["committed"]
    assert asyncio.run(read(read_only=False)) == ["committed"]
    assert asyncio.run(read(read_only=True)) == ["committed"]


async def test_closing_waits_for_what_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    began = threading.Event()

    def slow(tx: Connection) -> None:
        began.set()
        threading.Event().wait(0.05)
        tx.execute("INSERT INTO note VALUES ('finished')")

    async with Database.open(path, SCHEMA, version=1) as db, asyncio.TaskGroup() as group:
        task = group.create_task(db.run(slow), name="slow")
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
    async with Database.open(path, SCHEMA, version=1) as db:
        assert await db.run(notes) == ["finished"]


@virtual
async def test_it_works_in_virtual_time_and_takes_none(tmp_path: Path) -> None:
    async with asyncio.timeout(1), Database.open(tmp_path / "notes.db", SCHEMA, version=1) as db:
        await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('x')"))
        await db.probe()
        assert await db.run(notes) == ["x"]
    assert asyncio.get_running_loop().time() == 0
