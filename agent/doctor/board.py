"""What the doctor looks at on the board itself: files, programs, problems, sensors.

Called by `agent.doctor`.  Everything that may hang runs in a thread that nothing waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from agent import outbox
from agent.checks import CHECKS, Facts
from agent.clock import Clock
from agent.commands import OUTBOX
from agent.config import Config
from agent.doctor.line import Level, Line, Lines, apart
from agent.doctor.patient import Patient
from agent.identity import certificate_end_ms
from agent.sensors.blocking import Threads
from agent.sensors.driver import SensorConfig, channels_of
from agent.vitals import Gauges
from agent.wire.errors import LichenError
from agent.wire.messages import OutboxState
from agent.workbench import ask

PROOF_BYTES = 4096
ASKED_AT_ONCE = 16
SENSORS_S = 25.0
"""How long all sensors together may take; those that have not answered by then are named."""
PROGRAMS: tuple[tuple[str, Level, str], ...] = (
    ("openssl", "fail", "without it the board can neither join nor renew its certificate"),
    ("podman", "notice", "only apps need it"),
)


# --- files -------------------------------------------------------------------------------------


async def state(patient: Patient, threads: Threads) -> Lines:
    """Whether the state directory is there, private, and can be written."""
    path = patient.config.state_dir
    return [await apart(threads, lambda: _look_at_state(path))]


def _look_at_state(path: Path) -> Line:
    try:
        found = path.stat()
    except FileNotFoundError:
        return _look_at_nothing(path)
    except OSError as error:
        return Line("state", "warn", f"{path}: {error.strerror}", "run this with sudo")
    owner = _name(found.st_uid)
    mode = found.st_mode & 0o7777
    if mode & 0o077:
        hint = f"sudo chmod 700 {path}"
        return Line("state", "warn", f"{path} holds keys, and others may read it (mode {mode:o})", hint)
    if os.geteuid() not in (0, found.st_uid):
        said = f"{path} belongs to {owner}, so nothing in it was looked at"
        return Line("state", "notice", said, f"run this with sudo, or as {owner}")
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            file.write(b"\0" * PROOF_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        said = f"{path} cannot be written: {error.strerror}"
        return Line("state", "fail", said, f"df -h {path}; df -i {path}; dmesg")
    strangers = [file for file in path.iterdir() if _owner(file) not in (found.st_uid, None)]
    if strangers:
        said = f"{strangers[0]} belongs to {_name(_owner(strangers[0]))}, not to {owner}"
        return Line("state", "warn", said, f"sudo chown -R {owner} {path}")
    return Line("state", "ok", f"{path} can be written, and belongs to {owner}")


def _look_at_nothing(path: Path) -> Line:
    parent = next(each for each in path.parents if each.exists())
    if os.access(parent, os.W_OK):
        return Line("state", "ok", f"{path} is not there yet: the first start makes it")
    hint = f"sudo install -d -m 700 -o {_name(os.geteuid())} {path}; or set state_dir in agent.toml"
    return Line("state", "warn", f"{path} is not there, and {_name(os.geteuid())} cannot make it", hint)


async def runtime(patient: Patient) -> Lines:
    """Whether there is a place for the status file."""
    path = patient.config.runtime_dir
    if patient.status is not None:
        return []  # it was read from there
    found = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    if found.is_dir() and os.access(found, os.W_OK | os.X_OK):
        return [Line("runtime", "ok", f"the status file will be in {path}")]
    said = f"{found} cannot be written by {_name(os.geteuid())}, so there will be no status file"
    return [Line("runtime", "notice", said, "set runtime_dir in agent.toml, or run this with sudo")]


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:  # it was there a moment ago
        return None


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return f"user {uid}"


# --- programs ----------------------------------------------------------------------------------


async def programs() -> Lines:
    """Whether the commands are there that the agent calls."""
    lines = []
    for name, level, need in PROGRAMS:
        found = shutil.which(name)
        if found:
            lines.append(Line(name, "ok", found))
        else:
            hint = f"sudo apt install {name}"
            lines.append(Line(name, level, f"the command is missing: {need}", hint))
    return lines


# --- problems ----------------------------------------------------------------------------------


async def problems(patient: Patient, clock: Clock, threads: Threads) -> Lines:
    """What the running agent reports; without one, what its checks find now."""
    if patient.status is not None:
        found = [Line(each.code, each.severity, each.sentence, each.hint) for each in patient.status.problems]
    else:
        found = await _found_now(patient, clock, threads)
    return found or [Line("problems", "ok", "none")]


async def _found_now(patient: Patient, clock: Clock, threads: Threads) -> Lines:
    config = patient.config
    place = next(each for each in (config.state_dir, *config.state_dir.parents) if each.exists())
    try:
        held = await outbox.peek(config.state_dir / OUTBOX, config.outbox.max_bytes)
    except LichenError as error:
        lines, held = [Line("outbox", "fail", str(error), error.hint)], OutboxState()
    else:
        lines = []
    facts = Facts(
        wall_ms=clock.wall_ms(),
        vitals=await apart(threads, Gauges(place, config.sysfs).read),
        outbox=held,
        certificate_until_ms=_certificate(config.state_dir),
    )
    for check in CHECKS:
        for finding in check.look(facts, ()):
            lines.append(Line(check.code, finding.severity or check.severity, finding.sentence, check.hint))
    return lines


def _certificate(state_dir: Path) -> int | None:
    try:
        return certificate_end_ms((state_dir / "tls.pem").read_text())
    except (OSError, UnicodeDecodeError, LichenError):
        return None  # there is none, or its own line says what is wrong with it


# --- sensors -----------------------------------------------------------------------------------


async def sensors(patient: Patient) -> Lines:
    """What each sensor says: to the running agent, which alone may hold a pin; else to us, now."""
    if patient.status is not None:
        answers = {each.name: each.error for each in patient.status.sensors}
    elif patient.complete:
        answers = await _asked(patient.config)
    else:
        return []  # which there are is what the configuration does not say
    hint = "check its wiring and its lines in agent.toml; `lichen-agent sensors read` asks again"
    failing = [Line("sensor", "warn", f"{name}: {error}", hint) for name, error in answers.items() if error]
    well = len(answers) - len(failing)
    return [Line("sensors", "ok", f"{well} of {len(answers)} channels answer"), *failing]


async def _asked(config: Config) -> dict[str, str]:
    """What is wrong with each channel, "" for nothing."""
    answers = {channel.name: "no answer yet" for each in config.sensors for channel in channels_of(each)}
    turn = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask_one(sensor: SensorConfig) -> None:
        async with turn:
            for name, answer in (await ask(sensor, config)).items():
                answers[name] = str(answer) if isinstance(answer, LichenError) else ""

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SENSORS_S), asyncio.TaskGroup() as group:
            for sensor in config.sensors:
                group.create_task(ask_one(sensor), name=f"sensor {sensor.name}")
    return answers
