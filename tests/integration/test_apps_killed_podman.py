"""The real agent, killed at a random moment of an update, over real Podman: the next one ends in the new or
in the old version, never in both or none, and whoever asks the app's port is answered all the time."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hammer import Hammer
from support.lab import free_ports
from support.podman import Stand, stand
from support.site import Site

SOAK = bool(os.environ.get("LICHEN_SOAK"))
SEED = int(os.environ.get("LICHEN_SEED", "4"))
pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3600 if SOAK else 180)]
WORDS = ["two", "broken"] * (10 if SOAK else 1)
UPDATE_S = 4.0
"""About how long an update takes, or goes on until it is given up."""
RECIPE = """
services:
  web:
    image: {image}
    command: ["sh", "-c", "trap 'exit 0' TERM; echo $$WORD >/www/index.html; httpd -f -p 80 -h /www & wait"]
    environment: [WORD]
    ports: ["127.0.0.1:{port}:80"]
    depends_on: [db]
    healthcheck: {{test: wget -q -O /dev/null http://127.0.0.1/}}
    stop_grace_period: 2s
    deploy: {{update_config: {{order: start-first}}}}
  db:
    image: {image}
    command: ["sh", "-c", "test $$WORD = broken && exit 3; trap 'exit 0' TERM; sleep 1000 & wait"]
    environment: [WORD]
    volumes: ["data:/data"]
    stop_grace_period: 2s
    deploy: {{update_config: {{monitor: 1s}}}}
volumes: {{data: {{}}}}
"""


class Killed:
    """An app on a site, whose agent dies again and again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = site.podman.app("killed")
        (self.port,) = free_ports(1)

    async def deploy(self) -> None:
        registry = self.site.podman.registry
        registry.push("killed", files={"www/index.html": b""}, tag="1")
        recipe = RECIPE.format(image=f"{registry.address}/killed:1", port=self.port)
        body = {
            "name": self.name,
            "files": {"compose.yml": recipe, ".env.sample": "WORD=one\n"},
            "boards": ["board"],
        }
        await self.site.lab.api("POST", "/apps", json=body)
        assert not await self.has_failed()

    async def has_failed(self) -> bool:
        return bool((await self.site.until_over(self.name))["has_failed"])

    async def words(self) -> list[str]:
        """What the containers that run were made with."""
        podman = self.site.podman.podman
        running = podman("ps", "--quiet", "--filter", f"label=lichen.app={self.name}").split()
        found = json.loads(podman("container", "inspect", *running)) if running else []
        return [
            value.removeprefix("WORD=")
            for each in found
            for value in each["Config"]["Env"]
            if value.startswith("WORD=")
        ]


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        yield made


async def test_an_agent_killed_in_an_update_ends_in_the_new_or_the_old_version(
    short_path: Path, podman: Stand
) -> None:
    print(f"LICHEN_SEED={SEED}")
    moments = random.Random(SEED)
    async with Site.open(short_path, podman) as site:
        app = Killed(site)
        await app.deploy()
        podman.pin_bridge(f"{app.name}_default")
        good = "one"
        async with Hammer("127.0.0.1", app.port, clients=1) as hammer:
            for number, word in enumerate(WORDS):
                asked = word if word == "broken" else f"{word}-{number}"
                await site.lab.api("POST", f"/apps/{app.name}/deploy", json={"set": {"WORD": asked}})
                moment_s = moments.uniform(0, UPDATE_S)
                print(f"{number}: {asked}, killed after {moment_s:.3f} s")
                await asyncio.sleep(moment_s)
                await site.board.kill()
                await site.board.start()
                assert await app.has_failed() == (word == "broken")
                good = good if word == "broken" else asked

                async def is_settled(good: str = good) -> bool:
                    return await app.words() == [good, good]

                said = f"both services run {good}, killed after {moment_s:.2f} s"
                await site.lab.until(is_settled, said, within_s=30)
                await hammer.rounds(2)
                assert await hammer.ask() == good
            assert hammer.failures == []
        await site.lab.api("DELETE", f"/apps/{app.name}", params={"volumes": "1"})
        await site.lab.until(lambda: not podman.podman("ps", "--all", "--quiet"), "everything is gone")
