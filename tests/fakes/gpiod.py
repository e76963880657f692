"""The fake of the gpiod module: chips, lines, claims on them and their edges, without a kernel.

It passes the contract of the real one (tests/contract/test_pins.py), and answers with the real one's
own classes of data (`gpiod.LineInfo`, `gpiod.EdgeEvent`, ...), so that it cannot drift from them.

    gpiod = FakeGpiod(tmp_path)
    header = gpiod.add("pinctrl-bcm2711", 58, {17: "GPIO17"})
    chips = Chips(gpiod.Chip, tmp_path)         # tmp_path stands for /dev
    header.drive(17, False)                     # the far end pulls the line down
    header.level(4)                             # what it sees of an output
    header.unplug()
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import gpiod
from gpiod.line import Bias, Direction, Drive, Edge, Value

NS = 1_000_000_000
MICROSECOND = timedelta(microseconds=1)
MOST_READ = 64
"""Events that one reading takes, as in the real module."""


class FakeGpiod:
    """The module, and the machine whose chips it opens; their files appear in ``dev``."""

    def __init__(self, dev: Path) -> None:
        self.dev = dev
        self.chips: dict[str, FakeHardware] = {}
        self.forbidden: set[str] = set()

    def add(self, label: str, num_lines: int, names: Mapping[int, str] | None = None) -> FakeHardware:
        """A chip that the kernel has found."""
        number = next(number for number in range(16) if not (self.dev / f"gpiochip{number}").exists())
        path = self.dev / f"gpiochip{number}"
        path.touch()
        chip = self.chips[str(path)] = FakeHardware(self, str(path), label, num_lines, dict(names or {}))
        return chip

    def Chip(self, path: str) -> FakeChip:
        if path in self.forbidden:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path not in self.chips:
            raise _os_error(errno.ENOENT)
        return FakeChip(self.chips[path])


class FakeHardware:
    """A chip, and what is wired to its lines.

    ``debounces``: whether its driver leaves that to the kernel, which can; one that claims to and
    fails makes the kernel refuse.  ``on_output`` is called with line and level when one is driven.
    """

    def __init__(
        self, world: FakeGpiod, path: str, label: str, num_lines: int, names: dict[int, str]
    ) -> None:
        self.world, self.path, self.label, self.num_lines, self.names = world, path, label, num_lines, names
        self.debounces = True
        self.on_output: Callable[[int, bool], object] = lambda offset, level: None
        self.claims: dict[int, FakeRequest] = {}
        self._levels = dict.fromkeys(range(num_lines), False)

    def drive(self, offset: int, level: bool, at_s: float | None = None) -> None:
        """Let the far end put a level on the line, now or at a time of the loop's clock."""
        changed = self._levels[offset] != level
        self._levels[offset] = level
        if changed and offset in self.claims:
            self.claims[offset].edge(level, asyncio.get_running_loop().time() if at_s is None else at_s)

    def level(self, offset: int) -> bool:
        """What the far end sees on the line."""
        return self._levels[offset]

    def put(self, offset: int, level: bool) -> None:
        """This side drives an output."""
        self._levels[offset] = level
        self.on_output(offset, level)

    def unplug(self) -> None:
        """The chip is gone; whoever holds a line of it will hear of that."""
        Path(self.path).unlink()
        del self.world.chips[self.path]
        for request in self.claims.values():
            request.hang_up()
        self.claims = {}


