"""What time it is, how sure the board is of it, and which boot it belongs to.

Owns the two clocks that every reading carries and the judgement of the wall clock.  Made once
by `agent.app` and handed to whoever stamps something; tests hand in one of their own.  It never
sets a clock.

- ``mono_ms`` counts from the start of ``boot`` and goes on while the machine sleeps
  (CLOCK_BOOTTIME), so differences within one boot are right whatever the wall clock says.
- ``wall_ms`` counts from the Unix epoch.  On a board without a battery it may say 1970, or jump.
- ``state`` is "synced" when the kernel holds the wall clock to be so (adjtimex(2): a daemon
  such as systemd-timesyncd or chrony has adjusted it, and not too long ago), else "unsynced".

>>> clock = Clock.system()
>>> len(clock.boot), clock.mono_ms() <= clock.mono_ms()
(32, True)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.wire.errors import ConfigError
from agent.wire.messages import ClockState

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# adjtimex(2): what it returns, an error apart, when the clock is not synchronised.
TIME_ERROR = 5
# More than sizeof(struct timex) of any Linux; its first field, the mode, is 0: only ask.
TIMEX_BYTES = 512


@dataclass(frozen=True, slots=True)
class Clock:
    """The time as functions, so that a virtual one can stand in."""

    boot: str
    mono_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    state: Callable[[], ClockState]

    @classmethod
    def system(cls) -> Self:
        """The clock of this machine.  Raises ConfigError where /proc is not mounted."""
        return cls(boot=boot_id(), mono_ms=mono_ms, wall_ms=wall_ms, state=state)


def boot_id(path: Path = BOOT_ID) -> str:
    """32 hexadecimal digits, drawn by the kernel at each boot.  Raises ConfigError."""
    try:
        return path.read_text("ascii").strip().replace("-", "")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="mount /proc") from error


def mono_ms() -> int:
    """Milliseconds since this boot, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    """Milliseconds since the Unix epoch, as the machine believes."""
    return time.time_ns() // 1_000_000


def state() -> ClockState:
    """Whether the kernel holds the wall clock to be synchronised; asking takes microseconds."""
    # Half a megabyte, needed only here.
    import ctypes

    return judge(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))


def judge(answer: int) -> ClockState:
    """The state that an answer of adjtimex(2) means.

    -1, from a sandbox that forbids the call, leaves us with not knowing, which is not synced.
    """
    return "synced" if 0 <= answer < TIME_ERROR else "unsynced"
