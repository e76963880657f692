"""Files of frames: how what may not be lost lies on the disk, so that damage is seen and placed.

    u32 length of the payload | u32 CRC-32 of kind and payload | kind, one byte | payload

Numbers are big-endian; a payload has at most 65,535 bytes.  The kinds:

    H   what the file is, once, at its begin (`agent.usage.segments.Header`)
    Z   up to 64 entries, each after its length in two bytes, deflated together (RFC 1951) with the dictionary
        below: a fifth of their size
    E   an entry of the log as it is, where deflating would not make it smaller
    L   the leaf hash of an entry that nobody holds any more
    S   a note that seals all entries before it (`agent.usage.seals`)

>>> frame(SEAL, b"{}").hex()
'0000000273c4e447537b7d'
>>> [(count, len(data)) for count, data in pack([b'{"v":1,"seq":7,"salt":"00"}'] * 99)]
[(64, 37), (35, 29)]

A file only grows, or is cut back to a length that it had; so what a power cut leaves is a sound begin and
then anything.  `Frames` reads until the first frame that is not sound, and says where and why it stopped;
what that means is for others to say (`agent.usage.recovery`).  `Disk` is every way in which the ledger
changes the disk: a test can put one in its place that is full, or cuts the power between two of them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.base.files import make_directory, understood, write_file
from agent.wire.errors import Corrupt

HEADER, ENTRY, DEFLATED, LOST, SEAL = b"H", b"E", b"Z", b"L", b"S"
HEAD = struct.Struct(">IIc")
MAX_PAYLOAD = 65_535
BUFFER_BYTES = 65_536
_BEGUN = {kind: zlib.crc32(kind) for kind in (HEADER, ENTRY, DEFLATED, LOST, SEAL)}

# What entries are likely to hold, the likeliest last.  It is part of the format: another one needs a kind
# of frame of its own.  A window of 4 KiB reaches all of it, and takes an eighth of the memory of the usual.
DICTIONARY = (
    b'"type":"board","cpus":4,"memory_bytes":,"disk_bytes":"type":"sensor","sensor":"","unit":"","readings":,'
    b'"day":"type":"order","generation":,"sha256":"","accepted":true,"reason":""}"type":"clock","from_state":"'
    b'hub","to_state":"unsynced","step_ms":ghcr.io/quay.io/localhost:5000/127.0.0.1:5000/docker.io/library/'
    b'"reset":true,"oom_kills":1,"ended":true,"exit_code":137,"exit_code":1,"io_r":null,"io_w":null,"net_rx":null,'
    b'"net_tx":null,"mem_peak":null,{"v":1,"seq":10000,"salt":"0123456789abcdef","type":"container","boot":"",'
    b'"mono0_ms":,"mono1_ms":,"wall0_ms":17,"wall1_ms":17,"clock":"synced","lease":"","order":1,"payer":"",'
    b'"workspace":"default","app":"","service":"app","image":"@sha256:","container":"","run":"","cpu_us":,'
    b'"mem_byte_ms":,"mem_sample_ms":30000,"mem_peak":,"io_r":0,"io_w":0,"net_rx":0,"net_tx":0,"reset":false,'
    b'"oom_kills":0,"ended":false,"exit_code":null,"abs":{"cpu_us":,"io_r":0,"io_w":0,"net_rx":0,"net_tx":0}}'
)
GROUP = 64
"""Most entries that are deflated together: whoever wants one inflates them all."""
GROUP_BYTES = 60_000
"""Most bytes of them, so that they fit into a frame however they deflate."""
_WINDOW, _MEMORY = 12, 5
_LENGTH = struct.Struct(">H")


def pack(entries: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The frames of entries, in order, and how many are in each."""
    group: list[bytes] = []
    room = GROUP_BYTES
    for entry in entries:
        room -= len(entry) + 2
        if group and (room < 0 or len(group) == GROUP):
            yield from _packed(group)
            group, room = [], GROUP_BYTES - len(entry) - 2
        group.append(entry)
    if group:
        yield from _packed(group)


def _packed(group: list[bytes]) -> Iterator[tuple[int, bytes]]:
    plain = b"".join([part for entry in group for part in (_LENGTH.pack(len(entry)), entry)])
    deflating = zlib.compressobj(6, zlib.DEFLATED, -_WINDOW, _MEMORY, zdict=DICTIONARY)
    deflated = deflating.compress(plain) + deflating.flush()
    if len(deflated) < len(plain) <= GROUP_BYTES:
        yield len(group), frame(DEFLATED, deflated)
    else:
        yield from ((1, frame(ENTRY, entry)) for entry in group)


