"""The hub's database: how it is opened, read and written.

Owns the connections, the transactions and the version of the schema.  Everything in the hub
that keeps something asks a `Store` for a transaction and passes it to the functions beside
this module, which hold the SQL.  It knows no tables.

    async with Store.open(directory / "hub.db") as store:
        async with store.write() as tx:
            await boards.rename_board(tx, board, "greenhouse")
        async with store.read() as tx:
            rows = await boards.list_boards(tx)

One writer at a time, in the order of asking, and each commit is on the disk before it
returns (synchronous=FULL): an acknowledgement that a power cut can take back would make the
board delete what nobody else has.  Readers never wait for the writer (write-ahead log).  A
reader is no transaction: each statement sees the newest state, so that a slow browser cannot
keep the log from being folded into the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, Table, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, Refused

REVISION = "0007"
"""The newest migration.  Here so that Alembic (10 MB, 100 ms) is imported only to migrate."""

READERS = 4
BUSY_TIMEOUT_S = 10
PAIRS = 10_000
"""Pairs in one statement: SQLite takes 32,766 parameters (SQLITE_MAX_VARIABLE_NUMBER)."""
WAL_BYTES = 64 * 1024 * 1024
"""What is kept of the write-ahead log after a long transaction has let it grow."""

Tx = AsyncConnection
"""A transaction, by the name that those outside of the store know it by."""


class Store:
    """An open database.  Made by `Store.open`; safe to share between the tasks of one loop."""

    def __init__(self, path: Path, writer: AsyncEngine, readers: AsyncEngine) -> None:
        self.path = path
        self._writer = writer
        self._readers = readers
        self._writing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Store]:
        """Open or create the SQLite file at ``path`` and bring its tables to this version.

        Raises ConfigError when the file cannot be opened or was written by a newer version,
        Corrupt when it is no database.
        """
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent}: no such directory", hint="lichen-hub init makes one")
        writer = _engine(path, size=1, begin="BEGIN IMMEDIATE", pragmas=_WRITER)
        readers = _engine(path, size=READERS, begin="", pragmas=_READER)
        try:
            with _explained(path):
                await _migrate(path, writer)
            yield cls(path, writer, readers)
        finally:
            await readers.dispose()
            await writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries; anything that would write fails on it."""
        with _explained(self.path):
            async with self._readers.connect() as tx:
                yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: on the disk when the block ends, as if never begun when it raises.

        Raises Refused (code "disk-full") when there is no room, Corrupt when the file is damaged.
        """
        with _explained(self.path):
            async with self._writing, self._writer.begin() as tx:
                yield tx

    async def probe(self) -> None:
        """Begin a transaction and roll it back: what the watchdog asks.  Raises as `write` does."""
        with _explained(self.path):
            async with self._writing, self._writer.connect() as tx:
                await tx.execute(text("SELECT 1"))
                await tx.rollback()

    def size_bytes(self) -> int:
        """What the database takes on the disk, its write-ahead log included."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


async def copy_database(path: Path, to: Path) -> None:
    """Write one moment of the database at ``path`` to the new file ``to``, whoever writes meanwhile.

    It is no `Store`: a copy must not bring the tables of a running hub to another version.
    Raises as `Store.write` does.
    """
    engine = _engine(path, size=1, begin="", pragmas=("PRAGMA synchronous=OFF",))
    try:
        with _explained(path):
            async with engine.connect() as tx:
                await tx.execute(text("VACUUM INTO :to"), {"to": str(to)})
    finally:
        await engine.dispose()
    to.chmod(0o600)


def upsert(tx: AsyncConnection, table: Table) -> sqlite.Insert:
    """An INSERT that knows ``on_conflict_do_...``, which SQL never standardised."""
    if tx.dialect.name == "postgresql":
        return cast("sqlite.Insert", postgresql.insert(table))  # spelled the same
    return sqlite.insert(table)


