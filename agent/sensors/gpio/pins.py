"""The pins of gpiozero's devices: lines of the kernel's GPIO chips, by libgpiod 2.

Owns how a line is set, read, driven and given back, and how its edges arrive.  `agent.sensors.gpio` makes one
`LineFactory` per sensor and hands it to each of the sensor's gpiozero devices; nothing else uses
it.  It starts no thread and never polls: the kernel stamps an edge and makes a descriptor
readable, the event loop calls `LinePin`, and that the device.  gpiozero's own factories deliver
edges from threads, or cannot see those of a Pi 5, and one of them takes the place of another
without a word; so none is ever chosen here.

    factory = LineFactory("lichen door")            # the name that gpioinfo shows as the consumer
    door = DigitalInputDevice(17, pull_up=True, pin_factory=factory)
    door.close()                                    # the line is free again

A line is claimed when its device first needs it, with all that was set until then, so it never
passes through a state that nobody asked for.  Nothing is shared between sensors, and no chip is kept
open: the kernel knows who has a line (see `agent.sensors.gpio.chips`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import gpiod
from gpiod.line import Bias, Clock, Direction, Edge, Value
from gpiozero import Factory, Pin, PinInfo

from agent.sensors.gpio.chips import Chips, Line
from agent.sensors.gpio.settling import Settling
from agent.sensors.gpio.spi import Spi
from agent.wire.errors import Refused

log = logging.getLogger(__name__)

MOST_MISSED = 10_000
"""How many missed edges are made up for in one go, which is half a second of work on a Pi Zero."""
PULLS = {"floating": Bias.DISABLED, "up": Bias.PULL_UP, "down": Bias.PULL_DOWN}
DIRECTIONS = {"input": Direction.INPUT, "output": Direction.OUTPUT}
EDGES = {"none": Edge.NONE, "rising": Edge.RISING, "falling": Edge.FALLING, "both": Edge.BOTH}


class LineFactory(Factory):  # type: ignore[misc]  # gpiozero is untyped
    """The pins of one sensor; ``consumer`` is who other programs are told has the lines."""

    def __init__(self, consumer: str, chip: str | None = None, *, chips: Chips | None = None) -> None:
        super().__init__()
        self._consumer = consumer
        self._chip = chip
        self._chips = chips or Chips()

    def reserve_pins(self, requester: Any, *names: Any) -> None:
        """Nothing: the kernel knows who has a line, of all programs and not only of this one."""

    def release_pins(self, reserver: Any, *names: Any) -> None:
        """Nothing, as there is nothing reserved."""

    def release_all(self, reserver: Any) -> None:
        """Nothing, as there is nothing reserved."""

    def pin(self, name: int | str) -> LinePin:
        """The line by its number or name.  Raises Refused."""
        return LinePin(self._chips, self._chips.find(name, self._chip), self._consumer)

    def spi(self, *, port: int = 0, device: int = 0, shared: bool = True) -> Spi:
        """A device of an SPI bus.  The kernel shares it among its users, so it need not be shared here.

        gpiozero's SPI in software would do on any four lines, but a program that has to toggle the clock
        by system calls is slower than an MCP3xxx can hold its sample on a busy board, and that class takes
        its lines from gpiozero's default factory, whichever that may be.
        """
        return Spi(Path(f"/dev/spidev{port}.{device}"))

    @staticmethod
    def ticks() -> float:
        """Seconds of the clock by which the kernel stamps edges."""
        return time.monotonic()

    @staticmethod
    def ticks_diff(later: float, earlier: float) -> float:
        return later - earlier


class LinePin(Pin):  # type: ignore[misc]  # gpiozero is untyped
    """One line.  What is set before it is first used is claimed together with it.

    ``when_changed`` is called on the event loop with the time of the edge and the level since then.
    """

    def __init__(self, chips: Chips, line: Line, consumer: str) -> None:
        super().__init__()
        self._chips, self._line, self._consumer = chips, line, consumer
        self._settings = gpiod.LineSettings(direction=Direction.INPUT, event_clock=Clock.MONOTONIC)
        self._edges = "both"
        self._callback: Callable[[float, bool], object] | None = None
        self._request: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone: Refused | None = None
        self._settling: Settling | None = None
        self._level = False
        self._seqno = 0
        self._missed = 0

    def close(self) -> None:
        """Give the line back; harmless when called again."""
        self._callback = None
        self._release()

    # --- what gpiozero sets and asks; its properties lead here ------------------------------------

    def _get_info(self) -> Any:
        name = str(self._line)
        return PinInfo(self._line.offset, name, frozenset({name}), "", 1, 1, frozenset({"gpio"}))

    def _get_function(self) -> str:
        return "output" if self._settings.direction is Direction.OUTPUT else "input"

    def _set_function(self, value: str) -> None:
        self._set(direction=DIRECTIONS[value])

    def output_with_state(self, state: bool) -> None:
        """Claim the line as an output that has ``state`` from the first moment on."""
        self._set(direction=Direction.OUTPUT, bias=Bias.AS_IS, output_value=_value(state))
        self._claimed()

    def _get_state(self) -> bool:
        request = self._claimed()
        if self._settling is not None:
            return self._settling.level
        return self._asked(lambda: request.get_value(self._line.offset)) is Value.ACTIVE

    def _set_state(self, value: bool) -> None:
        request = self._claimed()
        self._asked(lambda: request.set_value(self._line.offset, _value(value)))

    def _get_pull(self) -> str:
        return next((name for name, bias in PULLS.items() if bias is self._settings.bias), "as it is")

    def _set_pull(self, value: str) -> None:
        self._set(bias=PULLS[value])

    def _get_bounce(self) -> float | None:
        return self._settings.debounce_period.total_seconds() or None

    def _set_bounce(self, value: float | None) -> None:
        self._set(debounce_period=timedelta(seconds=value or 0))

    def _get_edges(self) -> str:
        return self._edges

    def _set_edges(self, value: str) -> None:
        self._edges = value
        if self._callback is not None:
            self._set(edge_detection=EDGES[value])

    def _get_when_changed(self) -> Callable[[float, bool], object] | None:
        return self._callback

    def _set_when_changed(self, callback: Callable[[float, bool], object] | None) -> None:
        self._callback = callback
        self._set(edge_detection=Edge.NONE if callback is None else EDGES[self._edges])
        if callback is not None:
            self._claimed()

    def _set(self, **changes: Any) -> None:
        settings = dataclasses.replace(self._settings, **changes)
        if settings != self._settings:
            self._settings = settings
            self._release()  # the next use claims it with what is set now

    # --- the line ---------------------------------------------------------------------------------

    def _claimed(self) -> Any:
        """The claim on the line, made now if there is none."""
        if self._gone is not None:
            raise self._gone
        if self._request is None:
            self._request = self._claim()
            self._seqno = 0
            if self._callback is not None:
                self._level = self._asked(lambda: self._request.get_value(self._line.offset)) is Value.ACTIVE
                if self._settling is not None:
                    self._settling.level = self._level
                self._loop = asyncio.get_running_loop()
                self._loop.add_reader(self._request.fd, self._take)
        return self._request

    def _claim(self) -> Any:
        period = self._settings.debounce_period
        try:
            return self._chips.request(self._line, self._settings, self._consumer)
        except Refused as refused:
            if not period or self._callback is None or refused.code == "taken":
                raise
        # The kernel debounces every line that tells edges, unless its driver says that it can and fails.
        settings = dataclasses.replace(self._settings, debounce_period=timedelta())
        request = self._chips.request(self._line, settings, self._consumer)
        self._settling = Settling(period.total_seconds(), self._tell)
        return request

    def _release(self) -> None:
        if self._settling is not None:
            self._settling.close()
            self._settling = None
        if self._loop is not None:
            self._loop.remove_reader(self._request.fd)
            self._loop = None
        if self._request is not None:
            self._request.release()
            self._request = None

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except OSError as error:
            raise Refused(f"{self._line}: {error.strerror}") from error

    def _take(self) -> None:
        """Hand on what the kernel has seen; called when there is something, so it never waits."""
        try:
            events = self._asked(lambda: self._request.read_edge_events())
        except Refused as refused:
            # A chip that was unplugged stays readable for ever, and has nothing more to say.
            self._gone = refused
            self._release()
            return
        for event in events:
            at_s = event.timestamp_ns / 1e9
            self._make_up(event.line_seqno - self._seqno - 1, at_s)
            self._seqno = event.line_seqno
            self._see(at_s, event.event_type is gpiod.EdgeEvent.Type.RISING_EDGE)

    def _make_up(self, missed: int, at_s: float) -> None:
        """Edges that found no room in the kernel's buffer: their number is known, and that they alternate."""
        if missed > 0 and not self._missed:
            log.warning("edges come faster than they are read", extra={"line": str(self._line)})
        self._missed += max(0, missed)
        for _ in range(min(missed, MOST_MISSED)):
            self._see(at_s, not self._level)

    def _see(self, at_s: float, level: bool) -> None:
        self._level = level
        if self._settling is not None:
            self._settling.see(at_s, level)
        else:
            self._tell(at_s, level)

    def _tell(self, at_s: float, level: bool) -> None:
        if self._callback is not None:
            self._callback(at_s, level)


def _value(state: bool) -> Value:
    return Value.ACTIVE if state else Value.INACTIVE
