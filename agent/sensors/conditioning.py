"""From what a driver answers to what is recorded: scale, plausibility, deadband.

Called by `agent.sensors.probe` for each answer and by the sampler for each reading; what is to be
done stands in `agent.sensors.driver.Conditioning`.  Pure: it knows no clock and no hardware.

>>> condition(21500.0, Conditioning(scale=0.001), "Cel")
21.5
>>> condition(130.0, Conditioning(minimum=-40, maximum=85), "Cel")
Refused('it says 130 °C, and only -40 to 85 °C is plausible')
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.sensors.driver import Answer, Conditioning, Stale
from agent.wire import words
from agent.wire.errors import LichenError, Refused
from agent.wire.messages import Reading


def condition(answer: Answer, how: Conditioning, unit: str) -> Answer:
    """The answer in the unit that it is to have, or why it is not believed."""
    if isinstance(answer, LichenError):
        return answer
    if isinstance(answer, Stale):
        value = condition(answer.value, how, unit)
        return Stale(value) if isinstance(value, float) else value
    value = float(answer) * how.scale + how.offset
    if not math.isfinite(value):
        return Refused(f"it said {value}, which is no value")
    low, high = how.minimum, how.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        shown = words.UNITS.get(unit, unit)
        return Refused(
            f"it says {value:g} {shown}".rstrip()
            + f", and only {_bounds(low, high)} {shown}".rstrip()
            + " is plausible",
            code="implausible",
        )
    return value


def _bounds(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {high:g}"
    return f"{low:g} and more" if high is None else f"{low:g} to {high:g}"


class Sieve:
    """Which readings of one channel are kept: all of them without a ``deadband``.

    With one: a value further than that from the one kept last, whatever changes in quality, and
    at least one reading every ``heartbeat_ms``.  Before a value that left the band comes the last
    one inside it, so that a line between the two does not begin where nothing happened.

    >>> sieve = Sieve(0.5, heartbeat_ms=900_000, interval_ms=10_000)
    >>> [len(sieve.sift(Reading("room", value, at_ms, 0)))
    ...  for value, at_ms in ((21.0, 0), (21.4, 10_000), (21.2, 20_000), (22.0, 30_000), (23.0, 40_000))]
    [1, 0, 0, 2, 1]
    """

    def __init__(self, deadband: float | None, *, heartbeat_ms: int, interval_ms: int) -> None:
        self._deadband = deadband
        # The reading after this one would be too late.
        self._patience_ms = heartbeat_ms - interval_ms
        self._kept: Reading | None = None
        self._passed: Reading | None = None

    def sift(self, reading: Reading) -> Sequence[Reading]:
        """What is to be kept now that there is this reading, oldest first."""
        if self._deadband is None:
            return (reading,)
        kept, passed = self._kept, self._passed
        if kept is not None and self._is_same(kept, reading):
            if reading.mono_ms - kept.mono_ms <= self._patience_ms:
                self._passed = reading
                return ()
            passed = None
        self._kept, self._passed = reading, None
        return (reading,) if passed is None else (passed, reading)

    def _is_same(self, kept: Reading, reading: Reading) -> bool:
        if kept.quality != reading.quality:
            return False
        if kept.value is None or reading.value is None:
            return True
        assert self._deadband is not None
        return abs(reading.value - kept.value) <= self._deadband
