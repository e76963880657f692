"""Trees in the shape of /sys, for sensors that read it: this machine's kernel has hardly any.

sysfs = Sysfs(tmp_path)
zone = sysfs.thermal_zone(0, "cpu-thermal", 48312)
chip = sysfs.hwmon(3, "nvme", {"temp1_input": 35850, "temp1_label": "Composite"}, device="nvme0")
chip.rename(chip.with_name("hwmon5"))       # what another boot makes of it
sysfs.iio(0, "bme280", BME280, device="1-0076")
sysfs.w1("28-0316a27983fd", 21437)

`raspberry_pi` and `mini_pc` make whole machines of it: which chips there are, what they call
themselves and which files they have is as on real ones; the numbers are made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BME280: Mapping[str, int | str] = {
    "in_temp_input": 21640,
    "in_pressure_input": "98.756343750",
    "in_humidityrelative_input": 47123,
    "in_temp_oversampling_ratio": 2,
    "in_pressure_oversampling_ratio": 16,
    "sampling_frequency": "0.000000",
    "uevent": "DEVTYPE=iio_device",
}
"""As the driver bmp280 shows a BME280: all channels processed; temperature in m°C, pressure in kPa."""
ADS1115: Mapping[str, int | str] = {
    "in_voltage0_raw": 13200,
    "in_voltage0_scale": "0.125000000",
    "in_voltage0-voltage1_raw": -800,
    "in_voltage0-voltage1_scale": "0.125000000",
    "in_voltage1_raw": 14000,
    "in_voltage1_scale": "0.125000000",
    "scale_available": "0.187500000 0.125000000",
    "sampling_frequency": 128,
}
"""As the driver ti-ads1015 shows an ADS1115: raw channels with a scale in mV."""


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

    def iio(self, number: int, name: str, files: Mapping[str, int | str], device: str) -> Path:
        """A chip of the industrial I/O framework at ``device``, an address on a bus; its directory."""
        real = f"devices/platform/soc/i2c-1/{device}/iio:device{number}"
        chip = self._directory(real, {"name": name, **files})
        return self._linked("bus/iio/devices", chip)

    def w1(self, device: str, millicelsius: int, *, slave: bool = True) -> Path:
        """A thermometer on the first 1-wire bus, with ``w1_slave`` or without; its directory."""
        thermometer = self._directory(f"devices/w1_bus_master1/{device}", {"name": device, "resolution": 12})
        (thermometer / "id").write_bytes(bytes.fromhex(device[:2] + device[3:] + "00"))
        if slave:
            (thermometer / "w1_slave").write_text(w1_slave(millicelsius))
        else:
            (thermometer / "temperature").write_text(f"{millicelsius}\n")
        return self._linked("bus/w1/devices", thermometer)

    def raspberry_pi(self) -> None:
        """A Raspberry Pi 4 with two DS18B20 and a BME280."""
        self.thermal_zone(0, "cpu-thermal", 48312)
        self.hwmon(0, "cpu_thermal", {"temp1_input": 48312}, device="thermal_zone0")
        self.hwmon(1, "rpi_volt", {"in0_lcrit_alarm": 0}, device="raspberrypi-hwmon")
        for number, (device, millicelsius) in enumerate(
            {"28-0316a27983fd": 21437, "28-3c01d6074a11": -5062}.items(), start=2
        ):
            self.w1(device, millicelsius)
            self.hwmon(number, "w1_slave_temp", {"temp1_input": millicelsius}, device=device)
        self._directory("devices/w1_bus_master1/00-400000000000", {"name": "00-400000000000"})
        self.iio(0, "bme280", BME280, device="1-0076")
        self.nic("eth0", physical=True)

    def mini_pc(self) -> None:
        """A small PC with Intel's processor, two NVMe disks and a chip for fans and voltages."""
        self.thermal_zone(0, "acpitz", 27800)
        self.thermal_zone(1, "x86_pkg_temp", 51000)
        self.hwmon(0, "acpitz", {"temp1_input": 27800}, device="thermal_zone0")
        core: dict[str, int | str] = {
            "temp1_input": 51000,
            "temp1_label": "Package id 0",
            "temp1_crit": 100000,
            "temp1_crit_alarm": 0,
        }
        core |= {"temp2_input": 49000, "temp2_label": "Core 0", "temp2_crit_alarm": 0}
        self.hwmon(1, "coretemp", core, device="coretemp.0")
        for number in (0, 1):
            files: dict[str, int | str] = {"temp1_input": 35850, "temp1_label": "Composite", "temp1_alarm": 0}
            self.hwmon(2 + number, "nvme", files, device=f"nvme{number}")
        board: dict[str, int | str] = {
            "in0_input": 888,
            "in1_input": 1016,
            "fan1_input": 1205,
            "fan2_input": 0,
            "fan2_alarm": 1,
        }
        board |= {"temp7_input": "", "pwm1": 128, "intrusion0_alarm": 1}
        self.hwmon(4, "nct6798", board, device="nct6775.656")

    def nic(self, name: str, *, physical: bool) -> Path:
        """A network interface, with hardware behind it or without."""
        nic = self._directory(f"class/net/{name}", {"operstate": "up"})
        if physical:
            (nic / "device").mkdir()
        return nic

    def _linked(self, folder: str, directory: Path) -> Path:
        """Show a device on its bus, as a link."""
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        link = self.root / folder / directory.name
        link.symlink_to(directory)
        return link

    def _directory(self, path: str, files: Mapping[str, int | str]) -> Path:
        directory = self.root / path
        directory.mkdir(parents=True)
        for name, content in files.items():
            # The kernel ends each attribute with a newline.
            (directory / name).write_text(f"{content}\n")
        return directory


def w1_slave(millicelsius: int, *, verdict: str = "YES", seventh: int = 0x10) -> str:
    """What w1_therm says of a DS18B20: nine bytes twice, the verdict on their checksum, m°C."""
    raw = (millicelsius * 16 // 1000) & 0xFFFF
    scratchpad = bytes([raw & 0xFF, raw >> 8, 0x4B, 0x46, 0x7F, 0xFF, seventh, 0x10, 0xE5]).hex(" ")
    return f"{scratchpad} : crc=e5 {verdict}\n{scratchpad} t={millicelsius}\n"
