"""One SQLite file with one writer thread: every hand-off that may not be lost is a row in here.

Called by whatever owns a file (the agent's outbox and ledger).  It knows no table: callers
bring their schema, and functions that run inside one transaction each.  It never retries and
never repairs.

What a power cut leaves: with WAL and ``synchronous=FULL`` a transaction is on the disk when
`Database.run` returns, because each commit ends with an fsync of the log (sqlite.org/wal.html,
"Performance considerations"); a commit that was being written is dropped as a whole, by its
checksums, at the next open.  ``NORMAL`` never corrupts either, but may forget the last commits.
Both trust the card to have written what it says it has written.

SD cards wear by blocks written.  A file has one owner, which locks it for as long as it is open:
SQLite then keeps the index of the log in memory, and not in a file that the kernel writes to the
card after each commit.  Whoever wants to look meanwhile hears Busy.  Pages of 2 KiB let most
commits touch one or two blocks of the card.  The log is folded back every 512 pages (1 MiB) and
never stays larger than that; small boards have little memory, so the page cache is 512 KiB.

>>> import asyncio, tempfile
>>> async def example(path):
...     async with Database.open(path, "CREATE TABLE note (text TEXT) STRICT;", version=1) as db:
...         await db.run(lambda tx: tx.execute("INSERT INTO note VALUES ('hello')"))
...         return await db.run(lambda tx: tx.execute("SELECT text FROM note").fetchall())
>>> with tempfile.TemporaryDirectory() as directory:
...     asyncio.run(example(Path(directory) / "notes.db"))
[('hello',)]
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, Refused

T = TypeVar("T")

Connection = sqlite3.Connection
"""What a function that `Database.run` runs is given."""
Synchronous = Literal["FULL", "NORMAL"]

WAL_PAGES = 512
PAGE_BYTES = 2048
CACHE_KIB = 512
LEAST_ROOM = 64 * 1024
"""Free bytes below which a failed write means a full disk: to look at a log takes 32 KiB at once."""
BUSY_MS = 5000
"""How long the owner waits for whoever looks at the file."""
LOOK_MS = 500
"""How long a reader waits for the file, which an owner keeps for as long as it runs."""
SHARED = "mode=ro"
"""How several processes can look at a file at once."""


class Database:
    """An open file.  Made by `Database.open`; its connection lives and dies in its own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{path.stem}")

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        schema: str,
        *,
        version: int,
        upgrades: Mapping[int, str] | None = None,
        synchronous: Synchronous = "FULL",
        read_only: bool = False,
    ) -> AsyncIterator[Database]:
        """Open ``path`` and close it on leaving; an empty or missing file gets ``schema``.

        ``version`` is kept in the file (``user_version``); ``upgrades[n]`` is the script that
        takes a file from version n to n + 1.  ``read_only`` never creates or changes a file, and
        is Busy while an owner has it open.
        Raises ConfigError (path unusable, file newer than this program), Corrupt, Busy, and
        Refused (code "disk-full").
        """
        database = cls(path)
        try:
            await database._call(database._connect, synchronous, read_only)
            await database._work(_prepare, path, schema, version, upgrades or {}, read_only)
            yield database
        finally:
            await database._close()

    async def run(self, work: Callable[[Connection], T], *, committed: Callable[[], None] | None = None) -> T:
        """Run ``work(connection)`` in one transaction: committed when it returns, else rolled back.

        ``committed`` is called on the same thread once that has happened, and before any other
        work: what is kept in memory beside the file can be made to follow it there.  A caller
        that is cancelled meanwhile stops neither.  Raises what ``work`` raises, with SQLite's own
        failures translated as in `open`.
        """
        return await self._work(_transact, work, committed)

    async def probe(self) -> None:
        """Prove that the thread and the write lock are alive, without writing to the disk."""
        await self._work(_probe)

    async def _work(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._call(lambda: function(self._connection, *arguments))

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        def call() -> T:
            with _translate(self.path):
                return function(*arguments)

        # The shield: work that waits for its turn is not taken out of the queue by a cancelled caller,
        # who could not know whether it was.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, call))

    def _connect(self, synchronous: Synchronous, read_only: bool) -> None:
        mode = _mode(self.path) if read_only else "mode=rwc"
        # isolation_level=None: transactions are begun and ended here, not guessed by the module.
        self._connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}",
            uri=True,
            isolation_level=None,
            timeout=(LOOK_MS if read_only else BUSY_MS) / 1000,
        )
        if mode != SHARED:
            # Before the file is looked at for the first time, or the log's index is a file
            # (sqlite.org/wal.html, "Use of WAL Without Shared-Memory").
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _configure(self._connection, synchronous, read_only)

    async def _close(self) -> None:
        # The thread works in order: what was begun is ended before the connection closes.  The
        # shield keeps a cancelled caller from taking the closing out of the queue.
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _mode(path: Path) -> str:
    """How SQLite is to open a file that is only read (sqlite.org/uri.html)."""
    hindered = _hindered(path)
    if hindered is None or hindered.code != "disk-read-only":
        return SHARED
    # There can be no index beside the log, and no lock is needed: nobody can write.
    return "mode=ro&" + ("vfs=unix-none" if path.with_name(f"{path.name}-wal").exists() else "immutable=1")


