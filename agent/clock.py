"""What time it is, how sure the board is of it, and which boot it belongs to.

Owns the two clocks that every reading carries and the judgement of the wall clock.  Made once
by `agent.app` and handed to whoever stamps something; tests hand in one of their own.  It never
sets the clock of the machine.

- ``mono_ms`` counts from the start of ``boot`` and goes on while the machine sleeps
  (CLOCK_BOOTTIME), so differences within one boot are right whatever the wall clock says.
- ``state`` is "synced" while the kernel holds the wall clock to be so (adjtimex(2): a daemon such
  as systemd-timesyncd or chrony has adjusted it, and not too long ago).  Else it is "hub" when the
  time has become known once in this boot: the hub told it (`Clock.learn`), or the kernel was
  synced before.  Else it is "unsynced".
- ``wall_ms`` counts from the Unix epoch.  It is the kernel's when that is synced, and what has
  become known plus what ``mono_ms`` has counted since in state "hub".  When unsynced it is what
  the machine believes: a board without a battery may say 1970, or jump.

Setting the clock by hand, forward or back, makes the kernel call it unsynced (clock_settime(2)
clears what the daemon said), so a jump is followed only while nothing better is known.  What is
known lives in this process: after a start it comes from the daemon or from the hub.

>>> clock = Clock("b" * 32, mono_ms=lambda: 5_000, wall_ms=lambda: 0, state=lambda: "unsynced")
>>> clock.state(), clock.wall_ms()
('unsynced', 0)
>>> clock.learn(1_700_000_000_000)
>>> clock.state(), clock.wall_ms()
('hub', 1700000000000)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from agent.wire.errors import ConfigError
from agent.wire.messages import ClockState

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# adjtimex(2): what it returns, an error apart, when the clock is not synchronised.
TIME_ERROR = 5
# More than sizeof(struct timex) of any Linux; its first field, the mode, is 0: only ask.
TIMEX_BYTES = 512


class Clock:
    """The time of one board.  What it is made of are functions, so that virtual ones can stand in:
    ``wall_ms`` and ``state`` say what the kernel believes."""

    def __init__(
        self,
        boot: str,
        mono_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        state: Callable[[], ClockState],
    ) -> None:
        self.boot = boot
        self.mono_ms = mono_ms
        self._kernel_ms = wall_ms
        self._kernel_state = state
        self._offset_ms: int | None = None  # from mono_ms to the wall clock, once that is known

    @classmethod
    def system(cls) -> Self:
        """The clock of this machine.  Raises ConfigError where /proc is not mounted."""
        return cls(boot=boot_id(), mono_ms=mono_ms, wall_ms=wall_ms, state=state)

    def state(self) -> ClockState:
        """How sure ``wall_ms`` is."""
        if self._kernel_state() == "synced":
            self._offset_ms = self._kernel_ms() - self.mono_ms()
            return "synced"
        return "unsynced" if self._offset_ms is None else "hub"

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, as well as the board knows."""
        if self.state() != "hub" or self._offset_ms is None:
            return self._kernel_ms()
        return self.mono_ms() + self._offset_ms

    def known_ms(self) -> int | None:
        """``wall_ms`` where that is right, else None."""
        return None if self.state() == "unsynced" else self.wall_ms()

    def learn(self, at_ms: int) -> None:
        """Take the hub's word that it is ``at_ms`` now; a synced kernel knows better."""
        if self.state() != "synced":
            self._offset_ms = at_ms - self.mono_ms()


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
    adjtimex, timex = _timex()
    return judge(adjtimex(timex))


@functools.cache
def _timex() -> tuple[Callable[[Any], int], Any]:
    """adjtimex(2), and what it is given."""
    # Half a megabyte, needed only here.
    import ctypes

    return ctypes.CDLL(None).adjtimex, ctypes.create_string_buffer(TIMEX_BYTES)


def judge(answer: int) -> ClockState:
    """The state that an answer of adjtimex(2) means.

    -1, from a sandbox that forbids the call, leaves us with not knowing, which is not synced.
    """
    return "synced" if 0 <= answer < TIME_ERROR else "unsynced"
