"""Any orders in any order, while agent, Podman, power and registry fail: the last one is what is there.

In virtual time over the engine in memory.  Each round has a seed, which it prints; `LICHEN_SEED=5` plays
those from 5 on, in `make soak` many.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire.order import App, Attachment, Dependency, Mount, Port, Service, Update
from fakes.podman import Behaviour
from support.apphouse import House
from support.appmodel import CHECK, demo
from support.virtual import virtual

ROUNDS = 150 if os.environ.get("LICHEN_SOAK") else 3
SEED = int(os.environ.get("LICHEN_SEED", "20261128"))
EVENTS = 12

pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.timeout(3600)]

BAD = (Behaviour(exits=1), Behaviour(healthy_after=None), Behaviour(oom=True, after_s=2))
SLOW = Behaviour(healthy_after=5, check_s=0.3)


class Round:
    """A board for which everything is thrown with dice."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.dice = house, random.Random(seed)
        self.revision = 0
        self._agent = AsyncExitStack()

    async def play(self) -> None:
        await self._agent.enter_async_context(self.house.running())
        try:
            for _ in range(EVENTS):
                await self._happen()
                await asyncio.sleep(self.dice.choice((0, 0.1, 1, 5, 40, 400)))
            self._heal()
            await self._end()
        finally:
            await self._agent.aclose()

    async def _end(self) -> None:
        """A last good order, and then none."""
        last = self._app(Behaviour())
        await self.house.order(last)
        await self.house.until_running(last.revision, last.name)
        await asyncio.sleep(300)
        self._expect(last)
        await self.house.order(replace(last, revision=self.revision + 1, services=(), purge=True))
        await self.house.until(lambda: not self.house.is_known())
        assert not self.house.podman.by_name
        assert not self.house.traffic.served

    async def _happen(self) -> None:
        podman = self.house.podman
        match self.dice.randrange(10):
            case 0:
                await self.house.order()
            case 1:
                await self.house.order(replace(self._app(Behaviour()), stopped=True))
            case 2:
                await self._restart(power=False)
            case 3:
                await self._restart(power=True)
            case 4:
                podman.drops += self.dice.randrange(1, 4)
            case 5:
                podman.down = not podman.down
            case 6:
                podman.registry = self.dice.choice(("up", "down", "hangs"))
            case _:
                await self.house.order(self._app(self.dice.choice((Behaviour(), SLOW, *BAD))))

    def _app(self, behaviour: Behaviour) -> App:
        """Another revision of an app: with or without a neighbour, replicas, a port, a volume."""
        self.revision += 1
        dice, podman = self.dice, self.house.podman
        podman.pull_s = dice.choice((0.0, 3.0))
        image = podman.publish("registry.example/web", behaviour, tag=str(self.revision))
        base = podman.publish("registry.example/db", tag="1")
        web = Service(
            "web",
            image,
            replicas=dice.choice((1, 1, 2, 3)),
            update=Update(order=dice.choice(("start-first", "stop-first"))),
            health=CHECK,
            networks=(Attachment("demo_default"),),
            ports=(Port(80, 8080),) if dice.random() < 0.7 else (),
            mounts=(Mount("volume", "/data", "demo_data"),) if dice.random() < 0.3 else (),
            depends_on=(Dependency("db", "healthy"),),
        )
        db = Service("db", base, health=CHECK, networks=(Attachment("demo_default"),))
        if dice.random() < 0.5:
            return demo(self.revision, web, db)
        return demo(self.revision, replace(web, depends_on=()))

    async def _restart(self, *, power: bool) -> None:
        await self._agent.aclose()
        if power:
            self.house.podman.cut_power()
            self.house.boot = f"{self.dice.getrandbits(128):032x}"
        await self._agent.enter_async_context(self.house.running())

    def _heal(self) -> None:
        podman = self.house.podman
        podman.down, podman.drops, podman.registry = False, 0, "up"

    def _expect(self, app: App) -> None:
        """All of the app runs and nothing else is there; its port leads to it, and to nobody else."""
        podman = self.house.podman
        found = sorted(each.labels["lichen.service"] for each in podman.by_name.values())
        assert found == sorted(each.name for each in app.services for _ in range(each.replicas))
        assert set(self.house.running_names) == set(podman.by_name)
        assert self.house.traffic.served_names <= set(podman.by_name)
        assert self.house.state().failure is None


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_whatever_was_ordered_and_happened_the_last_order_is_what_is_there(tmp_path: Path, seed: int) -> None:
    print(f"LICHEN_SEED={seed}")

    @virtual
    async def run() -> None:
        await Round(House(tmp_path), seed).play()

    run()
