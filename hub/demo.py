"""`lichen-hub demo`: a hub, its broker and this machine as a board, in one directory.

What `make run` runs.  It drives the same commands that an operator and a technician would
type: init, run, api-token, a join file, `lichen-agent run`; so it takes the real path from the
one-time token on.  It owns two child processes and the text on the terminal, never their
state: everything below DIR is theirs, and a second start finds the same board again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import tomli_w

from agent.base.files import write_file
from agent.base.lock import held
from agent.wire.errors import ConfigError, LichenError, LinkDown, Refused
from hub.cli.client import Hub, Login, connect, load_login, save_login

REPORT_S = 2
USAGE_S = 60
START_WITHIN_S = 60
STOP_WITHIN_S = 2.5
LOG_LINES = 15
LAST_PORT = 65535 - 2
REGISTRY = f"127.0.0.1:{os.environ.get('REGISTRY_PORT', '8425')}"
"""Where `make demo-image` puts the image of the app that the guide deploys; it answers without TLS."""


RATES = """\
# What the demo's hub asks for what is used: an example, to be changed and set again with
#   lichen rate set .run/rates.toml
name = "example"
currency = "EUR"
valid_from = "2026-01-01"

[prices]
cpu_hour = "0.02"
memory_gib_hour = "0.004"
network_in_gb = "0.01"
network_out_gb = "0.05"
io_read_gb = "0.01"
io_write_gb = "0.02"
reading = "0.00001"
"""
"""In force from before any board was made, so that everything has a price."""


class Place:
    """Where the demo keeps things, and the commands that make them."""

    def __init__(self, directory: Path, port: int) -> None:
        self.dir = directory.absolute()
        self.lock = self.dir / "run.lock"
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.hub = self.dir / "hub"
        self.agent_config = self.dir / "agent" / "agent.toml"
        self.agent_state = self.dir / "agent" / "state"
        self.policy = self.dir / "agent" / "policy.toml"
        self.rates = self.dir / "rates.toml"
        self.login = self.dir / "cli.toml"
        self.password = self.dir / "password"


async def demo(directory: Path, port: int) -> None:
    """Bring everything up, say where it is, and run until told to stop."""
    place = Place(directory, port)
    _check_range(port)
    place.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Before anything is written: a second one would move the ports of the first under its feet.
    with held(place.lock, "make run"):
        _check_ports(port)
        await _run(place)


async def _run(place: Place) -> None:
    began_ms = time.time_ns() // 1_000_000
    moved = await _make_hub(place)
    _allow_registry(place.hub / "hub.toml", "registries")
    hub_argv = ["lichen-hub", "run", "--dir", str(place.hub)]
    agent_argv = ["lichen-agent", "run", "--config", str(place.agent_config)]
    async with asyncio.TaskGroup() as group, _child(group, "hub", hub_argv, place.dir):
        token = await _log_in(place)
        async with connect(place.url, token=token) as hub:
            await _set_rates(place, hub)
            await _make_board(place, hub, moved)
            async with _child(group, "agent", agent_argv, place.dir):
                _say("waiting for the first reading ...")
                await _until("the first reading is stored", lambda: _has_readings(hub, began_ms))
                await _welcome(place, time.time_ns() // 1_000_000 - began_ms)
                await asyncio.Event().wait()


def _say(text: str) -> None:
    print(text, flush=True)


def _check_range(port: int) -> None:
    if not 1 <= port <= LAST_PORT:
        raise ConfigError(
            f"{port} is no port for the page: 1 to {LAST_PORT} are, and boards use the two after it",
            hint="the usual one: make run PORT=8420",
        )


def _check_ports(port: int) -> None:
    """All three ports, before anything is made: a taken one is the operator's to free."""
    for number, purpose in ((port, "the page"), (port + 1, "boards"), (port + 2, "MQTT")):
        try:
            with socket.create_server(("127.0.0.1", number)):
                pass
        except OSError as error:
            raise ConfigError(
                f"port {number} ({purpose}) cannot be used: {error.strerror}",
                hint=f"choose another one, the others follow: make run PORT={port + 100}",
            ) from error


async def _make_hub(place: Place) -> bool:
    """Make the hub on the first start; tell whether a later one moved it to other ports."""
    config = place.hub / "hub.toml"
    if config.exists():
        return _move_ports(config, place.port)
    _say(f"making a hub in {place.hub}")
    # One admin, whose password is there to be looked up but is not needed: the link logs in.
    write_file(place.password, secrets.token_urlsafe(12).encode())
    await _command(
        "lichen-hub", "init", str(place.hub), "--host", "127.0.0.1", "--listen", "127.0.0.1",
        "--port", str(place.port), "--admin", "admin", "--password-file", str(place.password),
    )  # fmt: skip
    return False


def _move_ports(config: Path, port: int) -> bool:
    settings = tomllib.loads(config.read_text())
    ports = {"page_port": port, "board_port": port + 1, "mqtt_port": port + 2}
    if ports.items() <= settings.items():
        return False
    write_file(config, tomli_w.dumps({**settings, **ports}).encode())
    return True


