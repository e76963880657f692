"""An agent that is killed after any single step of an update: the next one ends in the new or in the
old version, never in both or none, and what is updated start-first serves all the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from agent.wire.order import Attachment, Dependency, Port, Service, Update
from fakes.podman import Behaviour
from support.apphouse import House
from support.appmodel import CHECK, demo
from support.virtual import virtual


class Killed(Exception):
    """The agent, in the middle of whatever it did."""


def services(house: House, tag: str, behaviour: Behaviour | None, kind: str) -> tuple[Service, ...]:
    image = house.podman.publish("registry.example/web", behaviour, tag=tag)
    base = house.podman.publish("registry.example/db", tag="1")
    more: dict[str, Any] = {"health": CHECK, "networks": (Attachment("demo_default"),)}
    if kind == "start-first":
        more |= {"update": Update(order="start-first"), "ports": (Port(80, 8080),), "replicas": 2}
    return (
        Service("web", image, depends_on=(Dependency("db", "healthy"),), **more),
        Service("db", base, health=CHECK),
    )


async def update(
    folder: Path, kind: str, behaviour: Behaviour | None, kill_at: int | None, *, power: bool
) -> int:
    """Update an app, and kill the agent after a number of calls.  How many there were until its end."""
    folder.mkdir()
    house = House(folder)
    async with house.running():
        await house.order(demo(1, *services(house, "1", None, kind)))
        await house.until_running(1)
    first, killed, calls = set(house.running_names), False, 0

    def strike(call: str) -> None:
        nonlocal calls, killed
        calls += 1
        if kind == "start-first" and not power:
            assert house.traffic.served_names & set(house.running_names), f"nobody serves after {call}"
        if calls == kill_at and not killed:
            killed = True
            raise Killed

    house.podman.after_call = strike
    with contextlib.suppress(BaseExceptionGroup):
        async with house.running():
            await house.order(demo(2, *services(house, "2", behaviour, kind)))
            await end(house)
    house.podman.after_call = None
    if killed and power:
        house.podman.cut_power()
        house.boot = "c" * 32
    async with house.running():
        await end(house)
        await asyncio.sleep(5)
        names = set(house.running_names)
        assert len(names) == len(first), f"{names} after {house.podman.calls}"
        assert (names == first) == (behaviour is not None)
        assert house.state().state == "running"
        assert set(house.podman.by_name) == names
    assert killed == (kill_at is not None)
    return calls


async def end(house: House) -> None:
    """Until the update has ended, one way or the other."""

    def is_over() -> bool:
        if not house.is_known():
            return False
        state = house.state()
        ended = state.running == 2 or (state.failure is not None and state.failure.revision == 2)
        return ended and state.state == "running" and not state.step

    await house.until(is_over)


def moments(calls: int) -> list[int]:
    """Every moment in `make soak`, a seeded tenth of them else."""
    everything = range(1, calls + 1)
    if os.environ.get("LICHEN_SOAK"):
        return list(everything)
    seed = int(os.environ.get("LICHEN_SEED", "4"))
    print(f"LICHEN_SEED={seed}")
    dice = random.Random(seed * 1000 + calls)
    return sorted(dice.sample(everything, max(3, calls // 10)))


@pytest.mark.soak
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("behaviour", [None, Behaviour(exits=1), Behaviour(healthy_after=None)], ids=str)
@pytest.mark.parametrize("kind", ["stop-first", "start-first"])
def test_an_agent_killed_after_any_step_ends_in_the_new_or_the_old_version(
    tmp_path: Path, kind: str, behaviour: Behaviour | None, power: bool
) -> None:
    @virtual
    async def run() -> None:
        for moment in moments(await update(tmp_path / "unharmed", kind, behaviour, None, power=power)):
            await update(tmp_path / f"{moment}", kind, behaviour, moment, power=power)

    run()