async def find_pairs(
    tx: AsyncConnection, table: Table, pairs: Iterable[tuple[str, str]], *columns: str
) -> AsyncIterator[Sequence[Any]]:
    """These columns of each row of ``table`` whose primary key, of two columns, is among ``pairs``.

    A join, because for a list of pairs SQLite reads the whole table.  And as plain SQL, because
    Core takes longer to compile a list of values than SQLite to look them up.
    """
    first, second = (column.name for column in table.primary_key)
    wanted = list(pairs)
    for start in range(0, len(wanted), PAIRS):
        some = wanted[start : start + PAIRS]
        statement = (  # names of ours alone
            f"WITH asked (a, b) AS (VALUES {','.join(['(?,?)'] * len(some))})"  # noqa: S608
            f" SELECT {','.join(f'found.{name}' for name in columns)}"
            f" FROM asked JOIN {table.name} found ON found.{first} = a AND found.{second} = b"
        )
        rows = await tx.exec_driver_sql(statement, tuple(chain.from_iterable(some)))
        for row in rows:
            yield row


# --- connections ---------------------------------------------------------------------------------

_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA journal_size_limit={WAL_BYTES}",
)
_READER = ("PRAGMA query_only=ON",)
_MIGRATION = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


def _engine(path: Path, *, size: int, begin: str, pragmas: tuple[str, ...]) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # sqlite3 would begin by itself, late and never IMMEDIATE; it is told not to.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S},
        pool_size=size,
        max_overflow=0,
    )
    _prepare(engine.sync_engine, begin, pragmas)
    return engine


def _prepare(engine: Engine, begin: str, pragmas: tuple[str, ...]) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    if begin:
        # IMMEDIATE: who reads first and writes later must not find that somebody was faster.
        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        # A statement that is cancelled takes its connection with it.  SQLite closes one only
        # when its last cursor is gone, and a traceback may hold that for long: without this the
        # transaction would stay open, and nobody could write.
        @event.listens_for(engine, "invalidate")
        def _dropped(connection: Any, _record: object, _error: object) -> None:
            connection.rollback()


# --- the version of the schema ---------------------------------------------------------------------


async def _migrate(path: Path, writer: AsyncEngine) -> None:
    """Bring the tables to `REVISION`, in one transaction."""
    async with writer.connect() as tx:
        found = await tx.run_sync(_revision)
    if found == REVISION:
        return
    if found is not None and found > REVISION:
        raise ConfigError(
            f"{path} has schema {found}, and this version knows {REVISION}",
            hint="install the version of Lichen that wrote it, or restore a backup made before",
        )
    # Without foreign keys, because a table is changed by copying it; they are checked at the end.
    engine = _engine(path, size=1, begin="BEGIN IMMEDIATE", pragmas=_MIGRATION)
    try:
        async with engine.begin() as tx:
            await tx.run_sync(upgrade)
            if (await tx.execute(text("PRAGMA foreign_key_check"))).first() is not None:
                raise Corrupt(f"{path}: rows refer to others that are not there", hint="restore a backup")
    finally:
        await engine.dispose()
    path.chmod(0o600)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to ``revision`` on a connection; the caller commits."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


# --- errors ------------------------------------------------------------------------------------------


class _explained:  # noqa: N801  a context manager, read like a word
    """Says what a failure of the database means, where a person or a program can act on it."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, DatabaseError) and (known := _explain(self._path, str(error.orig))):
            raise known from error


def _explain(path: Path, reason: str) -> LichenError | None:
    if "disk is full" in reason:
        return Refused(
            f"{path}: no space left on the disk",
            code="disk-full",
            hint="make room, then it goes on by itself",
        )
    if "disk I/O error" in reason:
        return Refused(
            f"{path}: the disk fails, or has no room left",
            code="disk-failing",
            hint="the kernel's log says more; then it goes on by itself",
        )
    if "database is locked" in reason:
        return Busy(f"{path}: another process has been writing for {BUSY_TIMEOUT_S} s")
    if "not a database" in reason or "malformed" in reason:
        return Corrupt(f"{path}: {reason}", hint="restore a backup")
    if "unable to open" in reason:
        return ConfigError(f"{path}: {reason}", hint=f"it must be a file that user {os.getuid()} can write")
    return None
