"""What the commands of ``lichen-agent`` do that look, or change something once, and end.

Called by `agent.__main__`, which parses the command line and reads the configuration.  They work
beside a running agent and without one; only `join_now` needs the network.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.clock import Clock
from agent.config import Config
from agent.sensors.blocking import Threads
from agent.sensors.driver import Environment, SensorConfig, load_kind
from agent.status import Status, describe, read_status
from agent.wire import words
from agent.wire.errors import ConfigError, LichenError, Refused
from agent.wire.plain import dumps

OUTBOX = "outbox.db"
SPAN_S = 0.2
"""How long a sensor is open before it is read: rates are differences between two looks."""


def say(text: str) -> None:
    """A line for whoever asked; nobody gets it when they have left, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Closing would try once more to write what is buffered, and complain (docs.python.org, signal).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def show_status(config: Config, *, as_json: bool) -> bool:
    """Say how the board is.  True when there is nothing that a person should look at."""
    status = await look(config)
    if as_json:
        say(dumps(status).decode())
    else:
        say("\n".join(describe(status, Clock.system().wall_ms())))
    return status.well


async def look(config: Config) -> Status:
    """The status that the running agent keeps; without one, what its files tell."""
    status = read_status(config.runtime_dir)
    if status is not None and _is_agent(status.pid):
        return status
    from agent import identity, outbox

    known = identity.recognise(config.state_dir)
    held = await outbox.peek(config.state_dir / OUTBOX, config.outbox.max_bytes)
    if known is None:
        return Status(outbox=held)
    membership, document = known
    return Status(
        board=membership.board, name=membership.name, hub=document.name, hub_url=document.url, outbox=held
    )


def _is_agent(pid: int) -> bool:
    """Whether this process is one of ours; after a crash the number may be somebody else's."""
    try:
        return b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def join_now(config: Config, file: Path | None) -> None:
    """Join a hub, the agent being stopped.  Raises what `agent.join.join` raises, and Busy."""
    from agent.app import LOCK
    from agent.base.files import make_directory
    from agent.base.lock import held
    from agent.identity import open_identity
    from agent.join import join

    path = file or config.find_join_file()
    if path is None:
        raise ConfigError(
            "there is no join file", hint="name one with --file; `lichen token new` on the hub prints it"
        )
    make_directory(config.state_dir)
    with held(config.state_dir / LOCK, "an agent"):
        identity = open_identity(config.state_dir)
        membership = await join(identity, path, Clock.system().state)
    say(f"joined as {membership.name or membership.board} ({membership.board})")
    say("Next: lichen-agent run")


# --- sensors -----------------------------------------------------------------------------------


async def scan_sensors(config: Config, *, write: Path | None) -> None:
    """List what this machine offers as TOML, or add to a file what it does not have yet."""
    from agent.sensors.scan import add, scan, to_toml

    tables = scan(config.sysfs)
    if write is None:
        say(to_toml(tables).rstrip())
        return
    added = add(write, tables)
    say(f"{len(added)} of {len(tables)} sensors found were added to {write}")


async def list_sensors(config: Config, *, as_json: bool) -> None:
    """List the channels of the configured sensors."""
    channels = [(sensor, channel) for sensor in config.sensors for channel in sensor.list_channels()]
    if as_json:
        rows = [
            {
                "name": channel.name,
                "kind": sensor.kind,
                "unit": channel.unit,
                "quantity": channel.quantity,
                "interval_s": sensor.interval_s,
            }
            for sensor, channel in channels
        ]
        say(dumps(rows).decode())
        return
    width = max((len(channel.name) for _, channel in channels), default=0)
    for sensor, channel in channels:
        say(f"{channel.name:{width}}  {sensor.kind}, every {sensor.interval_s:g} s  {channel.unit}".rstrip())


async def read_sensors(config: Config, names: Sequence[str], *, as_json: bool) -> bool:
    """Ask sensors once, all when none is named.  True when every one answered."""
    unknown = [name for name in names if name not in {sensor.name for sensor in config.sensors}]
    if unknown:
        known = ", ".join(sensor.name for sensor in config.sensors)
        raise ConfigError(f"there is no sensor {unknown[0]!r}", hint=f"there are: {known}")
    answers: dict[str, float | LichenError] = {}
    for sensor in config.sensors:
        if not names or sensor.name in names:
            answers |= await _ask(sensor, config)
    if as_json:
        rows = {
            name: {"error": str(answer)} if isinstance(answer, LichenError) else {"value": answer}
            for name, answer in answers.items()
        }
        say(dumps(rows).decode())
    else:
        units = {channel.name: channel.unit for each in config.sensors for channel in each.list_channels()}
        for name, answer in answers.items():
            told = str(answer) if isinstance(answer, LichenError) else words.value(answer, units[name])
            say(f"{name}: {words.plain(told)}")
    return not any(isinstance(answer, LichenError) for answer in answers.values())


async def _ask(sensor: SensorConfig, config: Config) -> Mapping[str, float | LichenError]:
    """Open a sensor, read it once, and close it."""
    threads = Threads()
    env = Environment(config.sysfs, config.state_dir, threads.lane())
    error: LichenError
    try:
        async with asyncio.timeout(sensor.timeout_s):
            driver = await load_kind(sensor.kind).open(sensor, env)
            try:
                await asyncio.sleep(SPAN_S)
                return await driver.read()
            finally:
                await driver.close()
    except TimeoutError:
        error = Refused(f"no answer within {sensor.timeout_s:g} s", code="timeout")
    except LichenError as failure:
        error = failure
    finally:
        threads.close()
    return {channel.name: error for channel in sensor.list_channels()}
