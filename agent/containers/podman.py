"""The Podman edge for real: `agent.containers.engine.Engine` by podman-py, in threads of its own.

Made by the agent with `open_engine` once a board has apps; podman-py costs 3 MB and is imported with
the first call.  Nothing else in the house imports it, and nothing here decides anything.

podman-py blocks, so calls run in threads, each with a client of its own.  Two threads answer quick
questions; what may take long (pulls, removals) has others, so that looking never waits for it.  Stops and
checks, which may take as long as containers like, have their own, so that nothing else waits for those.
Every call is bounded: by its time limit, a pull by the time without a word of it.  A caller that is
cancelled leaves; a pull is then cut, everything else ends by its limit.

Requests are made by podman-py's client rather than by its models, whose pull swallows errors and whose
create knows half of a specification.  The path is pinned to v4.0.0, for which 5.x answers in the words
of 4.x (`agent.containers.answers` reads them).  No connection is kept, no stream of events or logs is
ever held: the service may go as soon as it has answered.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import json
import os
import socket
import sys
import threading
import types
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from agent.config import Containers
from agent.containers import answers, daemon, greeting
from agent.containers.client import (
    CHANGE_S,
    CONNECT_S,
    Client,
    create,
    find_image,
    init,
    leave,
    list_containers,
    list_images,
    path_of,
    read_log,
    remove_container,
    remove_image,
    run_check,
    start,
)
from agent.containers.engine import LABEL_APP, Check, Container, Image, Info, Login, Thing
from agent.containers.pull import Pull
from agent.wire.apps import LogLine, Progress
from agent.wire.errors import LinkDown, Refused
from agent.wire.order import MAX_FILE_BYTES

T = TypeVar("T")

SOCKETS = (Path("/run/lichen/podman.sock"), Path("/run/podman/podman.sock"))
VERSION = "4.0.0"
HINT = "look at it: systemctl status podman.socket podman.service"
STALL_S = 120.0
QUICK_THREADS = 2
SLOW_THREADS = 4
STOP_THREADS = 8
CHECK_THREADS = 4
MAX_LINES = 10_000
"""Bytes that Podman takes in a secret."""


@asynccontextmanager
async def open_engine(
    config: Containers, runtime_dir: Path, *, stall_s: float = STALL_S, sockets: Sequence[Path] = SOCKETS
) -> AsyncIterator[Podman]:
    """The engine of this board: by the socket configured, by systemd's, or by a service of our own."""
    named = config.socket
    if named is None and config.storage is None:
        named = next((path for path in sockets if _answers(path)), None)
    if named is not None:
        with contextlib.closing(Podman(named, stall_s=stall_s)) as podman:
            yield podman
        return
    async with daemon.serve(runtime_dir, config.storage) as service:
        with contextlib.closing(Podman(service.path, service=service, stall_s=stall_s)) as podman:
            yield podman


