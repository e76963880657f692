"""Whom the doctor looks at: the board's configuration, who it is, and the agent that runs, if one does.

Owns what can be known before any check, with a line for each thing that stands in the way of it.
Called by `agent.doctor`; it changes nothing.
"""

from __future__ import annotations

import os
import pwd
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from agent import config as configuration
from agent import identity
from agent.clock import Clock
from agent.commands import running_status
from agent.config import Config
from agent.doctor.line import Line
from agent.identity import Membership
from agent.status import Status
from agent.wire import words
from agent.wire.errors import ConfigError, LichenError
from agent.wire.joining import HubDocument

SALVAGED = ("state_dir", "runtime_dir", "join_file", "sysfs")
"""Keys that say where to look: they are used even when another key is wrong."""


@dataclass(slots=True)
class Patient:
    """``config`` is as good as it could be read, ``complete`` if all of it was."""

    config: Config
    complete: bool
    status: Status | None = None
    membership: Membership | None = None
    document: HubDocument | None = None
    lines: list[Line] = field(default_factory=list)


async def meet(path: Path, clock: Clock) -> Patient:
    """Read the configuration, look for a running agent, and for who the board is."""
    patient = _configured(path)
    patient.status = running_status(patient.config)
    patient.lines.append(_agent(patient, clock.wall_ms()))
    patient.lines.append(_identity(patient))
    return patient


def _configured(path: Path) -> Patient:
    try:
        config = configuration.load(path)
    except LichenError as error:
        hint = error.hint or "mend it, then: lichen-agent config check"
        line = Line("configuration", "fail", str(error), hint)
        return Patient(_salvaged(path), complete=False, lines=[line])
    count = len(config.sensors)
    said = f"{path} is good: {count} sensor{'s' if count != 1 else ''}"
    return Patient(config, complete=True, lines=[Line("configuration", "ok", said)])


def _salvaged(path: Path) -> Config:
    """What the file says of where things are; the defaults when even that cannot be read."""
    import tomli_w  # only to write

    try:
        table = tomllib.loads(path.read_text("utf-8"))
        picked = {key: table[key] for key in SALVAGED if isinstance(table.get(key), str)}
        return configuration.parse(tomli_w.dumps(picked), path)
    except (OSError, ValueError, LichenError):
        try:
            return configuration.parse("", path)
        except ConfigError:
            return Config()


def _agent(patient: Patient, now_ms: int) -> Line:
    status = patient.status
    if status is None:
        return Line("agent", "warn", "it does not run", "start it: lichen-agent run, or systemctl start it")
    since = words.duration(now_ms - status.started_ms)
    return Line("agent", "ok", f"version {status.version}, running for {since} as process {status.pid}")


def _identity(patient: Patient) -> Line:
    """Who the board is, by its own files, or by what the running agent says of itself."""
    config = patient.config
    try:
        known = identity.recognise(config.state_dir)
    except LichenError as error:
        if patient.status is not None and isinstance(error, ConfigError):
            status = patient.status
            said = f"{status.name or status.board} of {status.hub}, as the agent says"
            hint = f"run this with sudo to look at its files, which are closed to {_user()}"
            return Line("identity", "notice", said, hint)
        return Line("identity", "fail", str(error), error.hint or identity.RESTORE)
    if known is not None:
        patient.membership, patient.document = known
        board, document = known
        return Line("identity", "ok", f"{board.name or board.board} ({board.board}) of hub {document.name}")
    path = config.find_join_file()
    if path is None:
        said = "this board has not joined a hub, and there is no join file"
        hint = f"`lichen token new` on the hub prints one: put it at {config.join_files[0]}"
        return Line("identity", "warn", said, hint)
    said = f"this board has not joined yet, and will with {path}"
    return Line("identity", "notice", said, "lichen-agent run, or lichen-agent join")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
