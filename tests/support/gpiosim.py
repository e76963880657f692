"""A chip of the kernel's GPIO simulator, with a far end that a test can move.

    with GpioSim(Path("/sys/kernel/config/gpio-sim"), "lichen-test", 8, {3: "DOOR"}) as chip:
        chip.drive(3, True)

It needs root, ``modprobe gpio-sim`` and configfs; the kernel's
``Documentation/admin-guide/gpio/gpio-sim.rst`` says what each file does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class GpioSim:
    """One simulated chip; ``path`` is where it is in /dev while it is plugged."""

    def __init__(self, config: Path, label: str, num_lines: int, names: Mapping[int, str]) -> None:
        self.label = label
        self._device = config / f"lichen-{os.getpid()}"
        self._bank = self._device / "bank0"
        self._lines = [self._bank / f"line{offset}" for offset in names]
        self._device.mkdir()
        self._bank.mkdir()
        (self._bank / "label").write_text(label)
        (self._bank / "num_lines").write_text(str(num_lines))
        for line, name in zip(self._lines, names.values(), strict=True):
            line.mkdir()
            (line / "name").write_text(name)
        self.plug()

    def __enter__(self) -> GpioSim:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unplug()
        # configfs takes its attribute files away by itself, but no folder that has folders in it.
        for folder in (*self._lines, self._bank, self._device):
            folder.rmdir()

    def plug(self) -> None:
        """Let the kernel find the chip; it may get another number each time."""
        (self._device / "live").write_text("1")
        device, chip = (self._device / "dev_name").read_text(), (self._bank / "chip_name").read_text()
        self._sysfs = Path("/sys/devices/platform") / device.strip() / chip.strip()
        self.path = f"/dev/{chip.strip()}"

    def unplug(self) -> None:
        (self._device / "live").write_text("0")

    def drive(self, offset: int, level: bool) -> None:
        """Let the far end put a level on the line; an open line has what it had last."""
        (self._sysfs / f"sim_gpio{offset}" / "pull").write_text("pull-up" if level else "pull-down")

    def level(self, offset: int) -> bool:
        """What the far end sees on the line."""
        return (self._sysfs / f"sim_gpio{offset}" / "value").read_text().strip() == "1"
