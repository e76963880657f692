"""Trees in the shape of /sys, for sensors that read it: this machine's kernel has hardly any.

sysfs = Sysfs(tmp_path)
zone = sysfs.thermal_zone(0, "cpu-thermal", 48312)
chip = sysfs.hwmon(3, "nvme", {"temp1_input": 35850, "temp1_label": "Composite"}, device="nvme0")
chip.rename(chip.with_name("hwmon5"))       # what another boot makes of it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Sysfs:
    """A tree under ``root``, which stands for /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def thermal_zone(self, number: int, type_: str, millicelsius: int | str) -> Path:
        """A zone of the kernel's thermal framework; its directory."""
        return self._directory(f"class/thermal/thermal_zone{number}", {"type": type_, "temp": millicelsius})

    def hwmon(self, number: int, name: str, files: Mapping[str, int | str], device: str = "") -> Path:
        """A monitoring chip with its attribute files, part of ``device``; its directory."""
        chip = self._directory(f"class/hwmon/hwmon{number}", {"name": name, **files})
        if device:
            (self.root / "devices" / device).mkdir(parents=True, exist_ok=True)
            (chip / "device").symlink_to(self.root / "devices" / device)
        return chip

    def nic(self, name: str, *, physical: bool) -> Path:
        """A network interface, with hardware behind it or without."""
        nic = self._directory(f"class/net/{name}", {"operstate": "up"})
        if physical:
            (nic / "device").mkdir()
        return nic

    def _directory(self, path: str, files: Mapping[str, int | str]) -> Path:
        directory = self.root / path
        directory.mkdir(parents=True)
        for name, content in files.items():
            # The kernel ends each attribute with a newline.
            (directory / name).write_text(f"{content}\n")
        return directory
