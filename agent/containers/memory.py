"""What the board remembers of its apps across restarts, power cuts and reboots.

Rows in ``apps.db`` beside the order (`agent.containers.orders`), read once at the start and kept in
memory; each change is one commit, on the disk when the call returns.  `agent.containers.reconcile` is
the only one that writes.

- Of each app: the manifest that came up last, why a revision failed, and which update has begun when.
- Of each container: in which boot it was started, so that one that ended by itself can be told from one
  that the agent stopped, or the power; and whether others find it by the names of its service.
- The images that were pulled for apps, so that nobody else's are ever pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from agent.base.sqlite import Connection, Database
from agent.containers.actual import Standing
from agent.containers.aim import Kept, Past
from agent.wire.apps import Failure
from agent.wire.decode import decode_json
from agent.wire.order import App
from agent.wire.plain import dumps

VERSION = 1
MAX_BYTES = 2 * 1024 * 1024
SCHEMA = """
CREATE TABLE orders (
    hub TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    note TEXT NOT NULL,
    in_force INTEGER NOT NULL
) STRICT;
CREATE TABLE apps (
    name TEXT PRIMARY KEY,
    good TEXT,
    failure TEXT,
    kept TEXT NOT NULL DEFAULT '',
    begun INTEGER NOT NULL DEFAULT 0,
    begun_ms INTEGER NOT NULL DEFAULT 0,
    boot TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE containers (
    name TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    boot TEXT NOT NULL DEFAULT '',
    switched INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE images (reference TEXT PRIMARY KEY) STRICT;
"""


STANDINGS: tuple[Standing, ...] = ("made", "switched", "left", "bare")
"""As they are numbered in the column ``switched``."""


@dataclass(frozen=True, slots=True)
class Life:
    """Of a container: the boot in which it was started (empty: it was stopped since), and how it stands
    with its names."""

    app: str
    boot: str = ""
    standing: Standing = "made"


class Memory:
    """The rows of an open database.  Made by `Memory.load`."""

    def __init__(self, database: Database, boot: str) -> None:
        self._database = database
        self._boot = boot
        self._pasts: dict[str, Past] = {}
        self._lives: dict[str, Life] = {}
        self._images: set[str] = set()

    @classmethod
    async def load(cls, database: Database, boot: str) -> Memory:
        """Read all of it.  ``boot``: the one of now.  Raises Corrupt."""
        memory = cls(database, boot)
        await database.run(memory._read)
        return memory

    def _read(self, connection: Connection) -> None:
        columns = "name, good, failure, kept, begun, begun_ms, boot"
        for name, good, failure, kept, begun, begun_ms, boot in connection.execute(
            f"SELECT {columns} FROM apps"  # noqa: S608 - a constant
        ):
            self._pasts[name] = Past(
                None if good is None else decode_json(App, good.encode(), max_bytes=MAX_BYTES),
                None if failure is None else decode_json(Failure, failure.encode(), max_bytes=MAX_BYTES),
                kept,
                begun,
                begun_ms if boot == self._boot else None,
            )
        for name, app, boot, switched in connection.execute(
            "SELECT name, app, boot, switched FROM containers"
        ):
            self._lives[name] = Life(app, boot, STANDINGS[switched])
        self._images = {reference for (reference,) in connection.execute("SELECT reference FROM images")}

    # --- apps ------------------------------------------------------------------------------------

    @property
    def apps(self) -> list[str]:
        """The apps of which something is remembered."""
        return sorted(self._pasts)

    def past(self, app: str) -> Past:
        """What is remembered of an app."""
        return self._pasts.get(app, Past())

    async def begin(self, app: str, revision: int, now_ms: int) -> None:
        """An update to this revision has begun, or begins to wait for its gate, now."""
        await self._keep(app, replace(self.past(app), begun=revision, begun_ms=now_ms))

    async def accept(self, app: App) -> None:
        """The manifest came up."""
        await self._keep(app.name, Past(good=app))

    async def fail(self, app: str, failure: Failure, kept: Kept = "") -> None:
        """A revision did not come up; "continue" and "pause" say that it stays all the same."""
        past = replace(self.past(app), failure=failure, kept=kept, begun=0, begun_ms=None)
        await self._keep(app, past)

    async def forget(self, app: str) -> None:
        """The app is gone."""

        def write(connection: Connection) -> None:
            connection.execute("DELETE FROM apps WHERE name = ?", (app,))
            connection.execute("DELETE FROM containers WHERE app = ?", (app,))

        await self._database.run(write)
        self._pasts.pop(app, None)
        self._lives = {name: life for name, life in self._lives.items() if life.app != app}

    async def _keep(self, app: str, past: Past) -> None:
        row = (
            app,
            None if past.good is None else dumps(past.good).decode(),
            None if past.failure is None else dumps(past.failure).decode(),
            past.kept,
            past.begun,
            past.begun_ms or 0,
            "" if past.begun_ms is None else self._boot,
        )
        await self._write("INSERT OR REPLACE INTO apps VALUES (?, ?, ?, ?, ?, ?, ?)", [row])
        self._pasts[app] = past

    # --- containers ------------------------------------------------------------------------------

    def has_run(self, name: str) -> bool:
        """Whether the agent has started it in this boot, and not stopped it since."""
        life = self._lives.get(name)
        return life is not None and life.boot == self._boot

    async def started(self, name: str, app: str) -> None:
        """A container is about to be started."""
        if not self.has_run(name):
            await self._keep_life(name, replace(self._lives.get(name, Life(app)), boot=self._boot))

    async def stopped(self, name: str) -> None:
        """A container is about to be stopped: its end is not its own."""
        life = self._lives.get(name)
        if life is not None and life.boot:
            await self._keep_life(name, replace(life, boot=""))

    def standing(self, name: str) -> Standing:
        """How a container stands with its names."""
        life = self._lives.get(name)
        return "made" if life is None else life.standing

    async def stands(self, name: str, app: str, standing: Standing) -> None:
        """A container stands otherwise with its names now, or is about to."""
        await self._keep_life(name, replace(self._lives.get(name, Life(app)), standing=standing))

    async def removed(self, names: Iterable[str]) -> None:
        """Containers that are not there any more."""
        gone = [name for name in names if name in self._lives]
        if gone:
            await self._write("DELETE FROM containers WHERE name = ?", [(name,) for name in gone])
            for name in gone:
                self._lives.pop(name, None)

    @property
    def containers(self) -> frozenset[str]:
        """The names of those that are remembered."""
        return frozenset(self._lives)

    async def _keep_life(self, name: str, life: Life) -> None:
        row = (name, life.app, life.boot, STANDINGS.index(life.standing))
        await self._write("INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?)", [row])
        self._lives[name] = life

    # --- images ----------------------------------------------------------------------------------

    @property
    def images(self) -> frozenset[str]:
        """The images that were pulled for apps, by their pinned references."""
        return frozenset(self._images)

    async def pulled(self, reference: str) -> None:
        """An image is about to be pulled."""
        if reference not in self._images:
            await self._write("INSERT OR IGNORE INTO images VALUES (?)", [(reference,)])
            self._images.add(reference)

    async def pruned(self, reference: str) -> None:
        """An image is not there any more."""
        await self._write("DELETE FROM images WHERE reference = ?", [(reference,)])
        self._images.discard(reference)

    async def _write(self, sql: str, rows: list[tuple[object, ...]]) -> None:
        work: Callable[[Connection], object] = lambda connection: connection.executemany(sql, rows)  # noqa: E731
        await self._database.run(work)
