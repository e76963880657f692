"""The machine that a board is: its power, its clock, and what really was the time.

A Raspberry Pi has no clock that runs without power: after a boot it believes some time in the past
until somebody tells it, and whoever sets it by hand makes the kernel doubt it.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass

from agent.clock import Clock
from agent.wire.messages import ClockState

START_MS = 1_700_000_000_000
"""What time it really is at second 0 of the loop."""
HOUR_S = 3600.0
YEAR_MS = 365 * 24 * 3_600_000
EXACT_MS = 50
"""How far a clock is off that a time server keeps."""


def true_ms() -> int:
    """What time it is."""
    return START_MS + int(asyncio.get_running_loop().time() * 1000 + 1e-3)


@dataclass
class Boot:
    """One boot: when ``mono_ms`` was 0, in true time."""

    id: str
    zero_ms: int


class Machine:
    """``boots``: every boot so far, by id."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.boots: dict[str, Boot] = {}
        self.power_on()

    def power_on(self) -> None:
        """Boot, with the clock of a board that was without power."""
        dice = self._dice
        # To the minute, so that all boards sample together and the hub commits what they say together:
        # transactions are most of what a day costs to play.
        self.boot = Boot(f"{dice.getrandbits(128):032x}", true_ms() // 60_000 * 60_000)
        self.boots[self.boot.id] = self.boot
        self._wrong_ms = dice.choice((-true_ms(), -dice.randrange(40 * 24 * 3_600_000)))
        self._synced_ms = true_ms() + self._until_synced_ms()
        self._exact_ms = dice.randint(-EXACT_MS, EXACT_MS)

    def set_clock(self) -> None:
        """Somebody sets it, and wrong; a time server may come later."""
        self._wrong_ms = self._dice.choice((-YEAR_MS, YEAR_MS, -true_ms(), self._dice.randrange(10**8)))
        self._synced_ms = true_ms() + self._until_synced_ms()

    def clock(self) -> Clock:
        """A clock for the next agent that starts in this boot."""
        boot = self.boot
        return Clock(boot.id, lambda: true_ms() - boot.zero_ms, self._wall_ms, self._state)

    def _until_synced_ms(self) -> float:
        """At once, as soon as there is a network, after hours, or never in this boot."""
        dice = self._dice
        seconds = dice.choice((0, dice.uniform(1, 120), dice.uniform(1, 12) * HOUR_S, math.inf))
        return seconds * 1000

    def _state(self) -> ClockState:
        return "synced" if true_ms() >= self._synced_ms else "unsynced"

    def _wall_ms(self) -> int:
        return true_ms() + (self._exact_ms if self._state() == "synced" else self._wrong_ms)
