"""One device on an SPI bus, through the kernel's spidev and without a library for it.

Owns the descriptor of a ``/dev/spidev<bus>.<device>`` and the one ioctl that moves words over the
wire (the kernel's ``include/uapi/linux/spi/spidev.h``).  `agent.sensors.gpio.pins` hands it to the
SPI devices of gpiozero, of whose SPI interface it has what they use.  It never drives a pin: the
kernel's controller keeps the clock, so a busy board cannot spoil a conversion.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.wire.errors import Refused

SPEED_HZ = 500_000
"""What every chip of the MCP3xxx family can follow at 2.7 V; 24 bits take 48 us."""
TRANSFER = struct.Struct("=QQIIHBBBBBB")
"""struct spi_ioc_transfer: both buffers, length, speed, then delays and widths that stay 0."""
MESSAGE = 0x40206B00
"""SPI_IOC_MESSAGE(1)."""
SET_MODE = 0x40016B01
"""SPI_IOC_WR_MODE."""
MODE_0 = b"\0"

Ioctl = Callable[[int, int, bytes], object]

NO_BUS = (
    "on a Raspberry Pi `dtparam=spi=on` in /boot/firmware/config.txt and a restart make it; where the kernel"
    ' has a driver for the chip (`dtoverlay=mcp3008:spi0-0-present`), kind = "iio" is the better way'
)
NO_RIGHT = "let the agent's user into the group of the device: sudo usermod -aG spi lichen"


class Spi:
    """A device in SPI mode 0, with words of 8 bits."""

    bits_per_word = 8

    def __init__(self, path: Path, *, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._path = path
        self._ioctl = ioctl
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # Whoever used the device before may have left it in another mode.
            self._ioctl(self._descriptor, SET_MODE, MODE_0)
        except OSError as error:
            self.close()
            hint = {FileNotFoundError: NO_BUS, PermissionError: NO_RIGHT}.get(type(error), "")
            raise Refused(f"{path}: {error.strerror}", hint=hint) from error

    def transfer(self, words: Sequence[int]) -> list[int]:
        """Send the words, and return as many that came back meanwhile.  May block.  Raises Refused."""
        sent, received = array("B", words), array("B", bytes(len(words)))
        there, back = sent.buffer_info()[0], received.buffer_info()[0]
        request = TRANSFER.pack(there, back, len(words), SPEED_HZ, 0, 0, 0, 0, 0, 0, 0)
        try:
            self._ioctl(self._descriptor, MESSAGE, request)
        except OSError as error:
            raise Refused(f"{self._path}: {error.strerror}") from error
        return received.tolist()

    def read(self, count: int) -> list[int]:
        """What comes back while zeros are sent."""
        return self.transfer(bytes(count))

    def close(self) -> None:
        """Let go of the device; harmless when called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
