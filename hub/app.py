"""The hub on one page: configuration in, objects, one TaskGroup.

    boards  -- MQTT -->  mosquitto  -->  link, ingest  -->  store  <--  web  <--  browsers, lichen
    boards  -- POST /join -->  web  -->  joining  -->  authority

Owns nothing but the order: what is opened first is closed last, and a task that fails ends them
all.  `hub.__main__` runs it; tests start it as a process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from agent.base import journal, process
from agent.base.broker import connect
from agent.base.lock import held
from hub import config as configuration
from hub.access.keys import Keyring, current_document, describe
from hub.access.login import Access
from hub.apps.desk import Desk, new_desk, open_vault
from hub.config import Config, Directory
from hub.fleet import link
from hub.fleet.alerts import Alerts
from hub.fleet.announcement import Announcement
from hub.fleet.authority import Authority
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.joining import Joining
from hub.fleet.latest import Latest
from hub.fleet.limits import Allowances
from hub.fleet.mosquitto import Mosquitto, Settings
from hub.fleet.renewal import Renewal
from hub.fleet.retention import Retention
from hub.fleet.revocation import Revocation
from hub.fleet.throttle import Throttle
from hub.ledger.witness import Witness
from hub.rotation import Rotation
from hub.store.database import Store
from hub.web.parts import Parts
from hub.web.server import build
from hub.web.sites import serve

log = logging.getLogger(__name__)


class App:
    """The hub in ``directory``.  `run` is entered once; `watch` is what the watchdog asks."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._store: Store | None = None

    async def run(self) -> None:
        """Be the hub until cancelled.

        Raises ConfigError for what its operator has to change, Busy when it runs already.
        """
        directory = self._directory
        config = configuration.load(directory)
        journal.setup(config.log.level)
        logging.getLogger("aiosqlite").setLevel(logging.WARNING)  # it tells of every statement, twice
        async with AsyncExitStack() as stack:
            rotation = Rotation()
            rotation.listen()  # before the lock says whom to signal
            stack.enter_context(held(directory.lock, "a hub"))
            # Password hashes and certificates: work for a processor, one piece at a time.
            executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="keys"))
            reading = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="usage"))
            store = await stack.enter_async_context(Store.open(directory.database))
            self._store = store
            stack.callback(self._forget_store)

            keys = Keyring.load(directory.keys)
            authority = Authority.load(directory.ca)
            authority.ensure_server(config.host, now_ms())
            content = describe(keys, config, authority.ca_pem)
            document = await current_document(store, directory.keys, keys, content, now_ms())
            announcement = Announcement(store, document)
            desk = new_desk(
                store,
                keys,
                await open_vault(store, directory.keys),
                now_ms,
                announced=announcement.announced,
                plain_http=config.registries.plain_http,
                allowed=config.registries.allowed,
                executor=executor,
            )

            fleet = await _fleet(directory, config, store, keys, authority, desk, executor, reading)
            application = build(_parts(config, store, keys, authority, fleet, desk, announcement, executor))
            async with serve(application, config, authority.server_context()), asyncio.TaskGroup() as group:
                turning = rotation.run(
                    directory,
                    store,
                    keys,
                    config,
                    announcement,
                    ca_pem=authority.ca_pem,
                    now_ms=now_ms,
                    renew_orders=desk.orders.wake,
                )
                group.create_task(turning, name="rotation")
                fleet.start(group, announcement, desk)
                _calm_collector()
                process.ready(f"page at {config.page_url}, boards at {config.board_url}")
                log.info("hub started", extra={"hub": keys.hub, "page": config.page_url})

    async def watch(self) -> None:
        """Do what only a healthy hub can: a transaction, rolled back."""
        if self._store is not None:
            await self._store.probe()

    def _forget_store(self) -> None:
        self._store = None


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What hears boards, and speaks to them."""

    latest: Latest
    alerts: Alerts
    commands: Commands
    ingest: Ingest
    broker: Mosquitto
    revocation: Revocation
    throttle: Throttle
    retention: Retention
    witness: Witness

    def start(self, group: asyncio.TaskGroup, announcement: Announcement, desk: Desk) -> None:
        """Begin to hear."""
        kept = link.keep(
            connect,
            self.broker,
            self.ingest,
            self.commands,
            announcement,
            self.revocation,
            self.throttle,
            self.alerts,
            orders=desk.orders.run,
            receipts=self.witness.speak,
        )
        group.create_task(self.broker.run(), name="broker")
        group.create_task(kept, name="link")
        group.create_task(self.alerts.run(), name="alerts")
        group.create_task(self.ingest.corrections.run(), name="corrections")
        group.create_task(self.retention.run(), name="retention")
        group.create_task(self.witness.run(), name="witness")
        group.create_task(self.witness.watch(), name="late logs")


async def _fleet(
    directory: Directory,
    config: Config,
    store: Store,
    keys: Keyring,
    authority: Authority,
    desk: Desk,
    executor: ThreadPoolExecutor,
    reading: ThreadPoolExecutor,
) -> _Fleet:
    """The picture of the fleet as it was stored, and a broker that is closed to revoked boards."""
    latest = Latest()
    await latest.load(store)
    alerts = Alerts(store, latest, now_ms, disk=partial(_disk, directory.path))
    await alerts.load()
    commands = Commands(store, keys, now_ms)
    allowances = Allowances(config.limits, time.monotonic)
    per_day = config.limits.usage_bytes_per_day
    witness = Witness(store, keys, now_ms, alerts=alerts, bytes_per_day=per_day, executor=reading)
    ingest = Ingest(
        store,
        latest,
        now_ms,
        alerts=alerts,
        commands=commands,
        apps=desk.reports,
        usage=witness,
        allowances=allowances,
        commit_every_ms=config.commit_every_ms,
    )
    await ingest.recover()
    broker = Mosquitto(_broker(directory, config, authority), cut=ingest.refused)
    revocation = Revocation(store, authority, latest, now_ms, deny=broker.deny, executor=executor)
    await revocation.enforce()
    throttle = Throttle(allowances, alerts, deny=broker.throttle)
    retention = Retention(store, config.retention, now_ms)
    return _Fleet(latest, alerts, commands, ingest, broker, revocation, throttle, retention, witness)


def _parts(
    config: Config,
    store: Store,
    keys: Keyring,
    authority: Authority,
    fleet: _Fleet,
    desk: Desk,
    announcement: Announcement,
    executor: ThreadPoolExecutor,
) -> Parts:
    """The hub as its pages and its API see it."""
    document, revocation = announcement.text, fleet.revocation
    joining = Joining(
        store,
        authority,
        keys,
        config,
        now_ms,
        document=document,
        put_out=revocation.enforce,
        renew_orders=desk.orders.wake,
        executor=executor,
    )
    return Parts(
        name=config.name,
        id=keys.hub,
        version=version("lichen"),
        ca_pem=authority.ca_pem,
        store=store,
        latest=fleet.latest,
        access=Access(store, now_ms, executor=executor),
        joining=joining,
        commands=fleet.commands,
        alerts=fleet.alerts,
        renewal=Renewal(store, authority, keys, now_ms, document=document, executor=executor),
        revocation=revocation,
        desk=desk,
        witness=fleet.witness,
        counters=fleet.ingest.counters,
        storage=fleet.retention.storage,
        now_ms=now_ms,
    )


def _calm_collector() -> None:
    """Let the garbage collector look at what was loaded never, and at what is new less often.

    A thousand messages a second allocate much and leave no cycles; looking for them after every
    700 objects costs a tenth of ingest.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


def _broker(directory: Directory, config: Config, authority: Authority) -> Settings:
    """The broker's files, and the addresses of the configuration."""
    return Settings(
        dir=directory.broker,
        listen=config.listen,
        port=config.mqtt_port,
        ca=authority.certificate,
        certificate=authority.server_certificate,
        key=authority.server_key,
        crl=authority.revocation_list,
    )


def _disk(directory: Path) -> tuple[int, int]:
    """Free bytes, and all, of the file system that holds a hub."""
    usage = shutil.disk_usage(directory)
    return usage.free, usage.total


def now_ms() -> int:
    """The hub's clock: milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
