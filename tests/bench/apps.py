"""What apps cost a board: a real hub, a joined agent with a Podman of its own, a registry and haproxy.

Needs root, as a Podman of its own does.  What is measured, in this order: how long an app takes to come
up, what the agent takes while three of them run, what Podman takes beside it, and whether anybody
notices twenty updates.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import tomli_w

from agent.cgroups import Counters
from agent.containers.apps import PROXY
from agent.containers.haproxy import Haproxy
from agent.containers.proxy import Proxy
from bench import meter
from bench.board import SETTLE_S, ten_sensors
from bench.budget import Row
from support.hammer import Hammer
from support.lab import Board, Lab, free_ports
from support.podman import Stand, stand

CHECK_EVERY_S = 60
LOOK_EVERY_S = 0.02
APPS = ("house", "garden", "shed")
WEB = "echo $$WORD > /www/index.html; trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"
RECIPE = """\
services:
  web:
    image: {image}
    command: ["sh", "-c", "{command}"]
    environment: [WORD]
    ports: ["127.0.0.1:{port}:80"]
    stop_grace_period: 3s
    healthcheck:
      test: ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/"]
      interval: {interval}s
      timeout: 5s
    deploy: {{update_config: {{order: {order}}}}}
"""


async def measure(folder: Path, seconds: float, updates: int, deploys: int) -> list[Row]:
    """Every row about apps; takes about ``seconds`` and two minutes more."""
    with stand() as podman:
        async with Lab(folder) as lab:
            site = await _open_site(lab, podman)
            try:
                rows = [await _deploys(site, deploys)]
                for app in APPS:
                    await site.deploy(app, order="start-first" if app == APPS[-1] else "stop-first")
                rows += await _at_rest(site, seconds)
                rows += await _updates(site, updates)
                for app in APPS:
                    await site.undeploy(app)
            finally:
                await site.close()
            return rows


class Site:
    """The hub, its one board, and where the apps of it answer."""

    def __init__(self, lab: Lab, podman: Stand, board: Board) -> None:
        self.lab, self.podman, self.board = lab, podman, board
        self.image = ""
        self.ports: dict[str, int] = {}

    async def deploy(self, app: str, *, order: str = "stop-first") -> float:
        """Deploy a new app, and wait until the hub knows that it runs; how long after its answer."""
        (self.ports[app],) = free_ports(1)
        recipe = RECIPE.format(
            image=self.image, command=WEB, port=self.ports[app], interval=CHECK_EVERY_S, order=order
        )
        files = {"compose.yml": recipe, ".env.sample": "WORD=first\n"}
        await self.lab.api("POST", "/apps", json={"name": app, "files": files, "boards": ["bench"]})
        return await self.over(app)

    async def update(self, app: str, word: str) -> float:
        """Let it say another word; how long that took after the hub's answer."""
        await self.lab.api("POST", f"/apps/{app}/deploy", json={"set": {"WORD": word}})
        return await self.over(app)

    async def undeploy(self, app: str) -> None:
        """Take it off the board."""
        await self.lab.api("DELETE", f"/apps/{app}", params={"volumes": "1"})
        await self.over(app)

    async def over(self, app: str) -> float:
        """Wait until a change has come to its end, a good one; how long that took."""
        began, picture = time.monotonic(), dict[str, Any]()

        async def is_over() -> bool:
            picture.update(await self.lab.api("GET", f"/apps/{app}"))
            return bool(picture["is_over"])

        await self.lab.until(is_over, f"{app} has changed", within_s=60, every_s=LOOK_EVERY_S)
        took_s = time.monotonic() - began
        assert not picture["has_failed"], f"{app}: {picture}\n{self.lab.logs()}"
        return took_s

    async def proxy_pids(self) -> list[int]:
        """The processes of haproxy."""
        haproxy = Haproxy(self.board.state / PROXY, died=lambda: None)
        try:
            crew = await haproxy.find()
        finally:
            haproxy.close()
        assert crew is not None, "one of the apps is behind it"
        return [crew.master, *crew.workers]

    async def close(self) -> None:
        """Stop what outlives an agent."""
        await self.board.stop()
        await Proxy(self.board.state / PROXY).apply({})
        await self.lab.hub.stop(within_s=30)


async def _open_site(lab: Lab, podman: Stand) -> Site:
    registry = podman.registry.address
    with (lab.hub_dir / "hub.toml").open("a") as file:
        file.write("\n" + tomli_w.dumps({"registries": {"plain_http": [registry]}}))
    podman.config.policy.write_text(tomli_w.dumps({"plain_http": [registry]}))
    await lab.start_hub()
    containers = {"storage": str(podman.storage), "policy": str(podman.config.policy)}
    board = await lab.add_board("bench", sensors=ten_sensors(lab.dir), containers=containers)
    board.env |= {"PYTHONPATH": str(_without_rich(lab.dir))}
    site = Site(lab, podman, board)
    podman.registry.push("bench", tag="1")
    site.image = f"{registry}/bench:1"
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first readings are stored")
    return site