def _unpacked(deflated: bytes) -> list[bytes]:
    """The entries of a frame of kind `DEFLATED`.  Raises ValueError for one that `pack` would not make."""
    inflating = zlib.decompressobj(-_WINDOW, zdict=DICTIONARY)
    try:
        plain = inflating.decompress(deflated, GROUP_BYTES + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    entries, at, end = [], 0, len(plain)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(plain[at:start])
        entries.append(plain[start:at])
    if at != end or not inflating.eof or not entries:
        raise ValueError("not a number of entries")
    return entries


def frame(kind: bytes, payload: bytes) -> bytes:
    """The bytes of one frame."""
    return HEAD.pack(len(payload), zlib.crc32(payload, _BEGUN[kind]), kind) + payload


class Frame(NamedTuple):
    """One sound frame, and the bytes of its file that it takes: from ``at`` up to ``end``.

    An entry is of kind `ENTRY` and inflated, however it lies in the file; those of one frame share its bytes.
    """

    kind: bytes
    payload: bytes
    at: int
    end: int


class Frames:
    """The frames of a file from byte ``at`` on, up to the first that is not sound.

    Behind the loop ``at`` is where it stopped, and ``broken`` why; empty at the end of the file.
    """

    def __init__(self, path: Path, at: int = 0) -> None:
        self.path = path
        self.at = at
        self.broken = ""

    def __iter__(self) -> Iterator[Frame]:
        with reading(self.path), self.path.open("rb", buffering=BUFFER_BYTES) as file:
            file.seek(self.at)
            while head := file.read(HEAD.size):
                if len(head) < HEAD.size:
                    self.broken = "a frame is cut off"
                    return
                length, checksum, kind = HEAD.unpack(head)
                if kind not in _BEGUN or length > MAX_PAYLOAD:
                    self.broken = "no frame begins there"
                    return
                payload = file.read(length)
                if len(payload) < length:
                    self.broken = "a frame is cut off"
                    return
                if zlib.crc32(payload, _BEGUN[kind]) != checksum:
                    self.broken = "the checksum of a frame does not hold"
                    return
                try:
                    payloads = _unpacked(payload) if kind == DEFLATED else [payload]
                except ValueError as error:
                    self.broken = f"entries cannot be inflated: {error}"
                    return
                at, self.at = self.at, self.at + HEAD.size + length
                for each in payloads:
                    yield Frame(ENTRY if kind == DEFLATED else kind, each, at, self.at)


def has_seal(path: Path, after: int) -> bool:
    """Whether a sound seal stands anywhere behind byte ``after``, wherever frames may begin there."""
    with reading(path), path.open("rb") as file:
        file.seek(after)
        rest = file.read()
    at = rest.find(SEAL, HEAD.size - 1)
    while at >= 0:
        length, checksum, _ = HEAD.unpack_from(rest, at + 1 - HEAD.size)
        payload = rest[at + 1 : at + 1 + length] if length <= MAX_PAYLOAD else b""
        if len(payload) == length and zlib.crc32(payload, _BEGUN[SEAL]) == checksum:
            return True
        at = rest.find(SEAL, at + 1)
    return False


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the card cannot read within the block is Corrupt, and says which file."""
    try:
        yield
    except OSError as error:
        raise Corrupt(
            f"{path} cannot be read: {error.strerror or error}",
            code="disk-failing",
            hint="the kernel's log says more; a worn SD card is the usual reason",
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses within the block is Refused, or a ConfigError, and says where."""
    try:
        yield
    except OSError as error:
        raise understood(path, error) from error


class Disk:
    """Every way in which the ledger changes the disk.  Raises OSError, and what `write_file` does."""

    def open(self, path: Path) -> int:
        """A descriptor to read and write ``path``, which is made where it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, file: int, data: bytes, at: int) -> None:
        """Write all of ``data`` at byte ``at``."""
        view = memoryview(data)
        while view:
            written = os.pwrite(file, view, at)
            view, at = view[written:], at + written

    def sync(self, file: int) -> None:
        """Wait until what was written is on the disk, and the length of the file."""
        os.fdatasync(file)

    def cut(self, file: int, size: int) -> None:
        """Make the file as short as that."""
        os.ftruncate(file, size)

    def put(self, path: Path, data: bytes) -> None:
        """Replace a small file in one step."""
        write_file(path, data)

    def make(self, path: Path) -> None:
        """Make a directory."""
        make_directory(path)
        self._settle(path.parent)

    def rename(self, path: Path, new: Path) -> None:
        """Give a directory another name."""
        path.rename(new)
        self._settle(new.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)
        self._settle(path.parent)

    def clear(self, path: Path) -> None:
        """Remove a directory and the files in it."""
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
        self._settle(path.parent)

    def _settle(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
