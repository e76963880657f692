"""Orders all the way to containers: the whole agent over a broker and an engine in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.app import Agent
from agent.base.broker import Message
from agent.clock import Clock
from agent.config import Config, Containers, Report
from agent.containers.engine import Engine
from agent.identity import open_identity
from agent.sensors.driver import read_sensor
from agent.status import describe, read_status
from agent.usage.peek import peek
from agent.wire import note, topics
from agent.wire.apps import Apps, LogLines
from agent.wire.decode import decode_json
from agent.wire.envelope import unpack
from agent.wire.messages import About, Presence, Reply, compose
from agent.wire.order import App, Order, Service, Update
from agent.wire.usage import OrderRecord, read
from fakes.broker import FakeBroker, lichen_rule
from fakes.podman import Behaviour, FakePodman
from support.homehub import HomeHub
from support.source import ROOT

pytestmark = pytest.mark.slow  # how apps are is told at most each two seconds
QUICK = Update(monitor_ms=50)


class Scene:
    """A board that has joined, its hub's keys, and everything that the board has said."""

    def __init__(self, folder: Path) -> None:
        self.hub = HomeHub(folder / "hub")
        self.identity = open_identity(folder / "state")
        self.hub.admit(self.identity)
        self.broker, self.podman = FakeBroker(allow=lichen_rule), FakePodman()
        self.config = Config(
            state_dir=folder / "state",
            runtime_dir=folder / "run",
            join_file=folder / "none",
            report=Report(every_s=0.2, commit_every_s=0.2),
            sensors=(read_sensor({"name": "load", "kind": "capacity", "interval_s": 10}, "sensors[0]"),),
            containers=Containers(policy=folder / "policy.toml"),
        )
        self.engines = 0

    @property
    def board(self) -> str:
        return self.identity.board

    @asynccontextmanager
    async def open_engine(self, config: Containers, runtime_dir: Path) -> AsyncIterator[Engine]:
        self.engines += 1
        yield self.podman

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The agent, from its start to its end."""
        agent = Agent(self.config, Clock.system(), self.broker.connect, self.open_engine)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(agent.run(), name="agent")
            yield
            task.cancel()

    def order(self, generation: int, *apps: App, signer: note.Signer | None = None, **lies: Any) -> None:
        """The hub orders, retained."""
        order = Order(**{"board": self.board, "generation": generation, "issued_ms": 0, "apps": apps, **lies})
        text = note.sign(compose("order", order), signer or self.hub.keys.order)
        self.broker.publish(Message(topics.down(self.board, "order"), text.encode(), retain=True))

    def said(self, leaf: str, cls: type[Any]) -> list[Any]:
        """What the board said on a topic, in order."""
        found = [each for each in self.broker.log if topics.parse(each.topic).leaf == leaf]
        return [decode_json(cls, unpack(each.payload, each.content_type), max_bytes=10**6) for each in found]

    @property
    def apps(self) -> Apps:
        newest: Apps = self.said("apps", Apps)[-1]
        return newest

    async def until(self, condition: Callable[[], object], within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                # The agent is in this loop, and a condition may read all that it has ever said.
                await asyncio.sleep(0.02)

    async def until_running(self, revision: int, within_s: float = 30) -> None:
        def runs() -> bool:
            if not self.said("apps", Apps) or not self.apps.apps:
                return False
            return (self.apps.apps[0].running, self.apps.apps[0].state) == (revision, "running")

        await self.until(runs, within_s)

    def demo(self, revision: int = 1, behaviour: Behaviour | None = None) -> App:
        image = self.podman.publish("registry.example/web", behaviour, tag=str(revision))
        return App("demo", revision, services=(Service("web", image, update=QUICK),))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


WITHOUT_APPS = """
import asyncio, sys
from pathlib import Path
from agent.app import Agent
from agent.clock import Clock
from agent.config import Config, Report
from agent.identity import open_identity
from agent.sensors.driver import read_sensor
from fakes.broker import FakeBroker, lichen_rule
from support.homehub import HomeHub

folder = Path(sys.argv[1])
HomeHub(folder / "hub").admit(open_identity(folder / "state"))
broker = FakeBroker(allow=lichen_rule)
load = read_sensor({"name": "load", "kind": "capacity", "interval_s": 10}, "sensors[0]")
config = Config(state_dir=folder / "state", runtime_dir=folder / "run", join_file=folder / "none",
    report=Report(every_s=0.2, commit_every_s=0.2), sensors=(load,))

async def main():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Agent(config, Clock.system(), broker.connect).run())
        while not {"presence", "about", "readings"} <= {each.topic.split("/")[4] for each in broker.log}:
            await asyncio.sleep(0.02)
        task.cancel()