def _answers(path: Path) -> bool:
    """Whether somebody listens there who lets us in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Podman:
    """An `Engine`; `open_engine` makes one."""

    def __init__(
        self, path: Path, *, service: daemon.Service | None = None, stall_s: float = STALL_S
    ) -> None:
        self.service = service
        """Ours, where no system service is there."""
        self._path = path
        self._stall_s = stall_s
        self._quick = concurrent.futures.ThreadPoolExecutor(QUICK_THREADS, "podman")
        self._slow = concurrent.futures.ThreadPoolExecutor(SLOW_THREADS, "podman-slow")
        self._stops = concurrent.futures.ThreadPoolExecutor(STOP_THREADS, "podman-stop")
        self._checks = concurrent.futures.ThreadPoolExecutor(CHECK_THREADS, "podman-check")
        self._clients = threading.local()
        self._importing = threading.Lock()
        self._pulls: set[Pull] = set()

    def close(self) -> None:
        """Cut what goes on, and let the threads end."""
        for pull in self._pulls:
            pull.cut()
        for pool in (self._quick, self._slow, self._stops, self._checks):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self,
        work: Callable[[Client], T],
        *,
        slow: bool = False,
        pool: concurrent.futures.ThreadPoolExecutor | None = None,
    ) -> T:
        """What ``work`` returns, with a client, in a thread."""
        if self.service is not None:
            self.service.be_ready()
        pool = pool or (self._slow if slow else self._quick)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(self._client()))
        except LinkDown as error:
            why = self.service.explain() if self.service is not None else ""
            if error.code != "podman-down" or not why:
                raise
            raise LinkDown(f"Podman's service does not start: {why}", code=error.code) from error

    def _client(self) -> Client:
        """That of this thread: a requests.Session must not be shared."""
        if not hasattr(self._clients, "own"):
            with self._importing:
                connect = _import_client()
            api = connect(base_url=f"unix://{self._path}", version=VERSION)
            # A kept connection would be cut in the middle of a request when the idle service ends.
            api.headers["Connection"] = "close"
            self._clients.own = Client(api, self._path, "" if self.service else HINT)
        client: Client = self._clients.own
        return client

    # --- looking

    async def info(self) -> Info:
        said = await self._ask(lambda client: client.get("asking Podman what it is", "/info"))
        return answers.read_info(said, os.uname().machine)

    async def containers(self) -> Sequence[Container]:
        return await self._ask(list_containers)

    async def find_image(self, reference: str) -> Image | None:
        return await self._ask(lambda client: find_image(client, reference))

    async def images(self) -> Sequence[Image]:
        return await self._ask(list_images)

    async def networks(self) -> Sequence[Thing]:
        said = await self._ask(lambda client: client.get("listing networks", "/networks/json"))
        return answers.read_things(said or [])

    async def volumes(self) -> Sequence[Thing]:
        said = await self._ask(lambda client: client.get("listing volumes", "/volumes/json"))
        return answers.read_things(said or [])

    async def secrets(self) -> Sequence[Thing]:
        said = await self._ask(lambda client: client.get("listing secrets", "/secrets/json"))
        things = [answers.read_secret(each) for each in said or []]
        return [thing for thing in things if LABEL_APP in thing.labels]

    # --- images

    async def pull(
        self,
        reference: str,
        *,
        login: Login | None = None,
        plain_http: bool = False,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> Image:
        loop = asyncio.get_running_loop()
        pull = Pull(
            reference,
            login,
            plain_http,
            self._stall_s,
            lambda progress: loop.call_soon_threadsafe(told, progress),
        )
        self._pulls.add(pull)
        try:
            return await self._ask(pull.run, slow=True)
        finally:
            pull.cut()
            self._pulls.discard(pull)

    async def remove_image(self, id: str, *, force: bool = False) -> None:
        await self._ask(lambda client: remove_image(client, id, force=force), slow=True)

    # --- what containers need

    async def create_network(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        internal: bool = False,
        ipv6: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None:
        body: dict[str, Any] = {
            "name": name,
            "driver": "bridge",
            "labels": dict(labels),
            "internal": internal,
            "ipv6_enabled": ipv6,
            "dns_enabled": True,
            # Podman's own podmanN is taken from what exists, which two networks can do at once.
            "network_interface": f"lichen-{zlib.crc32(f'{self._path}:{name}'.encode()):08x}",
        }
        if subnet:
            body["subnets"] = [{"subnet": subnet, **({"gateway": gateway} if gateway else {})}]
        await self._post(f"making the network {name}", "/networks/create", body)

    async def create_volume(
        self, name: str, labels: Mapping[str, str], options: Mapping[str, str] | None = None
    ) -> None:
        body = {"Name": name, "Labels": dict(labels), "Options": dict(options or {})}
        await self._post(f"making the volume {name}", "/volumes/create", body)

    async def create_secret(self, name: str, content: bytes, labels: Mapping[str, str]) -> None:
        what = f"making the secret {name}"
        if not 0 < len(content) <= MAX_FILE_BYTES:
            raise Refused(
                f"{what}: it has {len(content)} bytes, Podman takes 1 to {MAX_FILE_BYTES}", code="engine"
            )
        # Secrets have labels since 4.5; what their driver does not know it keeps.
        params = {"name": name, "driver": "file", "driveropts": json.dumps(dict(labels))}
        await self._ask(
            lambda client: client.ask("POST", what, "/secrets/create", params=params, data=content)
        )

    async def remove_network(self, name: str) -> None:
        await self._remove(f"removing the network {name}", f"/networks/{path_of(name)}")

    async def remove_volume(self, name: str) -> None:
        await self._remove(f"removing the volume {name}", f"/volumes/{path_of(name)}")

    async def remove_secret(self, name: str) -> None:
        await self._remove(f"removing the secret {name}", f"/secrets/{path_of(name)}")

    # --- containers

    async def create(self, body: Mapping[str, Any]) -> str:
        return await self._ask(lambda client: create(client, body))

    async def init(self, id: str) -> int:
        return await self._ask(lambda client: init(client, id))

    async def start(self, id: str) -> None:
        await self._ask(lambda client: start(client, id))

    async def stop(self, id: str, grace_s: float) -> None:
        await self._ask(
            lambda client: client.ask(
                "POST",
                f"stopping {id}",
                f"/containers/{path_of(id)}/stop",
                params={"timeout": round(grace_s)},
                limit_s=grace_s + CHANGE_S,
            ),
            pool=self._stops,
        )

    async def remove(self, id: str) -> None:
        await self._ask(lambda client: remove_container(client, id), slow=True)

    async def check(self, id: str) -> Check:
        return await self._ask(lambda client: run_check(client, id), pool=self._checks)

    async def connect(self, network: str, id: str, aliases: Sequence[str]) -> None:
        body = {"container": id, "aliases": list(aliases)}
        await self._post(f"connecting {id} to {network}", f"/networks/{path_of(network)}/connect", body)

    async def disconnect(self, network: str, id: str) -> None:
        what = f"disconnecting {id} from {network}"
        try:
            await self._post(what, f"/networks/{path_of(network)}/disconnect", {"Container": id})
        except Refused as error:
            if "is not connected" not in str(error):
                raise

    async def greet(self, addresses: Collection[str]) -> None:
        greeting.greet(addresses)

    async def leave(self, network: str, id: str) -> None:
        await self._ask(lambda client: leave(client, network, id))

    async def logs(
        self, id: str, *, tail: int | None = None, since_ms: int | None = None
    ) -> Sequence[LogLine]:
        params: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": True}
        params["tail"] = min(MAX_LINES if tail is None else tail, MAX_LINES)
        if since_ms is not None:
            params["since"] = since_ms // 1000
        lines = await self._ask(lambda client: read_log(client, id, params))
        # Podman counts in whole seconds.
        return [line for line in lines if since_ms is None or (line.at_ms or 0) >= since_ms // 1000 * 1000]

    async def _post(self, what: str, path: str, body: object) -> None:
        await self._ask(lambda client: client.post(what, path, body))

    async def _remove(self, what: str, path: str, **params: Any) -> None:
        await self._ask(lambda client: client.delete(what, path, params), slow=True)


def _import_client() -> Any:
    """The class of podman-py's HTTP client, for 3 MB.

    It would be 7 MB with what its packages load besides (models, archives), with what requests looks for
    proxies and authorities with, which a socket has not, and guesses the encoding of a body with, which
    Podman never leaves to guess.  So while it is loaded other things have their names; whoever else wants
    them gets the real ones.
    """
    guesser = types.ModuleType("charset_normalizer")
    guesser.__dict__.update(__version__="3.0.0", detect=lambda body: {"encoding": "utf-8"})
    proxies = types.ModuleType("urllib.request")
    proxies.__dict__.update(dict.fromkeys(("getproxies", "getproxies_environment"), dict))
    proxies.__dict__.update(dict.fromkeys(("proxy_bypass", "proxy_bypass_environment"), lambda host: True))
    proxies.__dict__["parse_http_list"] = lambda text: text.split(",")
    versions = types.ModuleType("importlib.metadata")
    versions.__dict__["version"] = lambda name: ""  # urllib3 asks for that of h2, once somebody wants HTTP/2
    authorities = types.ModuleType("certifi")
    authorities.__dict__["where"] = lambda: ""
    stand_ins = (guesser, proxies, versions, authorities)
    ours = [each for each in stand_ins if sys.modules.setdefault(each.__name__, each) is each]
    for name in ("podman", "podman.api"):
        found = importlib.util.find_spec(name)
        assert found is not None, "it is installed with the agent"
        if name not in sys.modules:
            ours.append(importlib.util.module_from_spec(found))
            sys.modules[name] = ours[-1]
    try:
        from podman.api.client import APIClient
    finally:
        for each in ours:
            del sys.modules[each.__name__]
    return APIClient
