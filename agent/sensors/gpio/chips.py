"""The GPIO chips that the kernel knows of, and who has which of their lines.

Owns how a line is found and claimed, and the words for why it cannot be.  Called by
`agent.sensors.gpio.pins`, on the event loop: a chip is opened for as long as it is asked something,
which takes microseconds.  It never reads or drives a line.

A chip is found by its label, which stays when the kernel numbers its chips in another order; the
header of a Raspberry Pi is one of HEADERS.  The kernel gives a line to one program at a time, and
tells a second one who has it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpiod
from gpiod.line import Edge

from agent.wire.errors import Refused

HEADERS = ("pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1")
"""Labels of the chip behind the header: of a Pi up to 3 and Zero, of a Pi 4, of a Pi 5."""
BUFFERED = 1024
"""Edges that the kernel keeps until they are read; its own limit."""
CONSUMER = 31
"""Characters of a consumer's name that the kernel keeps."""

NO_CHIP = (
    "this machine has no GPIO that the kernel knows of, or the agent runs in a container"
    " that was not given /dev/gpiochip*"
)
NO_RIGHT = "let the agent's user into the group of the devices: sudo usermod -aG gpio lichen"
TAKEN = "end that program, or take another line; it is tried again each time the sensor is asked"
TWICE = "another sensor of this board names the same line: one can tell its state, count and rate together"
NO_EDGES = "a port expander whose interrupt is not wired cannot tell edges"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the path and the label of its chip, and its number there."""

    path: str
    label: str
    offset: int

    def __str__(self) -> str:
        return f"line {self.offset} of {self.path} ({self.label})"


class Chips:
    """The GPIO chips of this machine, each opened only for as long as it is asked something."""

    def __init__(self, open_chip: Callable[[str], Any] = gpiod.Chip, dev: Path = Path("/dev")) -> None:
        self._open = open_chip
        self._dev = dev

    def find(self, line: int | str, chip: str | None = None) -> Line:
        """The line by number or name, of the chip with that path, name or label.

        Without ``chip`` it is the header of a Raspberry Pi, else the only chip, or the only one with a
        line of that name.  Raises Refused.
        """
        found = self._list()
        listed = ", ".join(f"{path} ({info.label}, {info.num_lines} lines)" for path, info in found)
        if chip is not None:
            # By a link, too: a Pi 5 has some for the numbers that its chips once had.
            path = str((self._dev / chip).resolve())
            found = [each for each in found if path == each[0] or chip == each[1].label]
            if not found:
                raise Refused(f"there is no GPIO chip {chip!r}: {listed}", code="not-found")
        elif header := [each for each in found if each[1].label in HEADERS]:
            found = header
        lines = [
            Line(path, info.label, offset)
            for path, info in found
            if (offset := self._offset(path, info, line)) is not None
        ]
        if len(lines) == 1:
            return lines[0]
        if lines:
            hint = f"set chip to one of {listed}"
            raise Refused(f"there is a line {line!r} on several chips", code="conflict", hint=hint)
        paths = " or ".join(path for path, _ in found)
        hint = "lines are numbered as on the header's GPIO numbers; gpioinfo lists their names"
        raise Refused(f"there is no line {line!r} on {paths}", code="not-found", hint=hint)

    def request(self, line: Line, settings: gpiod.LineSettings, consumer: str) -> Any:
        """Claim the line.  Raises Refused, with who has it when that is somebody else."""
        with self._chip(line.path) as chip:
            try:
                return chip.request_lines({line.offset: settings}, consumer[:CONSUMER], BUFFERED)
            except OSError as error:
                raise self._why(chip, line, settings, error) from error

    def _why(self, chip: Any, line: Line, settings: gpiod.LineSettings, error: OSError) -> Refused:
        if error.errno == errno.EBUSY:
            user = chip.get_line_info(line.offset).consumer or "a program without a name"
            hint = TWICE if user.startswith("lichen ") else TAKEN
            return Refused(f"{line} is used by {user!r}", code="taken", hint=hint)
        hint = NO_EDGES if settings.edge_detection is not Edge.NONE else ""
        return Refused(f"{line}: {error.strerror}", hint=hint)

    def _list(self) -> list[tuple[str, Any]]:
        """The path and the description of each chip, in the order of their numbers.  Raises Refused."""
        # A chip with a link must not be counted twice.
        paths = {path.resolve() for path in self._dev.glob("gpiochip*")}
        found, error = [], Refused(f"{self._dev}: there is no gpiochip", code="not-found", hint=NO_CHIP)
        for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
            try:
                with self._chip(str(path)) as chip:
                    found.append((str(path), chip.get_info()))
            except Refused as refused:
                error = refused  # one that is not ours to open need not be the one that is wanted
        if not found:
            raise error
        return found

    def _offset(self, path: str, info: Any, line: int | str) -> int | None:
        """The number of the line on that chip; None when it has none like that."""
        with self._chip(path) as chip:
            try:
                return int(chip.line_offset_from_id(line))
            except (OSError, ValueError):
                # Some kernels name GPIO4 of the header GPIO_GCLK, and GPIO2 SDA1.
                match = re.fullmatch(r"GPIO([0-9]{1,2})", str(line))
        if match and info.label in HEADERS and int(match[1]) < info.num_lines:
            return int(match[1])
        return None

    def _chip(self, path: str) -> Any:
        try:
            return self._open(path)
        except OSError as error:
            hint = NO_RIGHT if isinstance(error, PermissionError) else ""
            raise Refused(f"{path}: {error.strerror}", hint=hint) from error