def _configure(connection: Connection, synchronous: Synchronous, read_only: bool) -> None:
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        return
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # has an effect on new files only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * PAGE_BYTES}")


def _prepare(
    connection: Connection,
    path: Path,
    schema: str,
    version: int,
    upgrades: Mapping[int, str],
    read_only: bool,
) -> None:
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == version:
        return
    if found > version:
        raise ConfigError(
            f"{path} has version {found}, this program knows versions up to {version}",
            hint="it was written by a newer program: install that one again, or move the file away",
        )
    if read_only and found == 0:
        raise ConfigError(f"{path} is empty", code="empty", hint="the program that owns it must start once")
    if read_only:
        raise ConfigError(
            f"{path} has version {found}, not {version}", hint="the program that owns it must start once"
        )
    if found == 0:
        _script(connection, schema, version)
        return
    for step in range(found, version):
        _script(connection, upgrades[step], step + 1)


def _script(connection: Connection, script: str, version: int) -> None:
    # executescript commits what is open before it starts, so the script brings its own transaction.
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {version}; COMMIT;")
    finally:
        _roll_back(connection)


def _transact(
    connection: Connection,
    work: Callable[[Connection], T],
    committed: Callable[[], None] | None,
) -> T:
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        if isinstance(result, sqlite3.Cursor):
            # Left to the caller's thread it would reset a statement that this one may be using again.
            result.close()
        connection.execute("COMMIT")
        if committed is not None:
            committed()
        return result
    finally:
        _roll_back(connection)


def _probe(connection: Connection) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    finally:
        _roll_back(connection)


def _roll_back(connection: Connection) -> None:
    # After some failures, a full disk among them, SQLite has rolled back by itself.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def _translate(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        understood = _understood(path, error)
        if understood is None:
            raise
        raise understood from error


def _understood(path: Path, error: sqlite3.DatabaseError) -> LichenError | None:
    """What SQLite's result code means here; None for mistakes in the SQL (sqlite.org/rescode.html)."""
    name = getattr(error, "sqlite_errorname", "") or ""
    kind = name.removeprefix("SQLITE_").split("_")[0]
    if kind in ("IOERR", "CANTOPEN", "READONLY") and (refused := _hindered(path)) is not None:
        return refused
    match kind:
        case "FULL":
            return _full(path)
        case "CORRUPT" | "NOTADB":
            return Corrupt(
                f"{path} is not a sound SQLite file: {error}",
                hint="keep a copy for study, then move it away: a new one is made at the next start",
            )
        case "IOERR":
            return Corrupt(
                f"{path} cannot be read or written: {error} ({name})",
                code="disk-failing",
                hint="the kernel's log says more; a worn SD card is the usual reason",
            )
        case "BUSY" | "LOCKED":
            return Busy(
                f"{path} is locked by another process",
                hint="a program that runs keeps it to itself: ask that one, or stop it",
            )
        case "CANTOPEN" | "READONLY" | "PERM" | "AUTH":
            return ConfigError(
                f"{path} cannot be opened: {error}",
                hint="check that the directory exists and belongs to the user who runs this",
            )
    return None


def _hindered(path: Path) -> Refused | None:
    """What keeps the file system from being written, if anything: SQLite often cannot tell."""
    try:
        # A file without a name.  statvfs(3) would say that a file system which failed is writable;
        # and to open and close our own file would drop SQLite's locks on it.
        os.close(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        disk = os.statvfs(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _full(path)
        if error.errno != errno.EROFS:
            return None
        return Refused(
            f"{path} cannot be written: its file system is read-only",
            code="disk-read-only",
            hint="the kernel does that to a card that fails: its log says more; a new card is the usual cure",
        )
    return _full(path) if disk.f_bavail * disk.f_frsize < LEAST_ROOM else None


def _full(path: Path) -> Refused:
    return Refused(
        f"{path} cannot grow: the disk is full",
        code="disk-full",
        hint=f"free some space on the file system of {path.parent}",
    )
