"""A hub with apps over a broker in memory, and boards that can verify, unseal and answer their orders.

    async with AppsHub.open(tmp_path, registry) as hub:
        pump = await hub.add_board("pump")
        await hub.deploy("demo", RECIPE, boards=["pump"])
        order = await pump.order(1)             # as a board reads it: verified, of its own id
        await pump.report(running("demo", 1))

Store, ingest, commands and orders are the hub's own; only what is behind a board is played by the test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.base.broker import Address, Message, Session
from agent.wire import note, topics
from agent.wire.apps import Apps, AppState, Failure
from agent.wire.messages import About, Command, Presence, read_text
from agent.wire.order import App, Order
from agent.wire.plain import dumps
from agent.wire.seal import SealKey, generate
from fakes.broker import FakeBroker, lichen_rule
from hub.access import vault as vaults
from hub.access.keys import Keyring
from hub.apps.changes import Changed
from hub.apps.desk import Desk, new_desk
from hub.apps.view import AppPicture, picture_of
from hub.apps.wish import Wish
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.latest import Latest
from hub.store import boards, events
from hub.store.database import Store
from support.blank import new_store
from support.ingest import new_alerts, new_ingest
from support.registry import Registry

BOOT = "b" * 32
ADMIN = "ada"


def push_image(registry: Registry, name: str, tag: str, *architectures: str) -> str:
    """An image for these architectures (several: behind a list); returns ``host:port/name:tag``."""
    pinned = {
        each: registry.push(name, architecture=each, environment={"TAG": tag}) for each in architectures
    }
    if len(pinned) == 1:
        registry.push(name, architecture=architectures[0], environment={"TAG": tag}, tag=tag)
    else:
        registry.push_list(name, pinned, tag=tag)
    return f"{registry.address}/{name}:{tag}"


def recipe(image: str, **files: str) -> dict[str, str]:
    """A recipe with most of what there is to seal: a secret, a config with it, and one without."""
    compose = f"""
services:
  web:
    image: {image}
    environment: [GREETING]
    secrets: [password]
    configs:
      - source: plain
        target: /etc/plain
      - source: private
        target: /etc/private
    volumes: [data:/data]
    ports: ["8080:80"]
    deploy:
      labels: ["coop-cloud.${{STACK_NAME}}.version=1.2"]
volumes:
  data:
secrets:
  password:
    external: true
    name: ${{STACK_NAME}}_password_${{SECRET_PASSWORD_VERSION}}
configs:
  plain:
    name: ${{STACK_NAME}}_plain_v1
    file: plain.txt
  private:
    name: ${{STACK_NAME}}_private_v1
    file: private.tmpl
    template_driver: golang
