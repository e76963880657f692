"""``kind = "command"``: a value that a program prints.

    [[sensors]]
    name = "soil"
    kind = "command"
    command = ["/usr/local/bin/read-soil", "--once"]    # program and arguments; no shell
    channels = { moisture = { unit = "%" }, temperature = { unit = "Cel" } }

Without ``channels`` the program prints one number and nothing else; with them a JSON object
that has each of them: ``{"moisture": 31.5, "temperature": 17}``, null for one that failed.

The program runs in ``/`` with PATH and LANG as its only environment and no input, at most
``timeout_s`` long.  Its exit status must be 0; the last line it wrote to its standard error
is the reason otherwise.  When it ends, or its time is over, everything in its process group is
killed.  It runs as the agent's user: whoever can write the configuration can run programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from agent.sensors.driver import Channel, Environment, SensorConfig
from agent.sensors.sysfs import number
from agent.wire.decode import Length, Match, loads
from agent.wire.errors import ConfigError, LichenError, Refused

MAX_OUTPUT = 64 * 1024
MAX_STDERR = 4096
KILL_S = 1.0
"""How long a killed process may take to be gone."""
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
)

Argument = Annotated[
    str, Match(r"[^\0]{0,4096}", "an argument of a program (at most 4096 characters, no NUL)")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SensorConfig):
    """The program.  It prints one value, or one for each of ``channels``."""

    command: Annotated[tuple[Argument, ...], Length(1, 64)]
    """The program and its arguments; no shell reads them."""

    @property
    def fastest_s(self) -> float:
        return self.interval_s  # what a program costs, only its owner knows

    def list_channels(self) -> tuple[Channel, ...]:
        if not self.channels:
            return (Channel(self.name),)
        return tuple(Channel(f"{self.name}.{name}") for name in self.channels)

    def check(self, where: str) -> None:
        if not self.command[0]:
            raise ConfigError(f"{where}.command: it begins with the program, which is empty")


async def open(options: Options, env: Environment) -> Command:
    """Ready at once: the program is started anew for each reading."""
    return Command(options)


def scan(sysfs: Path) -> list[dict[str, Any]]:
    """Nothing: no program says of itself that it is a sensor."""
    return []


class Command:
    """The opened sensor."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def read(self) -> Mapping[str, float | LichenError]:
        program, output = self._options.command[0], await _run(self._options.command)
        text = output.decode("utf-8", "replace").strip()
        if not self._options.channels:
            return {self._options.name: number(text, program)}
        try:
            answer = loads(output, max_bytes=MAX_OUTPUT)
        except Refused as error:
            raise Refused(f"{program}: {error}") from error
        if not isinstance(answer, dict):
            raise Refused(f"{program}: it printed {text[:64]!r} instead of a JSON object")
        return {
            f"{self._options.name}.{name}": _value(answer, name, program) for name in self._options.channels
        }

    async def close(self) -> None:
        """Nothing outlives a reading."""


class _Process:
    """A program on its way: collects what it writes until it is gone and nobody holds its pipes.

    Not `asyncio.create_subprocess_exec`: given up in the middle of a start, that forgets whatever
    the program has started already, and it reaps in a thread.  Here the process is reaped last of
    all, so its id cannot be somebody else's when its group is killed.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.ended = asyncio.Event()
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._gone = asyncio.Event()
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=ENVIRONMENT, cwd="/", start_new_session=True, bufsize=0,
        )  # fmt: skip
        try:
            self._pid = os.pidfd_open(self._child.pid)
        except OSError:  # Linux before 5.3, or a sandbox
            with self._child:
                self._child.kill()
            raise
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        out, err = self._child.stdout.fileno(), self._child.stderr.fileno()
        self._watched = {out, err, self._pid}
        loop = asyncio.get_running_loop()
        loop.add_reader(out, self._take, out, self._keep_first)
        loop.add_reader(err, self._take, err, self._keep_last)
        loop.add_reader(self._pid, self._on_exit)

    @property
    def too_long(self) -> bool:
        return len(self.stdout) > MAX_OUTPUT

    @property
    def status(self) -> int:
        """The exit status, or minus the signal that ended it."""
        return self._child.returncode

    async def close(self) -> None:
        """Kill what is left of its group, reap it, and let go of its pipes."""
        self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_S):
                await self._gone.wait()
        self._child.poll()
        for descriptor in tuple(self._watched):
            self._unwatch(descriptor)
        os.close(self._pid)
        for pipe in (self._child.stdout, self._child.stderr):
            assert pipe is not None
            pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _take(self, descriptor: int, keep: Callable[[bytes], None]) -> None:
        # Ready to read, so this does not block.
        if data := os.read(descriptor, MAX_OUTPUT):
            keep(data)
        else:
            self._unwatch(descriptor)

    def _keep_first(self, data: bytes) -> None:
        # One byte over the limit is kept, and tells that there was more.
        self.stdout += data[: MAX_OUTPUT + 1 - len(self.stdout)]
        if self.too_long:
            self._kill()

    def _keep_last(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[-MAX_STDERR:]

    def _on_exit(self) -> None:
        self._gone.set()
        self._unwatch(self._pid)

    def _unwatch(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        self._watched.discard(descriptor)
        if not self._watched:
            self.ended.set()


async def _run(command: Sequence[str]) -> bytes:
    """What the program prints.  Raises Refused.  Leaves nothing running, not even when cancelled."""
    program = command[0]
    try:
        process = _Process(command)
    except OSError as error:
        raise Refused(f"{program}: cannot be started: {error.strerror}") from error
    try:
        await process.ended.wait()
    finally:
        await process.close()
    if process.too_long:
        raise Refused(f"{program}: it printed over {MAX_OUTPUT} bytes", code="too-large")
    if status := process.status:
        last = bytes(process.stderr).decode("utf-8", "replace").strip().rpartition("\n")[2]
        told = f": {last[:128]}" if last else ""
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise Refused(f"{program}: {how}{told}")
    return bytes(process.stdout)


def _value(answer: Mapping[str, Any], name: str, program: str) -> float | LichenError:
    """One channel's number, or why there is none."""
    value = answer.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if name not in answer:
        return Refused(f"{program}: its answer has no {name!r}")
    return Refused(f"{program}: its {name!r} is not a number")
