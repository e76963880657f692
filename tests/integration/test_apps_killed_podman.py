"""The real agent, killed at a random moment of an update, over real Podman: the next one ends in the new or
in the old version, never in both or none, and whoever asks the app's port is answered all the time."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from agent.containers.proxy import Proxy
from support.hammer import Hammer
from support.lab import Board, Lab, free_ports
from support.podman import Stand, stand

SOAK = bool(os.environ.get("LICHEN_SOAK"))
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


class Site:
    """A hub and a board, both as processes, and the app of the board."""

    def __init__(self, lab: Lab, podman: Stand, board: Board) -> None:
        self.lab, self.podman, self.board = lab, podman, board
        self.name = podman.app("killed")
        (self.port,) = free_ports(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, podman: Stand) -> AsyncIterator[Site]:
        registry = podman.registry.address
        podman.config.policy.write_text(tomli_w.dumps({"plain_http": [registry]}))
        async with Lab(folder) as lab:
            with (lab.hub_dir / "hub.toml").open("a") as file:
                file.write("\n" + tomli_w.dumps({"registries": {"plain_http": [registry]}}))
            await lab.start_hub()
            containers = {"storage": str(podman.storage), "policy": str(podman.config.policy)}
            site = cls(lab, podman, await lab.add_board("board", containers=containers))
            await site.board.start()
            await lab.until(lambda: site.board.joined and site.is_known(), "the board has said what it is")
            try:
                yield site
            finally:
                if site.board.running:
                    await site.board.stop()
                await Proxy(site.board.state / "proxy").apply({})

    def is_known(self) -> bool:
        """Whether the hub knows for what machine to choose images."""
        sql = "SELECT 1 FROM boards WHERE id = ? AND json_extract(about, '$.arch') <> ''"
        return bool(self.lab.ask(self.lab.hub_dir / "hub.db", sql, self.board.id))

    async def deploy(self) -> None:
        self.podman.registry.push("killed", files={"www/index.html": b""}, tag="1")
        recipe = RECIPE.format(image=f"{self.podman.registry.address}/killed:1", port=self.port)
        files = {"compose.yml": recipe, ".env.sample": "WORD=one\n"}
        await self.lab.api("POST", "/apps", json={"name": self.name, "files": files, "boards": ["board"]})
        assert not await self.has_failed()

    async def has_failed(self) -> bool:
        """Once the last change has come to its end, and the board says that all is as it should be."""
        picture: dict[str, Any] = {}

        async def is_over() -> bool:
            picture.update(await self.lab.api("GET", f"/apps/{self.name}"))
            return bool(picture["is_over"]) and picture["boards"][0]["state"] in ("running", "failed")

        await self.lab.until(is_over, f"{self.name} has changed", within_s=60)
        return bool(picture["has_failed"])

    async def words(self) -> list[str]:
        """What the containers that run were made with."""
        running = self.podman.podman("ps", "--quiet", "--filter", f"label=lichen.app={self.name}").split()
        found = json.loads(self.podman.podman("container", "inspect", *running)) if running else []
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
    moments = random.Random(int(os.environ.get("LICHEN_SEED", "4")))
    async with Site.open(short_path, podman) as site:
        await site.deploy()
        podman.pin_bridge(f"{site.name}_default")
        good = "one"
        async with Hammer("127.0.0.1", site.port, clients=1) as hammer:
            for number, word in enumerate(WORDS):
                asked = word if word == "broken" else f"{word}-{number}"
                await site.lab.api("POST", f"/apps/{site.name}/deploy", json={"set": {"WORD": asked}})
                moment_s = moments.uniform(0, UPDATE_S)
                await asyncio.sleep(moment_s)
                await site.board.kill()
                await site.board.start()
                assert await site.has_failed() == (word == "broken")
                good = good if word == "broken" else asked

                async def is_settled(good: str = good) -> bool:
                    return await site.words() == [good, good]

                said = f"both services run {good}, killed after {moment_s:.2f} s"
                await site.lab.until(is_settled, said, within_s=30)
                await hammer.rounds(2)
                assert await hammer.ask() == good
            assert hammer.failures == []
        await site.lab.api("DELETE", f"/apps/{site.name}", params={"volumes": "1"})
        await site.lab.until(lambda: not podman.podman("ps", "--all", "--quiet"), "everything is gone")