"""
    return {
        "compose.yml": compose,
        ".env.sample": "GREETING=hello\nSECRET_PASSWORD_VERSION=v1  # length=20 charset=hex\n",
        "plain.txt": "nothing to hide\n",
        "private.tmpl": 'password={{ secret "password" }} for {{ env "GREETING" }}\n',
        **files,
    }


# --- what boards say -----------------------------------------------------------------------------


def running(app: str, revision: int, **changes: Any) -> AppState:
    return replace(AppState(app, revision, revision, "running"), **changes)


def updating(app: str, revision: int, before: int = 0) -> AppState:
    return AppState(app, revision, before, "updating", step="pulling the image of web")


def failed(app: str, revision: int, back_to: int = 0, reason: str = "web never got healthy") -> AppState:
    failure = Failure(revision, 5, "await healthy", reason, "look at its log", rolled_back_to=back_to)
    return AppState(app, revision, back_to, "running" if back_to else "failed", failure=failure)


class Board:
    """A board with its keys, as far as it speaks of apps."""

    def __init__(self, hub: AppsHub, id: str, name: str) -> None:
        self.hub, self.id, self.name = hub, id, name
        self.key: SealKey = generate()
        self.session: Session | None = None
        self.orders: list[Order] = []
        self.notes: list[bytes] = []
        self.commands: list[Command] = []
        self.nonce = ""
        self._life = AsyncExitStack()

    async def come(self) -> None:
        """Connect, and be born."""
        self.nonce = f"n{time.monotonic_ns()}"
        address = Address(self.id, host="x", port=1, username=self.id)
        self.session = await self._life.enter_async_context(self.hub.broker.connect(address))
        group = await self._life.enter_async_context(asyncio.TaskGroup())
        listening = group.create_task(self._listen(self.session), name=f"board {self.name}")
        self._life.callback(listening.cancel)
        await self.session.subscribe(topics.down_all(self.id))
        await self._say("presence", Presence("online", self.nonce, BOOT, 1))
        await self.hub.until(lambda: self._presence("online"))

    async def go(self) -> None:
        """Say goodbye and leave."""
        await self._say("presence", Presence("offline", self.nonce, BOOT, 1))
        await self.hub.until(lambda: self._presence("offline"))
        life, self._life = self._life, AsyncExitStack()
        await life.aclose()

    async def _presence(self, state: str) -> bool:
        async with self.hub.store.read() as tx:
            return (await boards.get_board(tx, self.id)).presence == state

    async def _listen(self, session: Session) -> None:
        async for message in session.messages():
            leaf = message.topic.rpartition("/")[2]
            if leaf == "order" and message.payload:
                self.notes.append(message.payload)
                self.orders.append(self.read(message.payload))
            elif leaf == "command":
                text = note.open_note(message.payload, self.hub.keys.command.verifier)
                self.commands.append(read_text("command", Command, text))

    def read(self, payload: bytes) -> Order:
        """An order, if the hub's key of now has signed it for this board."""
        order = read_text("order", Order, note.open_note(payload, self.hub.keys.order.verifier))
        assert order.board == self.id
        return order

    async def order(self, generation: int) -> Order:
        """The order of this generation, once it has come."""
        await self.hub.until(lambda: any(each.generation == generation for each in self.orders))
        return next(each for each in self.orders if each.generation == generation)

    async def app(self, generation: int, name: str = "demo") -> App:
        """What an order says of an app."""
        return next(each for each in (await self.order(generation)).apps if each.name == name)

    def unsealed(self, app: App) -> dict[str, str]:
        """What only this board can read of a manifest."""
        boxes = {secret.name: secret.box for secret in app.secrets}
        boxes |= {config.name: config.box for config in app.configs if config.box}
        boxes |= {login.registry: login.box for login in app.logins}
        return {name: self.key.unseal(box).decode() for name, box in boxes.items()}

    async def report(self, *states: AppState, generation: int | None = None, **more: Any) -> None:
        """Say how the apps are, and wait until the hub has heard it."""
        if generation is None:
            generation = self.orders[-1].generation if self.orders else 0
        before = self.hub.ingest.counters().messages.get("apps", 0)
        await self._say("apps", Apps(generation, states, **more))
        await self.hub.until(lambda: self.hub.ingest.counters().messages.get("apps", 0) > before)

    async def _say(self, leaf: str, said: object, id: str = "") -> None:
        assert self.session is not None
        retain = leaf in ("presence", "apps")
        await self.session.publish(Message(topics.up(self.id, leaf, id), dumps(said), retain=retain))

    async def say(self, leaf: str, said: object, id: str) -> None:
        """A reply, or lines."""
        await self._say(leaf, said, id)


