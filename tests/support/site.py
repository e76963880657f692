"""A hub and a board as processes, as in the field, and a real Podman under the board.

    async with Site.open(short_path, podman) as site:
        await site.lab.api("POST", "/apps", json={"name": name, "files": files, "boards": [site.board.name]})
        picture = await site.until_over(name)

The name of an app is to be one of `Stand.app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import tomli_w

from agent.containers.proxy import Proxy
from agent.parents import Parents
from support.lab import Board, Lab
from support.podman import Stand


class Site:
    """See the module."""

    def __init__(self, lab: Lab, podman: Stand, board: Board) -> None:
        self.lab, self.podman, self.board = lab, podman, board

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, podman: Stand, *registries: str, host_network: bool = False, **config: Any
    ) -> AsyncIterator[Site]:
        """``registries`` have no TLS, and neither has that of the stand; ``config`` is the board's."""
        plain_http = {"plain_http": [podman.registry.address, *registries]}
        policy = {**plain_http, "host_network": host_network}
        podman.config.policy.write_text(tomli_w.dumps(policy))
        async with Lab(folder) as lab:
            with (lab.hub_dir / "hub.toml").open("a") as file:
                file.write("\n" + tomli_w.dumps({"registries": plain_http}))
            await lab.start_hub()
            containers = {"storage": str(podman.storage), "policy": str(podman.config.policy)}
            site = cls(lab, podman, await lab.add_board("board", containers=containers, **config))
            await site.board.start()
            await lab.until(lambda: site.board.joined and site.is_known(), "the board has said what it is")
            try:
                yield site
            finally:
                if site.board.running:
                    await site.board.stop()
                await Proxy(site.board.state / "proxy").apply({})
                if site.board.joined:
                    sweep(site.board.id)

    def is_known(self) -> bool:
        """Whether the hub knows for what machine to choose images."""
        sql = "SELECT 1 FROM boards WHERE id = ? AND json_extract(about, '$.arch') <> ''"
        return bool(self.lab.ask(self.lab.hub_dir / "hub.db", sql, self.board.id))

    async def until_over(self, app: str) -> dict[str, Any]:
        """The app once its last change is over, and the board says that all is as it should be."""
        picture: dict[str, Any] = {}

        async def is_over() -> bool:
            picture.update(await self.lab.api("GET", f"/apps/{app}"))
            return bool(picture["is_over"]) and picture["boards"][0]["state"] in ("running", "failed")

        await self.lab.until(is_over, f"{app} has changed", within_s=60)
        return picture


def sweep(board: str) -> None:
    """Remove the cgroups that an agent would have removed after its next start."""
    parents = Parents()
    mine = (name for name in parents.names() if name.startswith(f"{board}_"))
    for parent in filter(None, map(parents.find, mine)):
        parents.remove(parent)
    parents.remove_house()
