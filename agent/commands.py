"""What the commands of ``lichen-agent`` do that look, or change something once, and end.

Called by `agent.commandline`, which parses the command line and reads the configuration.  They work
beside a running agent and without one; only `join_now` needs the network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.clock import Clock
from agent.config import Config
from agent.status import RUN, Status, describe, read_status
from agent.wire.errors import Busy, ConfigError
from agent.wire.messages import OutboxState
from agent.wire.plain import dumps

OUTBOX = "outbox.db"


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
    status = running_status(config)
    if status is not None:
        return status
    from agent import identity, outbox

    known = identity.recognise(config.state_dir)
    try:
        held = await outbox.peek(config.state_dir / OUTBOX, config.outbox.max_bytes)
    except Busy:  # an agent has just opened it, and will say more in a moment
        held = OutboxState(max_bytes=config.outbox.max_bytes)
    if known is None:
        return Status(outbox=held)
    membership, document = known
    return Status(
        board=membership.board, name=membership.name, hub=document.name, hub_url=document.url, outbox=held
    )


async def show_health(path: Path, *, as_json: bool, history: bool) -> bool:
    """Say what is wrong with the board whose configuration is at ``path``.  True when nothing is."""
    from agent import doctor

    clock = Clock.system()
    report, patient = await doctor.examine(path, clock)
    had = doctor.episodes(patient, clock) if history else None
    if as_json:
        say(doctor.as_json(report, had))
        return report.well
    say("\n".join(doctor.describe(report)))
    if had is not None:
        say("\n".join(("", *doctor.describe_history(had))))
    return report.well


def running_status(config: Config, run: Path = RUN) -> Status | None:
    """The status of the agent that runs on this state, wherever it keeps it; None when none runs."""
    for folder in dict.fromkeys((config.runtime_dir, config.state_dir / "run", run)):
        status = read_status(folder)
        # Another agent of this machine is not the one that was asked for.
        if status is not None and status.state_dir == str(config.state_dir) and _is_agent(status.pid):
            return status
    return None


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
    from agent.identity import open_identity, recognise
    from agent.join import join

    path = file or config.find_join_file()
    if path is None or not path.exists():
        hint = "name one with --file; `lichen token new` on the hub prints it"
        if known := recognise(config.state_dir):
            name = known[0].name or known[0].board
            hint = f"none is needed: this board has joined {known[1].name or known[1].url} as {name}"
        raise ConfigError("there is no join file" + (f" {path}" if path else ""), hint=hint)
    make_directory(config.state_dir)
    with held(config.state_dir / LOCK, "an agent"):
        identity = open_identity(config.state_dir)
        membership = await join(identity, path, Clock.system())
    say(f"joined as {membership.name or membership.board} ({membership.board})")
    say("Next: lichen-agent run")