class AppsHub:
    """See the module."""

    def __init__(self, store: Store, folder: Path, registry: Registry, keys: Keyring) -> None:
        self.store, self.folder, self.registry, self.keys = store, folder, registry, keys
        self.skew_ms = 0
        self.broker = FakeBroker(allow=lichen_rule)
        self.vault = vaults.load(folder, is_needed=False)
        self.may_publish = asyncio.Event()
        self.may_publish.set()
        self.desk: Desk = new_desk(
            store,
            keys,
            self.vault,
            self.now_ms,
            announced=self.may_publish.wait,
            plain_http=[registry.address],
        )
        self.latest = Latest()
        self.commands = Commands(store, keys, self.now_ms)
        self.ingest: Ingest = new_ingest(
            store,
            self.latest,
            self.now_ms,
            alerts=new_alerts(store, self.latest, self.now_ms),
            commands=self.commands,
            desk=self.desk,
            commit_every_ms=0,
        )
        self._boards: list[Board] = []
        self._line = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, registry: Registry, *, keys: Keyring | None = None
    ) -> AsyncIterator[AppsHub]:
        """A hub that is connected to its broker; ``folder`` may hold one of before."""
        async with new_store(folder / "hub.db") as store:
            hub = cls(store, folder, registry, keys or Keyring.generate())
            await hub.latest.load(store)
            await hub.connect()
            try:
                yield hub
            finally:
                for board in hub._boards:
                    await board._life.aclose()
                await hub.disconnect()

    async def connect(self) -> None:
        """Connect to the broker."""
        await self._line.enter_async_context(self._connected())

    async def disconnect(self) -> None:
        """End the connection."""
        line, self._line = self._line, AsyncExitStack()
        await line.aclose()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """The hub's connection, as `hub.fleet.link` keeps one."""
        address = Address("hub", host="x", port=1, username="hub")
        async with self.broker.connect(address) as session, asyncio.TaskGroup() as tasks:
            lives = [
                tasks.create_task(self.ingest.run(session), name="ingest"),
                tasks.create_task(self.commands.run(session), name="commands"),
                tasks.create_task(self.desk.orders.run(session), name="orders"),
            ]
            yield
            for life in lives:
                life.cancel()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.skew_ms

    async def until(self, done: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(10):
            while True:
                found = done()
                if found is True or (not isinstance(found, bool) and await found):
                    return
                await asyncio.sleep(0.005)

    # --- boards and apps ---------------------------------------------------------------------------

    async def add_board(
        self,
        name: str,
        *,
        arch: str = "aarch64",
        labels: Mapping[str, str] | None = None,
        memory_bytes: int = 2 * 10**9,
        online: bool = True,
    ) -> Board:
        """A board that has joined and described itself."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        board = Board(self, letters[len(self._boards)] * 16, name)
        about = About(board.id, "1", "", board.key.public, BOOT, 1, arch=arch, memory_bytes=memory_bytes)
        async with self.store.write() as tx:
            await boards.add_board(
                tx,
                id=board.id,
                name=name,
                labels=labels,
                log_key="",
                seal_key=board.key.public,
                joined_ms=self.now_ms(),
            )
            if arch:
                await boards.save_abouts(tx, {board.id: about}, self.now_ms(), most_sensors=10)
        self._boards.append(board)
        if online:
            await board.come()
        return board

    async def adopt(self, other: Board) -> Board:
        """A board that this hub knows already, and that another one, of another time, has spoken to."""
        board = Board(self, other.id, other.name)
        board.key = other.key
        self._boards.append(board)
        await board.come()
        return board

    async def deploy(
        self,
        app: str = "demo",
        files: Mapping[str, str] | None = None,
        *,
        boards: Sequence[str] = (),
        author: str = ADMIN,
        **wish: Any,
    ) -> Changed:
        return await self.desk.deploy.deploy(app, Wish(files, boards=tuple(boards), **wish), author)

    async def picture(self, app: str = "demo") -> AppPicture:
        async with self.store.read() as tx:
            return await picture_of(tx, app, self.now_ms())

    async def states(self, app: str = "demo") -> dict[str, str]:
        """Of each board the state of the app."""
        return {each.name: each.state for each in (await self.picture(app)).boards}

    async def events(self) -> list[str]:
        """What happened, oldest first: kind, actor and text."""
        async with self.store.read() as tx:
            found = await events.list_events(tx, limit=1000)
        return [f"{each.kind} {each.actor}: {each.text}" for each in reversed(found)]
