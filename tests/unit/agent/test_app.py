"""The agent as a whole, over a broker in memory: what must not end it, and how it ends."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.app import Agent
from agent.clock import Clock
from agent.config import Config, Report
from agent.identity import open_identity
from agent.sensors.driver import read_sensor
from agent.status import read_status
from fakes.broker import FakeBroker, lichen_rule
from support.homehub import HomeHub


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def configured(folder: Path) -> Config:
    """A board that has joined, and has something to tell each 0.1 s."""
    HomeHub(folder / "hub").admit(open_identity(folder / "state"))
    return Config(
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        join_file=folder / "none",
        report=Report(every_s=0.1, commit_every_s=0.1),
        sensors=(read_sensor({"name": "load", "kind": "capacity", "interval_s": 0.1}, "sensors[0]"),),
    )


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(agent.run(), name="agent")
        yield task
        task.cancel()


async def test_a_runtime_directory_that_is_lost_costs_the_status_only(tmp_path: Path) -> None:
    config, broker = configured(tmp_path), FakeBroker(allow=lichen_rule)
    async with running(Agent(config, Clock.system(), broker.connect)) as task:
        await until(lambda: broker.log)
        shutil.rmtree(config.runtime_dir)
        said = len(broker.log)
        await until(lambda: len(broker.log) > said)
        assert not task.done()
        config.runtime_dir.mkdir()
        await until(lambda: read_status(config.runtime_dir))


async def test_a_watchdog_that_looks_while_it_stops_finds_no_fault(tmp_path: Path) -> None:
    config, broker = configured(tmp_path), FakeBroker(allow=lichen_rule)
    agent = Agent(config, Clock.system(), broker.connect)
    async with running(agent) as task:
        await until(lambda: broker.log)
        task.cancel()
        while not task.done():
            await agent.watch()
            await asyncio.sleep(0)