def _without_rich(folder: Path) -> Path:
    """podman-py loads rich where it finds it, which the hub brings into this environment and no board has."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\n\nsys.modules['rich'] = None\n")
    return site


# --- how long --------------------------------------------------------------------------------------


async def _deploys(site: Site, count: int) -> Row:
    """A first one pulls the image; what comes after it finds it there."""
    await site.deploy("first")
    took_s = []
    for number in range(count):
        took_s.append(await site.deploy(f"next{number}"))
        await site.undeploy(f"next{number}")
    await site.undeploy("first")
    return Row(
        "app: deploy to running, image present",
        statistics.median(took_s),
        "s",
        2.0,
        note="from the hub's answer until it knows that the app runs, the health gate included (it opens"
        f" with the first check, 0.25 s after the start); median of {count}:"
        f" {', '.join(f'{one:.2f}' for one in sorted(took_s))}",
    )


# --- how much --------------------------------------------------------------------------------------


async def _at_rest(site: Site, seconds: float) -> list[Row]:
    """Watch whole rounds of checks, wherever in one it begins."""
    pid = site.board.pid
    watched_s = max(1, round(seconds / CHECK_EVERY_S)) * CHECK_EVERY_S
    await asyncio.sleep(SETTLE_S)
    crew = await site.proxy_pids()
    with Conmons.of(site.podman) as conmons:

        def clocks() -> list[float]:
            proxy_s = sum(map(meter.cpu_s, crew))
            return [time.monotonic(), meter.cpu_s(pid), meter.children_cpu_s(pid), conmons.cpu_s(), proxy_s]

        before = clocks()
        await asyncio.sleep(watched_s)
        took_s, *cpu_s = (now - then for now, then in zip(clocks(), before, strict=True))
    own, service, conmon, proxy = (used / took_s * 3600 for used in cpu_s)
    return [
        Row(
            "agent over TLS, 10 sensors, three apps: RSS",
            meter.rss_mb(pid),
            "MB",
            43,
            37,
            note="one of the apps behind haproxy, after some deployments and removals; as on a board, where"
            " podman-py finds no rich to load, which takes 4 MB; MB of 2**20 bytes",
        ),
        Row(
            f"agent, three apps, checks every {CHECK_EVERY_S} s: CPU per hour",
            own,
            "s",
            6.0,
            note=f"schedstat of all threads over {took_s:.0f} s, 10 sensors at 10 s and reports included",
        ),
        Row(
            "Podman and haproxy beside it: CPU per hour",
            service + conmon + proxy,
            "s",
            note=f"{service:.1f} s of Podman's service and its children, {proxy:.1f} s of haproxy, and"
            f" {conmon:.1f} s in the cgroup of conmon, which runs the checks and cleans up behind them",
        ),
    ]


class Conmons:
    """The cgroups in which the conmons of all containers are, with what these run beside containers."""

    def __init__(self, groups: list[Counters]) -> None:
        self._groups = groups

    @classmethod
    @contextlib.contextmanager
    def of(cls, podman: Stand) -> Iterator[Self]:
        """Those of the containers that run now."""
        with contextlib.ExitStack() as stack:
            pids = {
                psutil.Process(int(pid)).ppid() for pid in podman.podman("ps", "--format={{.Pid}}").split()
            }
            # Podman puts them into one, systemd gives one to each.
            one_of_each = {(meter.PROC / str(pid) / "cgroup").read_text(): pid for pid in pids}
            groups = [Counters.open(pid) for pid in one_of_each.values()]
            for group in groups:
                stack.callback(group.close)
            yield cls(groups)

    def cpu_s(self) -> float:
        """Seconds on a processor; NaN where nobody counts them."""
        used = [group.look().cpu_us for group in self._groups]
        return math.fsum(math.nan if each is None else each for each in used) / 1e6


# --- who notices -----------------------------------------------------------------------------------


async def _updates(site: Site, count: int) -> list[Row]:
    app, took_s = APPS[-1], []
    async with Hammer("127.0.0.1", site.ports[app]) as hammer:
        await hammer.rounds(100)
        for number in range(count):
            took_s.append(await site.update(app, f"word {number}"))
            await hammer.rounds(1)
    assert hammer.answers[f"word {count - 1}"], "nobody saw the last one"
    return [
        Row(
            f"app: failed requests over {count} start-first updates",
            len(hammer.failures),
            "",
            0,
            note=f"of {len(hammer.took_ms):,}, each by a connection of its own, 4 clients at a time, through"
            f" haproxy; an update took {statistics.median(took_s):.1f} s",
        ),
        Row(
            "app: a request meanwhile, p50",
            statistics.median(hammer.took_ms),
            "ms",
            note=f"the slowest took {max(hammer.took_ms):.0f} ms; clients and containers share processors",
        ),
    ]