class FakeChip:
    """`gpiod.Chip`: a chip that was opened."""

    def __init__(self, hardware: FakeHardware) -> None:
        self._hardware = hardware

    def __enter__(self) -> FakeChip:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Claims outlive it."""

    def get_info(self) -> gpiod.ChipInfo:
        hardware = self._hardware
        return gpiod.ChipInfo(Path(hardware.path).name, hardware.label, hardware.num_lines)

    def line_offset_from_id(self, id: str | int) -> int:
        named = [offset for offset, name in self._hardware.names.items() if name == id]
        if named:
            return named[0]
        try:
            offset = int(id)
        except ValueError:
            raise _os_error(errno.ENOENT) from None
        if offset >= self._hardware.num_lines:
            raise ValueError("line offset of out range")
        return offset

    def get_line_info(self, line: int) -> gpiod.LineInfo:
        request = self._hardware.claims.get(line)
        settings = request.settings if request else gpiod.LineSettings(direction=Direction.INPUT)
        return gpiod.LineInfo(
            line, self._hardware.names.get(line, ""), request is not None,
            request.consumer if request else "",
            settings.direction.value, False, settings.bias.value, Drive.PUSH_PULL.value,
            settings.edge_detection.value, settings.event_clock.value,
            bool(settings.debounce_period), settings.debounce_period // MICROSECOND,
        )  # fmt: skip

    def request_lines(
        self, config: Mapping[int, gpiod.LineSettings], consumer: str = "", event_buffer_size: int = 16
    ) -> FakeRequest:
        [(offset, settings)] = config.items()
        if offset in self._hardware.claims:
            raise _os_error(errno.EBUSY)
        if settings.debounce_period and not self._hardware.debounces:
            raise _os_error(errno.EINVAL)
        return FakeRequest(self._hardware, offset, settings, consumer, event_buffer_size)


class FakeRequest:
    """`gpiod.LineRequest`: a claim on one line, with the edges that nobody has read yet."""

    def __init__(
        self, hardware: FakeHardware, offset: int, settings: gpiod.LineSettings, consumer: str, buffered: int
    ) -> None:
        self.settings, self.consumer = settings, consumer
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._hardware, self._offset = hardware, offset
        self._events: deque[gpiod.EdgeEvent] = deque(maxlen=buffered)  # the oldest make room
        self._seqno = 0
        self._gone = False
        self._timer: asyncio.TimerHandle | None = None
        if settings.direction is Direction.OUTPUT:
            hardware.put(offset, bool(settings.output_value))
        elif settings.bias in (Bias.PULL_UP, Bias.PULL_DOWN):
            hardware.drive(offset, settings.bias is Bias.PULL_UP)
        self._level = hardware.level(offset)
        hardware.claims[offset] = self

    def release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        os.close(self.fd)
        if not self._gone:
            del self._hardware.claims[self._offset]

    def get_value(self, line: int) -> Value:
        self._check(line)
        level = self._level if self.settings.debounce_period else self._hardware.level(line)
        return Value.ACTIVE if level else Value.INACTIVE

    def set_value(self, line: int, value: Value) -> None:
        self._check(line)
        if self.settings.direction is not Direction.OUTPUT:
            raise _os_error(errno.EPERM)
        self._hardware.put(line, value is Value.ACTIVE)

    def read_edge_events(self, max_events: int | None = None) -> list[gpiod.EdgeEvent]:
        self._check(self._offset)
        assert self._events, "the real one would block here"
        count = min(len(self._events), max_events or MOST_READ)
        taken = [self._events.popleft() for _ in range(count)]
        if not self._events:
            os.eventfd_read(self.fd)
        return taken

    def edge(self, level: bool, at_s: float) -> None:
        """The line has changed; a debounced one counts when it has stayed so for the period."""
        period_s = self.settings.debounce_period.total_seconds()
        if not period_s:
            self._put(level, at_s)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(period_s, self._put, level, at_s + period_s)

    def hang_up(self) -> None:
        self._gone = True
        os.eventfd_write(self.fd, 1)

    def _put(self, level: bool, at_s: float) -> None:
        if self.settings.debounce_period and level == self._level:
            return
        self._level = level
        if self.settings.edge_detection not in (Edge.BOTH, Edge.RISING if level else Edge.FALLING):
            return
        self._seqno += 1
        type_ = gpiod.EdgeEvent.Type.RISING_EDGE if level else gpiod.EdgeEvent.Type.FALLING_EDGE
        if not self._events:
            os.eventfd_write(self.fd, 1)
        self._events.append(
            gpiod.EdgeEvent(type_.value, round(at_s * NS), self._offset, self._seqno, self._seqno)
        )

    def _check(self, line: int) -> None:
        assert line == self._offset
        if self._gone:
            raise _os_error(errno.ENODEV)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