def _allow_registry(file: Path, *tables: str) -> None:
    """Add the demo's registry to those without TLS, beside what else the file says."""
    settings: dict[str, Any] = tomllib.loads(file.read_text()) if file.exists() else {}
    table = settings
    for name in tables:
        table = table.setdefault(name, {})
    known = table.setdefault("plain_http", [])
    if REGISTRY not in known:
        known.append(REGISTRY)
        write_file(file, tomli_w.dumps(settings).encode())


async def _log_in(place: Place) -> str:
    """The API token that the demo and the command line use, once the hub takes it."""
    token = load_login(place.login).token if place.login.exists() else await _new_token(place)
    try:
        await _until("the hub answers", lambda: _takes(place, token))
    except Refused:
        # It was revoked on the page: whoever may start this hub may have another.
        token = await _new_token(place)
    save_login(place.login, Login(place.url, token))
    return token


async def _new_token(place: Place) -> str:
    return (await _command("lichen-hub", "api-token", "--dir", str(place.hub), "--name", "demo")).split()[-1]


async def _set_rates(place: Place, hub: Hub) -> None:
    """An example of a rate card, unless there was one before; whoever removes it does not get it again."""
    if not place.rates.exists():
        await hub.call("PUT", "/rates", json={"text": RATES})
        write_file(place.rates, RATES.encode())


async def _make_board(place: Place, hub: Hub, moved: bool) -> None:
    """This machine as a board: its sensors, and a join file when it has to join."""
    place.agent_state.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not place.agent_config.exists():
        write_file(place.agent_config, tomli_w.dumps(_board_config(place)).encode())
        await _command("lichen-agent", "sensors", "scan", "--write", str(place.agent_config))
    _allow_registry(place.policy)
    if moved or not (place.agent_state / "board.toml").exists():
        answer = await hub.call("POST", "/tokens", json={"name": socket.gethostname(), "uses": 1})
        write_file(place.agent_state / "join.toml", tomli_w.dumps(answer["join_file"]).encode())
        _say("joining this machine with a one-time token")


def _board_config(place: Place) -> dict[str, Any]:
    every = {"interval_s": REPORT_S}
    processes = ["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]
    return {
        "state_dir": str(place.agent_state),
        "report": {"every_s": REPORT_S, "commit_every_s": REPORT_S},
        # A Podman of its own: what this machine runs besides is none of the demo's business.
        "containers": {"storage": "containers", "policy": place.policy.name},
        "usage": {"period_s": USAGE_S},
        "sensors": [
            {"name": "capacity", "kind": "capacity", **every},
            # A machine without a sensor of its own has this one to show.
            {"name": "processes", "kind": "command", "command": processes, **every},
        ],
    }


async def _welcome(place: Place, took_ms: int) -> None:
    link = (await _command("lichen-hub", "login-link", "--dir", str(place.hub))).split()[-1]
    _say(f"""
Lichen is running: the first reading was stored after {took_ms / 1000:.1f} s.

  page    {place.url}
  log in  {link}   (works once)

Next, in another terminal here:
  .venv/bin/lichen board ls               the fleet
  .venv/bin/lichen watch                  values as they arrive
  .venv/bin/lichen token new --name pump  a join file for another board
  make demo-image                         an app to try, as docs/apps.md tells
  .venv/bin/lichen usage statement        what was used, and what it costs

Ctrl-C stops the hub and the agent; apps go on, as on any board. The data stays in {place.dir}.
The password of admin, should you need it, is in {place.password}.""")


async def _takes(place: Place, token: str) -> bool:
    async with connect(place.url, token=token) as hub:
        await hub.call("GET", "/hub")
    return True


async def _has_readings(hub: Hub, since_ms: int) -> bool:
    boards = (await hub.call("GET", "/boards"))["boards"]
    return any(at_ms >= since_ms for board in boards for _, at_ms in board["latest"].values())


async def _until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds; a hub that is still starting is not an error."""
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while True:
                try:
                    if await condition():
                        return
                except LinkDown:
                    pass
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise LinkDown(f"not within {START_WITHIN_S} s: {what}", hint="look at the logs beside it") from None


def _program(name: str) -> str:
    """The command beside this Python: the demo also runs where no PATH leads to it."""
    return str(Path(sys.executable).parent / name)


async def _command(name: str, *args: str) -> str:
    """Run a command to its end; its own words are the error when it fails."""
    child = await asyncio.create_subprocess_exec(
        _program(name), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    if child.returncode:
        raise LichenError(f"{name} {args[0]} failed: {err.decode().strip()}")
    return out.decode()


@asynccontextmanager
async def _child(
    group: asyncio.TaskGroup, name: str, argv: list[str], directory: Path
) -> AsyncIterator[None]:
    """A long-running child; its death ends the demo, and so does the demo its life."""
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        # A session of its own, so that Ctrl-C reaches the demo alone and it stops them in order.
        # setpriv: they must not outlive a demo that was killed.
        child = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "TERM", _program(argv[0]), *argv[1:],
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    watch = group.create_task(_watch(child, name, log), name=f"watch {name}")
    try:
        yield
    finally:
        watch.cancel()
        await _stop(child)


async def _watch(child: asyncio.subprocess.Process, name: str, log: Path) -> None:
    status = await child.wait()
    tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    raise LichenError(f"the {name} ended with status {status}; {log} says:\n  {tail}")


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S / 2):
            await child.wait()
    except TimeoutError:
        os.killpg(child.pid, 9)
        await child.wait()