asyncio.run(main())
print(*(name for name in sys.modules if name.startswith(("agent.containers.", "podman"))))
"""


def test_an_agent_without_apps_loads_nothing_of_them_at_work(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_APPS, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False, timeout=50)
    assert done.stdout.split() == ["agent.containers.apps"], done.stderr


async def test_an_order_ends_in_containers_and_a_report_and_outlives_the_agent(scene: Scene) -> None:
    async with scene.running():
        await scene.until(lambda: scene.said("about", About))
        assert scene.engines == 0  # a board without apps pays for none
        assert not (scene.config.state_dir / "apps.db").exists()
        scene.order(1, scene.demo())
        await scene.until_running(1)
        assert (scene.apps.generation, scene.apps.engine) == (1, "4.3.1")
    scene.broker.retained.clear()
    scene.podman.cut_power()
    async with scene.running():
        await scene.until(lambda: [c for c in scene.podman.by_name.values() if c.phase == "running"])


async def test_each_session_hears_how_apps_are(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo())
        await scene.until_running(1)
        count = len(scene.said("apps", Apps))
        scene.broker.cut(scene.board)
        await scene.until(lambda: len(scene.said("apps", Apps)) > count)
        assert scene.apps.apps[0].running == 1


async def test_what_is_not_the_hubs_word_for_this_board_now_changes_nothing(scene: Scene) -> None:
    async with scene.running():
        scene.order(5, scene.demo(1))
        await scene.until_running(1)
        calls = list(scene.podman.calls)
        cases: list[tuple[str, int, Callable[[], None]]] = [
            ("signed by", 0, lambda: scene.order(6, signer=scene.hub.keys.command)),
            ("is for board", 6, lambda: scene.order(6, board="z" * 16)),
            ("is older than 5", 4, lambda: scene.order(4)),
            ("two orders of generation 5", 5, lambda: scene.order(5)),
            ("is there twice", 7, lambda: scene.order(7, scene.demo(2), scene.demo(3))),
        ]
        for reason, generation, lie in cases:
            lie()
            await scene.until(lambda: reason in scene.apps.reason)  # noqa: B023 - within the round
            assert (scene.apps.refused, scene.apps.generation) == (generation, 5)
            assert scene.apps.apps[0].running == 1
        image = "registry.example/web:latest"  # without a digest
        text = compose("order", {"board": scene.board, "generation": 8, "issued_ms": 0, "apps": [
            {"name": "demo", "revision": 2, "services": [{"name": "web", "image": image}]}]})  # fmt: skip
        signed = note.sign(text, scene.hub.keys.order).encode()
        scene.broker.publish(Message(topics.down(scene.board, "order"), signed, retain=True))
        await scene.until(lambda: "digest" in scene.apps.reason)
        assert scene.podman.calls == calls
        scene.order(9, scene.demo(2))
        await scene.until_running(2)
        assert (scene.apps.refused, scene.apps.reason) == (0, "")


async def test_an_order_by_a_new_key_may_come_before_the_document_that_has_it(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo(1))
        await scene.until_running(1)
        hub = scene.hub
        hub.keys = replace(hub.keys, order=note.generate(hub.keys.order.name))
        scene.order(2, scene.demo(2))
        await scene.until(lambda: "with no key of" in scene.apps.reason)
        document = Message(topics.down(scene.board, "hub"), hub.document(2).encode(), retain=True)
        scene.broker.publish(document)
        await scene.until_running(2)
        assert (scene.apps.generation, scene.apps.reason) == (2, "")


async def test_a_refused_order_and_a_failed_app_are_problems_of_the_board(scene: Scene) -> None:
    async with scene.running():
        scene.order(2, scene.demo(1, Behaviour(exits=1)))
        await scene.until(lambda: scene.said("apps", Apps) and scene.apps.apps and scene.apps.apps[0].failure)
        scene.order(1)

        def codes() -> set[str]:
            abouts = scene.said("about", About)
            return {problem.code for problem in abouts[-1].problems} if abouts else set()

        await scene.until(lambda: {"order-refused", "app-failed"} <= codes())


async def test_a_policy_that_cannot_be_used_changes_nothing_and_is_a_problem(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo(1))
        await scene.until_running(1)
        scene.config.containers.policy.write_text("#" * 70_000)
        scene.order(2, scene.demo(2))

        def problems() -> list[Any]:
            abouts = scene.said("about", About)
            return [each for each in abouts[-1].problems if each.code == "policy-broken"] if abouts else []

        await scene.until(problems)
        assert problems()[0].sentence.endswith("policy.toml is over 64 KiB.")
        (app,) = scene.apps.apps
        assert (app.running, app.state, "over 64 KiB" in app.step) == (1, "waiting", True)


async def test_podman_that_is_missing_is_a_problem_and_readings_go_on(scene: Scene) -> None:
    scene.podman.missing = True
    async with scene.running():
        scene.order(1, scene.demo())
        await scene.until(lambda: scene.said("apps", Apps))

        def problems() -> list[Any]:
            return list(scene.said("about", About)[-1].problems)

        await scene.until(lambda: any(each.code == "podman-missing" for each in problems()))
        told = next(each for each in problems() if each.code == "podman-missing")
        assert "apt-get install" in told.hint
        assert [each for each in scene.broker.log if each.topic.endswith("/readings")]


async def test_the_status_for_a_technician_says_how_apps_are(scene: Scene) -> None:
    def lines() -> list[str]:
        status = read_status(scene.config.runtime_dir)
        return [] if status is None else list(describe(status, Clock.system().wall_ms()))

    async with scene.running():
        await scene.until(lines)
        assert not [line for line in lines() if line.startswith("apps")]
        scene.order(1, scene.demo())
        await scene.until(lambda: "apps     1 of 1 runs" in lines())
        scene.order(2, scene.demo(2, Behaviour(exits=1)))
        failed = "         revision 2 of demo failed: web ended with 1, 3 times"
        await scene.until(lambda: failed in lines())
        await scene.until(lambda: "apps     1 of 1 runs" in lines())


async def test_logs_are_sent_when_they_are_asked_for(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo(1, Behaviour(says=("one", "two"))))
        await scene.until_running(1)
        nonce = scene.said("presence", Presence)[-1].nonce
        wanted = scene.hub.command(scene.board, nonce, "logs", "c1", args={"app": "demo", "tail": 1})
        scene.broker.publish(Message(topics.down(scene.board, "command"), wanted))
        await scene.until(lambda: scene.said("reply", Reply))
        lines = [line.text for each in scene.said("stream", LogLines) for line in each.lines]
        assert lines == ["two"]
        assert scene.said("reply", Reply)[-1].status == "done"
        for number, args in enumerate(({"app": "other"}, {"tail": 5}), 2):
            asked = scene.hub.command(scene.board, nonce, "logs", f"c{number}", args=args)
            scene.broker.publish(Message(topics.down(scene.board, "command"), asked))
            await scene.until(lambda: len(scene.said("reply", Reply)) == number)  # noqa: B023
            assert scene.said("reply", Reply)[-1].status == "refused"


async def test_when_the_last_app_has_gone_the_board_is_as_before(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo())
        await scene.until_running(1)
        scene.order(2)
        await scene.until(lambda: scene.apps.generation == 2 and not scene.apps.apps)
        assert not scene.podman.by_name
        await scene.until(lambda: not scene.podman._stored)
        scene.order(3, scene.demo(2))
        await scene.until_running(2)
        assert scene.engines == 2


async def test_a_damaged_database_costs_the_apps_only(scene: Scene) -> None:
    (scene.config.state_dir / "apps.db").write_bytes(b"no database at all" * 100)
    async with scene.running():
        await scene.until(lambda: scene.said("apps", Apps))
        assert "not a sound SQLite file" in scene.apps.reason
        scene.order(1, scene.demo())
        await scene.until(lambda: [each for each in scene.broker.log if each.topic.endswith("/readings")])
        assert scene.engines == 0


async def test_apps_on_a_full_disk_wait_and_readings_go_on(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path / "state"))
    subprocess.run(mount, check=True)
    try:
        scene = Scene(tmp_path)
        async with scene.running():
            scene.order(1, scene.demo())
            await scene.until_running(1)
            scene.podman.pull_s = 1
            scene.order(2, scene.demo(2))
            await scene.until(lambda: scene.podman.pulling)
            fill(tmp_path / "state/filler")
            scene.podman.pull_error = "manifest unknown"
            await scene.until(lambda: "the disk is full" in scene.apps.apps[0].step)
            assert (scene.apps.apps[0].running, scene.apps.apps[0].failure) == (1, None)
            heard = len(scene.broker.log)
            await scene.until(lambda: len(scene.broker.log) > heard)
            (tmp_path / "state/filler").unlink()
            await scene.until_running(2)
    finally:
        subprocess.run(("umount", "--lazy", str(tmp_path / "state")), check=True)


def fill(file: Path) -> None:
    """Take all the room there is."""
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 512)


async def test_an_agent_that_starts_without_podman_does_not_say_that_apps_are_gone(scene: Scene) -> None:
    async with scene.running():
        scene.order(1, scene.demo())
        await scene.until_running(1)
    count = len(scene.said("apps", Apps))
    scene.podman.down = True
    scene.order(2)
    async with scene.running():
        await scene.until(lambda: scene.podman.unanswered > 1)  # and a second has passed
        assert len(scene.said("apps", Apps)) == count
        scene.podman.down = False
        await scene.until(lambda: scene.apps == Apps(2, engine=scene.apps.engine))
        assert not scene.podman.by_name


async def test_what_became_of_orders_is_in_the_usage_log(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.running():
        scene.order(2, scene.demo())
        await scene.until_running(1)
        scene.order(1)
        await scene.until(lambda: scene.apps.refused)
        scene.order(9, signer=note.generate("hub/order"))
    log = peek(tmp_path / "state/usage")
    records = [read(entry) for _, entry in log.entries(0, log.size)]
    log.close()
    orders = [
        (each.generation, each.accepted, each.reason) for each in records if isinstance(each, OrderRecord)
    ]
    assert orders == [
        (2, True, ""),
        (1, False, "the order of generation 1 is older than 2, which this board had"),
    ]
