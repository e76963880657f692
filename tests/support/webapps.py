"""A hub's web side with apps, and what its boards say of them.

    async with WebApps.open(tmp_path, shop) as apps:
        await apps.add_board("pump")
        await apps.deploy("demo", recipe(image), "pump")
        await apps.say("pump", running("demo", 1))

Everything is the hub's own (`WebHub`) and a real registry's; the test plays the boards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from agent.base.broker import Address
from agent.wire import note, topics
from agent.wire.apps import AppState, ContainerState, LogLine, LogLines
from agent.wire.messages import Command, read_text
from fakes.broker import FakeBroker
from hub.apps.changes import Changed
from hub.apps.wish import Wish
from hub.store.apps import RevisionRow, get_app
from hub.store.boards import PresenceState
from hub.store.orders import find_order
from support.apps import recipe, running
from support.registry import Registry
from support.visitor import texts
from support.webhub import ADMIN, WebHub

MB = 1_000_000


def container(service: str = "web", **more: Any) -> ContainerState:
    """A container that is well."""
    said = {
        "health": "healthy",
        "started_ms": 1_700_000_000_000,
        "cpu_milli": 25,
        "memory_bytes": 41 * MB,
        **more,
    }
    return ContainerState(service, f"demo_{service}.0.0a1b2c3d", said.pop("state", "running"), **said)


def form(
    files: Mapping[str, str], *boards: str, uploads: Mapping[str, bytes] | None = None, **fields: str
) -> aiohttp.FormData:
    """The deploy form as a browser sends it."""
    data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for path, text in files.items():
        data.add_field("path", path)
        data.add_field("text", text.replace("\n", "\r\n"))
    for board in boards:
        data.add_field("board", board)
    for name, content in (uploads or {}).items():
        data.add_field("upload", content, filename=name, content_type="text/plain")
    for name, value in fields.items():
        data.add_field(name.replace("__", "."), value)
    return data


def seen_in(html: str) -> str:
    """What the button of a look sends back."""
    found = re.search(r'name="seen" value="([0-9a-f]+)"', html)
    assert found, texts(html)[-1500:]
    return found[1]


class WebApps:
    """See the module."""

    def __init__(self, hub: WebHub) -> None:
        self.hub = hub

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, shop: Registry) -> AsyncIterator[WebApps]:
        async with WebHub.open(folder, plain_http=[shop.address]) as hub:
            yield cls(hub)

    async def add_board(self, name: str, *, online: bool = True, **more: Any) -> None:
        """A board that has joined and told what it is."""
        await self.hub.add_board(name, **more)
        await self.presence(name, "online" if online else "offline")

    async def presence(self, name: str, state: PresenceState) -> None:
        """A board comes or goes."""
        await self.hub.presence(name, state)
        self.hub.latest.presence(self.hub.id(name), state, self.hub.now_ms)

    async def deploy(self, app: str, files: Mapping[str, str], *names: str, **wish: Any) -> Changed:
        return await self.hub.parts.desk.deploy.deploy(app, Wish(files, boards=names, **wish), ADMIN)

    async def come_up(self, image: str, *names: str) -> None:
        """The app demo, running."""
        await self.deploy("demo", recipe(image), *names)
        for name in names:
            await self.say(name, running("demo", 1))

    async def newest(self, app: str = "demo") -> RevisionRow:
        """The newest revision of an app."""
        async with self.hub.store.read() as tx:
            return await get_app(tx, app)

    async def say(self, name: str, *states: AppState, **more: Any) -> None:
        """A board speaks of its apps; it has the newest order."""
        hub = self.hub
        async with hub.store.read() as tx:
            order = await find_order(tx, hub.id(name))
        generation = order.generation if order else 0
        await hub.say_apps(name, more.pop("generation", generation), *states, **more)

    @asynccontextmanager
    async def telling(self, name: str, lines: Sequence[LogLine]) -> AsyncIterator[list[Command]]:
        """While the block runs this board answers each command for a log with these lines."""
        hub, asked = self.hub, list[Command]()
        broker, commands, board = FakeBroker(), hub.parts.commands, hub.id(name)
        async with (
            broker.connect(Address("hub", host="x", port=1, username="hub")) as session,
            broker.connect(Address(board, host="x", port=1, username=board)) as ear,
            asyncio.TaskGroup() as tasks,
        ):
            await ear.subscribe(topics.down(board, "command"))

            async def answer() -> None:
                async for message in ear.messages():
                    text = note.open_note(message.payload, hub.parts.desk.orders._keys.command.verifier)
                    command = read_text("command", Command, text)
                    asked.append(command)
                    commands.streamed(board, command.id, LogLines(1, tuple(lines)))
                    commands.streamed(board, command.id, LogLines(2, end=True))

            lives = [
                tasks.create_task(commands.run(session), name="commands"),
                tasks.create_task(answer(), name="a board that answers"),
            ]
            await asyncio.sleep(0)
            yield asked
            for life in lives:
                life.cancel()
