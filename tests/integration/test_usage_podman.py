"""What containers of a real Podman used is in the log of their board to the microsecond, and at its hub, too:
through deaths, restarts, and agents that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.identity import open_identity
from agent.parents import Parents
from agent.usage.peek import peek
from agent.wire.usage import BoardRecord, ContainerRecord, OrderRecord, Record, read
from support.lab import free_ports
from support.podman import Stand, stand
from support.site import Site

SOAK = bool(os.environ.get("LICHEN_SOAK"))
CRASHES = 20 if SOAK else 3
PERIOD_S = 10
USAGE = {"period_s": PERIOD_S, "mem_sample_s": 1}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if SOAK else 300)]

WORK = "i=0; while [ $$i -lt {turns} ]; do i=$$((i+1)); done"
RECIPE = """
services:
  web:
    image: {image}
    command: ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"]
    ports: ["127.0.0.1:{port}:80"]
    stop_grace_period: 2s
    deploy: {{restart_policy: {{condition: any, delay: 1s}}, update_config: {{monitor: 1s}}}}
  once:
    image: {image}
    command: ["sh", "-c", "{work}; exit 0"]
    deploy: {{restart_policy: {{condition: none}}, update_config: {{monitor: 0s}}}}
  again:
    image: {image}
    command: ["sh", "-c", "trap 'exit 0' TERM; {work}; sleep 0.5 & wait"]
    stop_grace_period: 1s
    deploy: {{restart_policy: {{condition: any, delay: 0s}}, update_config: {{monitor: 0s}}}}
  near:
    image: {image}
    network_mode: host
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
    stop_grace_period: 1s
    deploy: {{update_config: {{monitor: 0s}}}}
  beside:
    image: {image}
    network_mode: service:web
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
    stop_grace_period: 1s
    deploy: {{update_config: {{monitor: 0s}}}}
"""
CONTAINERS = 5
EATER = """
services:
  eater:
    image: {image}
    command: ["sh", "-c", "sleep 1; exec tail /dev/zero"]
    mem_limit: 16m
    deploy: {{restart_policy: {{condition: none}}, update_config: {{monitor: 0s, failure_action: continue}}}}
