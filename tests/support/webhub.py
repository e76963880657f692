"""A hub's web side over a real store, in the process of the test: boards are told, not simulated.

    async with WebHub.open(tmp_path) as hub:
        await hub.add_board("pump", sensors=SENSORS)
        await hub.report("pump", {"capacity.cpu": 41.0})

What a board "says" goes into the same store and the same `Latest` that ingest writes, so pages,
API and stream see what they would see in the field.  The hub's clock can be moved: `skew_ms`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp_jinja2
from aiohttp import web
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from agent.wire.apps import Apps, AppState
from agent.wire.envelope import JSON
from agent.wire.messages import (
    About,
    ClockState,
    Held,
    OutboxState,
    Problem,
    Reading,
    Sensor,
    block_of,
    frame,
)
from agent.wire.plain import dumps
from hub.access.keys import Keyring
from hub.access.login import Access
from hub.config import Config
from hub.fleet.authority import Authority
from hub.fleet.commands import Commands
from hub.fleet.joining import Joining
from hub.fleet.latest import Latest
from hub.fleet.renewal import Renewal
from hub.fleet.retention import Storage
from hub.fleet.revocation import Revocation
from hub.fleet.rollup import Fold
from hub.store import batches, boards, events, problems, rollups
from hub.store.boards import PresenceChange, PresenceState
from hub.store.database import Store
from hub.web.parts import Parts
from hub.web.server import build
from support.blank import new_store
from support.ingest import new_alerts, new_desk_of, new_ingest
from support.witnessing import at_work, new_witness

ADMIN, PASSWORD = "admin", "correct horse battery"
STREAM = "s" * 16
BOOT = "b" * 32
SEAL_KEY = "qYlTKtrVR+F2ieovoqQMP9IBXphgpoFtQLnkTbe3GQo="

SENSORS = (
    Sensor("capacity.cpu", "capacity", "%", "load", 10_000),
    Sensor("capacity.memory", "capacity", "%", "", 10_000),
    Sensor("capacity.disk", "capacity", "%", "", 10_000),
    Sensor("capacity.load", "capacity", "1", "", 10_000),
    Sensor("capacity.memory_used", "capacity", "By", "", 10_000),
    Sensor("capacity.net_rx", "capacity", "By/s", "", 10_000),
    Sensor("board.temperature", "thermal", "Cel", "temperature", 10_000),
)


def board_id(number: int) -> str:
    """An id as boards have them: 16 of a-z and 2-7."""
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(letters[number // 32**place % 32] for place in reversed(range(16)))


class Compiled(BytecodeCache):
    """Templates that some hub of this process has compiled already."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._codes:
            bucket.bytecode_from_string(self._codes[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.bytecode_to_string()


TEMPLATES = Compiled()


class WebHub:
    """See the module."""

    def __init__(self, store: Store, latest: Latest, parts: Parts, access: Access) -> None:
        self.store, self.latest, self.parts, self.access = store, latest, parts, access
        self.skew_ms = 0
        self.stored = Storage()
        self.url = ""
        self.runner: web.AppRunner | None = None
        self._ids: dict[str, str] = {}
        self._seq: dict[str, int] = {}
        self._abouts: dict[str, About] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, *, port: int = 0, plain_http: Sequence[str] = ()
    ) -> AsyncIterator[WebHub]:
        """A hub that answers on the loopback; ``plain_http`` are registries."""
        with ThreadPoolExecutor(1) as executor:
            async with new_store(directory / "hub.db", (ADMIN, PASSWORD)) as store:
                hub = await cls._made(store, directory, executor, plain_http)
                async with at_work(hub.parts.witness):
                    await hub.start(port)
                    try:
                        yield hub
                    finally:
                        await hub.stop()

    @classmethod
    async def _made(
        cls, store: Store, directory: Path, executor: ThreadPoolExecutor, plain_http: Sequence[str]
    ) -> WebHub:
        latest = Latest()
        await latest.load(store)
        hub: WebHub | None = None

        def now_ms() -> int:
            return time.time_ns() // 1_000_000 + (hub.skew_ms if hub else 0)

        keys = Keyring.generate()
        authority = Authority.create(directory, keys.hub, "127.0.0.1", time.time_ns() // 1_000_000)
        config = Config(name="north")
        desk = new_desk_of(store, now_ms, keys, plain_http=plain_http)
        revocation = Revocation(store, authority, latest, now_ms, deny=lambda boards: None, executor=executor)
        joining = Joining(
            store,
            authority,
            keys,
            config,
            now_ms,
            document=lambda: "the hub document",
            put_out=revocation.enforce,
            renew_orders=desk.orders.wake,
            executor=executor,
        )
        renewal = Renewal(
            store, authority, keys, now_ms, document=lambda: "the hub document", executor=executor
        )
        access = Access(store, now_ms, executor=executor)
        alerts = new_alerts(store, latest, now_ms)
        parts = Parts(
            name=config.name,
            id=keys.hub,
            version="0.1.0",
            ca_pem=authority.ca_pem,
            store=store,
            latest=latest,
            access=access,
            joining=joining,
            commands=Commands(store, keys, now_ms),
            alerts=alerts,
            renewal=renewal,
            revocation=revocation,
            desk=desk,
            witness=new_witness(store, keys, now_ms, alerts),
            counters=new_ingest(store, latest, now_ms, alerts=alerts, desk=desk).counters,
            storage=lambda: hub.stored if hub else Storage(),
            now_ms=now_ms,
        )
        hub = cls(store, latest, parts, access)
        return hub

    # --- the web side ------------------------------------------------------------------------------

    async def start(self, port: int = 0) -> None:
        """Begin to answer; a fresh application each time, as after a restart."""
        app = build(self.parts)
        aiohttp_jinja2.get_env(app).bytecode_cache = TEMPLATES
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop answering."""
        if self.runner is not None:
            await self.runner.cleanup()
        self.runner = None

    async def login_link(self) -> str:
        return f"{self.url}/login/link?code={await self.access.new_link(ADMIN)}"

    # --- what boards do ----------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.parts.now_ms()

    def id(self, name: str) -> str:
        return self._ids[name]

    async def add_board(
        self,
        name: str,
        *,
        sensors: Sequence[Sensor] = SENSORS,
        labels: Mapping[str, str] | None = None,
        every_ms: int = 60_000,
        problems: Sequence[Problem] = (),
        heard: bool = True,
        joined_ms: int | None = None,
        model: str = "Raspberry Pi 4 Model B Rev 1.5",
    ) -> str:
        """A board that joined and, unless not ``heard``, described itself and is online; returns its id."""
        id = self._ids[name] = board_id(len(self._ids) + 1)
        joined_ms = self.now_ms - 90 * 86_400_000 if joined_ms is None else joined_ms
        async with self.store.write() as tx:
            await boards.add_board(
                tx, id=id, name=name, labels=labels, log_key="log", seal_key=SEAL_KEY, joined_ms=joined_ms
            )
            await events.add_event(tx, at_ms=joined_ms, kind="joined", text="joined with token 1", board=id)
        if not heard:
            return id
        about = self._abouts[name] = About(
            board=id, version="0.1.0", log_key="log", seal_key=SEAL_KEY, boot=BOOT,
            started_ms=joined_ms + 4_000, hostname=name[:40], model=model,
            system="Debian GNU/Linux 12 (bookworm)", kernel="6.6.51+rpt-rpi-v8", arch="aarch64", cpus=4,
            memory_bytes=3_980_000_000, disk_bytes=31_900_000_000, clock="synced", report_every_ms=every_ms,
            outbox=OutboxState(6, 1800, 67_108_864), sensors=tuple(sensors), problems=tuple(problems),
        )  # fmt: skip
        await self.describe(name, about)
        self.latest.presence(id, "online", self.now_ms)
        return id

    async def presence(self, name: str, state: PresenceState) -> None:
        """A board comes or goes."""
        async with self.store.write() as tx:
            await boards.save_presence(tx, [PresenceChange(self.id(name), state, "n1", self.now_ms)])
        self.parts.desk.reports.tell([self.id(name)])

    async def say_apps(self, name: str, generation: int, *states: AppState, **more: Any) -> None:
        """A board speaks of its apps, as ingest takes it."""
        said = {self.id(name): Apps(generation, states, **more)}
        async with self.store.write() as tx:
            heard_ms = dict.fromkeys(said, self.now_ms)
            await self.parts.desk.reports.take(tx, said, self.now_ms, heard_ms=heard_ms)
        self.parts.desk.reports.tell(list(said))

    def about(self, name: str) -> About:
        """What a board said of itself when it was added."""
        return self._abouts[name]

    async def describe(self, name: str, about: About) -> None:
        """A board says what it is."""
        async with self.store.write() as tx:
            await boards.save_abouts(tx, {self.id(name): about}, self.now_ms, most_sensors=512)
            await problems.settle(tx, self.id(name), "board", about.problems, self.now_ms)
        self.latest.about(self.id(name), about, self.now_ms)

    async def report(
        self, name: str, values: Mapping[str, float | None], *, at_ms: int | None = None
    ) -> None:
        """One report of a board: stored, and in the picture."""
        at_ms = self.now_ms if at_ms is None else at_ms
        readings = [Reading(sensor, value, at_ms, at_ms) for sensor, value in values.items()]
        await self.store_history(name, [readings])
        self.latest.update(self.id(name), readings, at_ms)

    async def store_history(
        self, name: str, reports: Sequence[Sequence[Reading]], *, clock: ClockState = "synced"
    ) -> None:
        """Reports of the past, with their roll-ups, all in one transaction.

        With an "unsynced" clock they are of a boot of their own, in which nobody knew the time.
        """
        id, fold, rows = self.id(name), Fold(), []
        pending = clock == "unsynced"
        boot = "c" * 32 if pending else BOOT
        for readings in reports:
            seq0 = self._seq.get(id, 1)
            block = block_of(readings, boot=boot, stream=STREAM, seq0=seq0, clock=clock)
            self._seq[id] = block.next
            if not pending:
                fold.add(id, (block,), 0)
            times = [reading.wall_ms for reading in readings]
            payload = frame({STREAM: Held(seq0, block.next)}, (), [dumps(block)])
            row = batches.NewBatch(
                id, times[-1], min(times), max(times), STREAM, seq0, len(readings), 0, JSON, payload,
                boot, int(pending),
            )  # fmt: skip
            rows.append(row)
        async with self.store.write() as tx:
            await batches.add_sensors(
                tx, {(id, reading.sensor) for readings in reports for reading in readings}
            )
            await batches.add_batches(tx, rows)
            await rollups.add_parts(tx, fold.parts())
