"""A memory card: an ext4 file system on a loop device, whose written sectors the kernel counts.

Made and mounted as images for the Raspberry Pi have it: blocks of 4 KiB, a journal, ``noatime`` and
otherwise the defaults, so a commit of the journal every 5 s at the latest.  Needs root; the device
is given back when the block ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
"""The unit of the kernel's counters, whatever the device has."""
CARD_BYTES = 1024**3
"""A sparse file: of a card nothing but its size."""
OPTIONS = "noatime"


@dataclass(frozen=True, slots=True)
class Card:
    """A mounted card."""

    path: Path

    def written_bytes(self) -> int:
        """Bytes written to the device since it was mounted, the journal's and what was cached included."""
        subprocess.run(["sync", "--file-system", str(self.path)], check=True)
        device = self.path.stat().st_dev
        counters = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        # Column 7 of Documentation/block/stat.rst: sectors written.
        return int(counters[6]) * SECTOR_BYTES


@contextmanager
def card(image: Path, mount: Path) -> Iterator[Card]:
    """Make a card in the file ``image`` and mount it at ``mount``.

    Raises PermissionError for a user who is not root.
    """
    if os.geteuid() != 0:
        raise PermissionError("a loop device needs root")
    with image.open("wb") as file:
        file.truncate(CARD_BYTES)
    # All at once: what mkfs leaves for later, the kernel would write while we count.
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-E", lazy, image], check=True)
    subprocess.run(["mount", "-o", f"loop,{OPTIONS}", image, mount], check=True)
    try:
        yield Card(mount)
    finally:
        subprocess.run(["umount", mount], check=True)