"""


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        yield made


class Metered:
    """An app on a site, what its board wrote down, and what the kernel counted."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, site.podman.app(name)
        (self.port,) = free_ports(1)
        registry = site.podman.registry
        registry.push("metered", files={"www/index.html": b"x" * 5000}, tag="1")
        self.image = f"{registry.address}/metered:1"

    async def deploy(self, recipe: str, **more: object) -> None:
        text = recipe.format(image=self.image, port=self.port, work=WORK.format(turns=3000), **more)
        body = {"name": self.name, "files": {"compose.yml": text}, "boards": ["board"]}
        await self.site.lab.api("POST", "/apps", json=body)

    def log(self) -> list[Record]:
        """Every entry of the board's log, as another process sees it."""
        folder = self.site.board.state / "usage"
        if not folder.exists():
            return []
        log = peek(folder)
        try:
            return [read(entry) for _, entry in log.entries(0, log.size)]
        finally:
            log.close()

    def records(self, service: str = "") -> list[ContainerRecord]:
        found = [each for each in self.log() if isinstance(each, ContainerRecord) and each.app == self.name]
        return [each for each in found if service in ("", each.service)]

    def sums(self) -> dict[str, int]:
        """Processor time by parent, as it is written down."""
        found: dict[str, int] = defaultdict(int)
        for record in self.records():
            found[record.run.partition("-")[0]] += record.cpu_us or 0
        return dict(found)

    def counted(self) -> dict[str, int]:
        """The same as the kernel counts it now, of the containers that there are."""
        parents, found = Parents(), {}
        for each in self.inspect():
            parent = parents.find(each["Config"]["Labels"]["lichen.parent"])
            if parent is not None:
                found[each["Config"]["Labels"]["lichen.parent"].partition("_")[2]] = parent.look().cpu_us or 0
        return found

    def ids(self, service: str = "") -> list[str]:
        labels = [f"--filter=label=lichen.app={self.name}"]
        labels += [f"--filter=label=lichen.service={service}"] if service else []
        return self.site.podman.podman("ps", "--all", "--quiet", *labels).split()

    def inspect(self, service: str = "") -> list[dict[str, Any]]:
        ids, podman = self.ids(service), self.site.podman.podman
        found: list[dict[str, Any]] = json.loads(podman("container", "inspect", *ids)) if ids else []
        return found

    def are_down(self) -> bool:
        """Whether nothing of it runs, and all of conmon has gone."""
        if any(each["State"]["Running"] for each in self.inspect()):
            return False
        parents = Parents()
        found = [parents.find(each["Config"]["Labels"]["lichen.parent"]) for each in self.inspect()]
        return all(parent is None or parent.is_quiet() for parent in found)

    async def stop(self) -> None:
        await self.site.lab.api("POST", f"/apps/{self.name}/stop", json={})
        await self.site.lab.until(self.are_down, f"{self.name} is down", within_s=30, every_s=0.2)

    async def remove(self) -> None:
        await self.site.lab.api("DELETE", f"/apps/{self.name}", params={"volumes": "1"})
        await self.site.lab.until(lambda: not self.ids(), f"{self.name} is gone", within_s=30, every_s=0.2)

    def left(self) -> set[str]:
        """The cgroups of this board's containers."""
        return {name for name in Parents().names() if name.startswith(f"{self.site.board.id}_")}

    async def until_more(self, what: str) -> None:
        """Until more is written down."""
        known = len(self.records())
        await self.site.lab.until(lambda: len(self.records()) > known, what, within_s=30, every_s=0.2)

    def at_the_hub(self) -> int:
        """Processor time of this app as the hub has it."""
        sql = "SELECT coalesce(sum(cpu_us), 0) FROM usage_records WHERE app = ?"
        return int(self.site.lab.ask(self.site.lab.hub_dir / "hub.db", sql, self.name)[0][0])

    async def get(self) -> None:
        """Let the web server say something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_what_containers_used_is_written_down(short_path: Path, podman: Stand) -> None:
    async with Site.open(short_path, podman, host_network=True, usage=USAGE) as site:
        app = Metered(site, "metered")
        await app.deploy(RECIPE)
        until = site.lab.until
        await until(lambda: len(app.ids()) == CONTAINERS, "all are there", within_s=60, every_s=0.2)
        await until(lambda: app.records("web"), "the first period is over", within_s=30, every_s=0.2)
        before = app.records("web")[-1]
        await app.get()
        await until(lambda: app.records("web")[-1].seq > before.seq, "and the next", within_s=20)
        web = app.records("web")[-1]
        assert (web.net_tx or 0) > 5000
        assert (web.net_rx or 0) > 0
        assert web.mem_peak is None or web.mem_peak > 0
        assert (web.io_r is None) == (web.io_w is None)
        assert (web.mono0_ms, web.run) == (before.mono1_ms, before.run)
        hub = open_identity(site.board.state).document().hub
        assert (web.payer, web.workspace, web.order) == (hub, "default", 1)
        await until(lambda: app.records("near") and app.records("beside"), "all are told", within_s=60)
        for service in ("near", "beside"):  # on the board's network, and on that of web
            other = app.records(service)[-1]
            assert (other.net_rx, other.net_tx) == (None, None)
            assert other.cpu_us is not None
        *_, once = app.records("once")
        assert (once.ended, once.exit_code) == (True, 0)
        assert {each.run for each in app.records("once")} == {once.run}
        assert 0 < once.mono1_ms - app.records("once")[0].mono0_ms < 10_000
        await until(lambda: len({each.run for each in app.records("again")}) > 2, "starts are runs", 60)
        again = app.records("again")
        assert sum(each.ended for each in again) >= len({each.run for each in again}) - 1
        await app.stop()
        await until(lambda: app.sums() == app.counted(), "every microsecond is told", within_s=20)
        await _check_that_it_goes(app)


async def _check_that_it_goes(app: Metered) -> None:
    """No cgroup is left, everything is at the hub, and the log speaks of the board and of the orders."""
    site = app.site
    total = sum(app.sums().values())
    await app.remove()
    await site.lab.until(lambda: not app.left(), "no cgroup is left", within_s=15)
    assert sum(app.sums().values()) == total
    await site.lab.until(lambda: app.at_the_hub() == total, "the hub has it all", within_s=20)
    orders = [each for each in app.log() if isinstance(each, OrderRecord)]
    assert [each.accepted for each in orders] == [True] * len(orders)
    assert orders[0].generation == 1
    assert not any(isinstance(each, BoardRecord) for each in app.log()[:2])


async def test_one_that_died_while_the_agent_was_down_is_exact(short_path: Path, podman: Stand) -> None:
    async with Site.open(short_path, podman, host_network=True, usage=USAGE) as site:
        app = Metered(site, "down")
        await app.deploy(RECIPE)
        until = site.lab.until
        await until(lambda: app.records("web"), "it is written down", within_s=60, every_s=0.2)
        first = app.records("web")[-1]
        await site.board.kill()
        podman.podman("kill", "--signal=KILL", *app.ids("web"))
        await until(lambda: not app.inspect("web")[0]["State"]["Running"], "it is dead")
        await site.board.start()

        def ended() -> list[ContainerRecord]:
            return [each for each in app.records("web") if each.ended]

        await until(ended, "its end is written down", within_s=40, every_s=0.2)
        [last] = ended()
        assert (last.run, last.mono0_ms, last.exit_code) == (first.run, first.mono1_ms, 137)
        await until(lambda: app.records("web")[-1].run == f"{first.run}.2", "it runs again", within_s=20)
        await until(lambda: app.records("beside"), "and what shares its network", within_s=60, every_s=0.2)
        assert {each.net_rx for each in app.records("beside")} == {None}
        await app.stop()
        await until(lambda: app.sums() == app.counted(), "every microsecond is told", within_s=20)
        await app.remove()
        await until(lambda: not app.left(), "no cgroup is left", within_s=15)


async def test_a_death_for_lack_of_memory_is_in_the_log(short_path: Path, podman: Stand) -> None:
    async with Site.open(short_path, podman, usage=USAGE) as site:
        app = Metered(site, "eater")
        await app.deploy(EATER)
        await site.lab.until(
            lambda: any(each.ended for each in app.records()), "its end is written down", within_s=60
        )
        [record] = [each for each in app.records() if each.ended]
        assert (record.oom_kills, record.exit_code) == (1, 137)
        assert record.mem_peak is None or record.mem_peak > 8 * 1024 * 1024
        await app.remove()
        await site.lab.until(lambda: not app.left(), "no cgroup is left", within_s=15)


@pytest.mark.soak
async def test_after_random_crashes_the_records_add_up_to_the_counters(
    short_path: Path, podman: Stand
) -> None:
    moments = random.Random(int(os.environ.get("LICHEN_SEED", "5")))
    async with Site.open(short_path, podman, host_network=True, usage=USAGE) as site:
        app = Metered(site, "crash")
        await app.deploy(RECIPE)
        until = site.lab.until
        await until(lambda: len(app.ids()) == CONTAINERS, "all are there", within_s=60, every_s=0.2)
        for number in range(CRASHES):
            await asyncio.sleep(moments.uniform(0, PERIOD_S if SOAK else 4))
            await site.board.kill()
            if moments.random() < 0.5:
                podman.podman("kill", "--signal=KILL", app.ids("web")[0])
            await asyncio.sleep(moments.uniform(0, 1))
            await site.board.start()
            await app.until_more(f"it writes on after crash {number}")
        await app.stop()
        await until(lambda: app.sums() == app.counted(), "every microsecond is told", within_s=20)
        await _check_that_it_goes(app)
