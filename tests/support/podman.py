"""A real Podman for tests, which nothing else on the machine notices.

`Stand` is a storage of its own below a temporary folder, as ``containers.storage`` makes one for an agent:
images, volumes, networks, addresses and state are apart from the user's and from those of other
workers.  One thing the kernel shares: names of apps that run at the same time on one machine must
differ, for netavark names its chains of iptables after networks.  `Stand.app` gives such names.

    with stand() as podman:
        reference = podman.registry.push("web", command=["httpd", "-f", "-h", "/www"])
        async with podman.engine() as engine:
            await engine.pull(reference, plain_http=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Containers
from agent.containers import daemon
from agent.containers.podman import Podman, open_engine
from agent.parents import Parents
from support.registry import Registry, registry


@dataclass
class Stand:
    """A Podman of our own and a registry beside it."""

    folder: Path
    registry: Registry
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def config(self) -> Containers:
        """What an agent's configuration has to say to use it."""
        return Containers(storage=self.storage, policy=self.folder / "policy.toml")

    def app(self, name: str = "app") -> str:
        """A name that no other test has now."""
        return f"{name}{os.getpid()}-{next(self._numbers)}"

    @asynccontextmanager
    async def engine(self, **options: Any) -> AsyncIterator[Podman]:
        """The real edge on it."""
        async with open_engine(self.config, self.folder / "run", **options) as engine:
            yield engine

    def podman(self, *arguments: str) -> str:
        """What the command podman says, on the same storage."""
        environment = {**os.environ, "CONTAINERS_CONF": str(self.configuration)}
        command = ["podman", *daemon.place(self.storage), *arguments]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    @property
    def configuration(self) -> Path:
        """What `podman` has to be told of this machine, as `agent.containers.daemon` found it out."""
        file = self.folder / "containers.conf"
        if not file.exists():
            file.write_bytes(daemon.configuration(self.storage))
        return file

    def clear(self) -> None:
        """Remove all containers, volumes, networks and secrets; images stay.  And the cgroups that were made
        for containers: whoever would have done it may have been killed."""
        containers = self.podman(
            "ps", "--all", '--format={{.ID}} {{index .Labels "lichen.parent"}}'
        ).splitlines()
        if containers:
            self.podman("rm", "--all", "--force", "--volumes", "--time=0")
        parents = Parents()
        for parent in filter(None, (parents.find(line.partition(" ")[2]) for line in containers)):
            parents.remove(parent)
        parents.remove_house()
        # A look at its files first: each command is a process, and finds nothing most of the time.
        if any(each.is_dir() for each in (self.storage / "volumes").glob("*")):
            self.podman("volume", "rm", "--all", "--force")
        if any((self.storage / "networks").glob("*.json")):
            self.podman("network", "prune", "--force")
        if (self.storage / "secrets/secrets.json").exists():
            self.podman("secret", "rm", "--all")

    def pin_bridge(self, network: str) -> None:
        """Keep the hardware address of a network's bridge, as udev does on a board (99-default.link).

        Else it is that of a port, changes when that goes, and whoever asks for a name just then waits for
        its resolver to ask again.
        """
        [about] = json.loads(self.podman("network", "inspect", network))
        bridge = about["network_interface"]
        address = Path(f"/sys/class/net/{bridge}/address").read_text().strip()
        subprocess.run(["ip", "link", "set", "dev", bridge, "address", address], check=True)

    def kill_service(self, engine: Podman) -> None:
        """End the service as a crash does, in whatever it is doing."""
        assert engine.service is not None
        assert engine.service.pid, "it does not run, and 0 would be all of us"
        os.kill(engine.service.pid, signal.SIGKILL)

    def lose_layer(self, reference: str) -> None:
        """What a power cut in a pull leaves: an image whose uppermost layer is not there."""
        [image] = json.loads(self.podman("image", "inspect", reference))
        images = json.loads((self.storage / "overlay-images/images.json").read_text())
        [top] = [each["layer"] for each in images if each["id"] == image["Id"]]
        file = self.storage / "overlay-layers/layers.json"
        layers = json.loads(file.read_text())
        file.write_text(json.dumps([each for each in layers if each["id"] != top]))

    def close(self) -> None:
        """Remove everything, from the kernel, too."""
        self.clear()
        self.podman("image", "rm", "--all", "--force")
        sweep(self.storage)
        shutil.rmtree(self.storage, ignore_errors=True)


def sweep(storage: Path) -> None:
    """Take away what is left of a storage outside of its folder: its mounts, and its state in memory."""
    state = Path(next(each for each in daemon.place(storage) if "runroot" in each).partition("=")[2])
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):  # innermost first
        if not {storage, state}.isdisjoint(Path(point).parents):
            subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(state, ignore_errors=True)


@contextlib.contextmanager
def stand(*, login: bool = False) -> Iterator[Stand]:
    """A `Stand`, removed without a trace at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="lichen-") as name,
        registry(Path(name) / "registry", login=login) as running,
    ):
        made = Stand(Path(name), running)
        try:
            yield made
        finally:
            made.close()


async def until(found: Any, *, within_s: float = 10) -> Any:
    """Wait until the coroutine function ``found`` returns something true, and return that."""
    async with asyncio.timeout(within_s):
        while True:
            result = await found()
            if result:
                return result
            await asyncio.sleep(0.02)
