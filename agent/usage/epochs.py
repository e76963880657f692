"""Which log a board writes: the folders of its epochs, and the one that counts.

Below the folder of all usage logs each epoch has its own, and the file ``epoch`` names the current one.  A
new epoch is made whole as ``new-<epoch>``; writing its name into the file is what makes it the current one,
and the folder gets its own name behind that, at the next start if need be.  Older ones stay, for what they
hold goes by the same rules.

Called by `agent.usage.ledger`, on its thread.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.clock import Clock
from agent.usage.aside import renumbered
from agent.usage.frames import ENTRY, LOST, Disk, Frames, reading, writing
from agent.usage.receipts import received_at_ms
from agent.usage.seals import Sealer
from agent.usage.volume import Volume
from agent.wire.errors import Corrupt
from agent.wire.note import Signer
from agent.wire.usage import EpochRecord, draw_epoch, encode, head, origin_of

log = logging.getLogger(__name__)

NAME = "epoch"
NEW = "new-"
BATCH = 256
_EPOCH = re.compile(r"[a-z2-7]{16}", re.ASCII)
LEFT_OUT = ("epoch", "hole")
"""What of one log means nothing in the next."""


class Epochs:
    """The folder of all usage logs of one board, whose log key this is."""

    def __init__(self, directory: Path, log_key: Signer, clock: Clock, disk: Disk) -> None:
        self.directory = directory
        self._log_key = log_key
        self._clock = clock
        self._disk = disk

    def current(self) -> Path:
        """The folder of the log that counts; begins one where there is none, or it was moved away.

        Raises Corrupt when ``epoch`` is missing although there are logs, Refused (code "disk-full").
        """
        name = read_name(self.directory)
        with writing(self.directory):
            self._tidy(name)
        folder = self.directory / name
        if name and folder.is_dir():
            return folder
        if name:
            log.warning("usage log is missing", extra={"epoch": name})
            return self.begin(f"the log of epoch {name} was not on the disk any more")
        if found := [path.name for path in self.directory.iterdir() if path.is_dir()]:
            raise Corrupt(
                f"{self.directory / NAME} is missing, and names one of {', '.join(sorted(found)[:4])}",
                hint="write the name of the newest folder into it",
            )
        return self.begin("the first log of this board")

    def sealer(self, epoch: str) -> Sealer:
        """What signs for the log of that epoch.  Raises Corrupt for a folder that is none."""
        return Sealer(origin_of(self._log_key.name, epoch), self._log_key, self._clock)

    def begin(self, reason: str, previous: str = "", carried: Iterable[bytes] = ()) -> Path:
        """Begin a new log, which is the current one when this returns.  Its folder.

        ``previous``: the last checkpoint note of the one before.  ``carried``: entries of that one which
        nobody else has; epochs and holes among them are left out.  Raises Refused (code "disk-full").
        """
        epoch = draw_epoch()
        made = self.directory / f"{NEW}{epoch}"
        kept = (entry for entry in carried if head(entry).type not in LEFT_OUT)
        try:
            self._fill(made, epoch, itertools.chain([encode(self._record(reason, previous))], kept))
            self._disk.put(self.directory / NAME, f"{epoch}\n{_checksum(epoch)}\n".encode())
        except BaseException:
            if read_name(self.directory) != epoch:
                with contextlib.suppress(OSError):
                    self._disk.clear(made)
            raise
        log.info("usage log began", extra={"epoch": epoch, "reason": reason})
        return self.current()

    def _fill(self, made: Path, epoch: str, entries: Iterator[bytes]) -> None:
        volume = Volume.make(made, self.sealer(epoch), self._disk)
        try:
            while batch := list(itertools.islice(entries, BATCH)):
                volume.append([renumbered(entry, volume.size + at) for at, entry in enumerate(batch)])
        finally:
            volume.close()

    def _record(self, reason: str, previous: str) -> EpochRecord:
        mono_ms, wall_ms = self._clock.mono_ms(), self._clock.wall_ms()
        return EpochRecord(
            boot=self._clock.boot,
            mono0_ms=mono_ms,
            mono1_ms=mono_ms,
            wall0_ms=wall_ms,
            wall1_ms=wall_ms,
            clock=self._clock.state(),
            reason=reason,
            previous=previous,
        )

    def _tidy(self, name: str) -> None:
        """End what a power cut left: the current one gets its name, one that never counted goes."""
        for made in self.directory.glob(f"{NEW}*"):
            if made.name == f"{NEW}{name}":
                self._disk.rename(made, self.directory / name)
            else:
                self._disk.clear(made)

    def prune(self, before_ms: int) -> int:
        """Remove segments of older epochs that the hub has had since before that time.  Returns how many."""
        gone = 0
        for path, end in _segments_of_others(self.directory):
            at_ms = received_at_ms(path, end)
            if at_ms is not None and at_ms <= before_ms:
                self._disk.remove(path)
                gone += 1
        return gone


def read_name(directory: Path) -> str:
    """The current epoch; empty before the first.  Raises Corrupt when the file is not as it was written."""
    path = directory / NAME
    with reading(path):
        lines = path.read_text("utf-8", "replace").split() if path.exists() else [""]
    if lines == [""] or (_EPOCH.fullmatch(lines[0]) and lines[1:] in ([], [_checksum(lines[0])])):
        return lines[0]
    raise Corrupt(
        f"{path} is damaged: it does not name an epoch with its checksum",
        hint="write the name of the newest folder beside it into it, and nothing else",
    )


def _checksum(name: str) -> str:
    # A name that is off by one would be one of a log that is missing, and another would be begun.
    return f"{zlib.crc32(name.encode()):08x}"


def _segments_of_others(directory: Path) -> Iterator[tuple[Path, int]]:
    """Each segment of an older epoch that may go, and the index behind its last entry."""
    name = read_name(directory)
    for path in sorted(directory.glob("*/*.seg")):
        if path.parent.name != name and not path.parent.name.startswith(NEW):
            entries = sum(each.kind in (ENTRY, LOST) for each in Frames(path))
            yield path, int(path.stem) + entries
