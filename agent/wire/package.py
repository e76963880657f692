"""How records of a usage log travel: the package of a board, and the receipt of its hub.

A *package* takes up to 256 entries to the hub, from the size that the hub names, with the checkpoint that
holds them.  It is one line of JSON, and then the entries, each exactly as it is hashed, on a line of its own.
A package without entries asks for the receipt.

>>> package = Package("b" * 16 + "/usage/" + "e" * 16, "nonce", start=4, entries=(b"{}",), checkpoint="...")
>>> print(encode_package(package).decode(), end="")
{"v":1,"origin":"bbbbbbbbbbbbbbbb/usage/eeeeeeeeeeeeeeee","nonce":"nonce","start":4,"count":1,"proof":[],"checkpoint":"...","lost":[]}
{}
>>> read_package(encode_package(package)) == package
True

The *receipt* answers what the hub holds now.  It is taken at its word only for where to go on from; that the
hub holds the entries is said by its cosignature in ``note`` alone (`agent.wire.cosignature`).

Called by the sync of a board and the witness of a hub.  It does no I/O, signs nothing and checks no proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from agent.wire.canonical import from_base64, to_base64
from agent.wire.decode import Length, Range, decode_json, dumps
from agent.wire.envelope import MAX_PAYLOAD
from agent.wire.errors import Refused
from agent.wire.messages import BootId, Count, Millis
from agent.wire.tlog import HASH, leaf_hash
from agent.wire.usage import MAX_ENTRY, Long, Origin

MAX_ENTRIES = 256
"""Most entries of a package."""
MAX_PACKAGE = MAX_PAYLOAD - 4096
"""Most bytes of a package: what does not compress still fits into a message."""
MAX_HEADER = 32_768

Nonce = Annotated[str, Length(0, 64)]


@dataclass(frozen=True, slots=True)
class Package:
    """``up/usage``, and a part of the body of POST /ledger: entries ``start`` to ``end`` - 1 of a log.

    ``checkpoint``: a note of a size of at least ``end``; ``proof``: the consistency proof from ``end`` to it.
    ``lost``: leaf hashes in place of entries that the board no longer holds; they come before the others.
    Without either it asks what the hub holds.
    """

    origin: str
    nonce: str
    start: int
    entries: tuple[bytes, ...] = ()
    proof: tuple[bytes, ...] = ()
    checkpoint: str = ""
    lost: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        """The size of the log when the package is taken in."""
        return self.start + len(self.lost) + len(self.entries)

    def leaves(self) -> list[bytes]:
        """The leaf hashes from ``start`` on."""
        return [*self.lost, *map(leaf_hash, self.entries)]


_Hash = Annotated[str, Length(44, 44)]
_Note = Annotated[str, Length(0, 16_384)]


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line of a package; the entries follow, each on its own line."""

    v: Literal[1]
    origin: Origin
    nonce: Nonce
    start: Count
    count: Annotated[int, Range(0, MAX_ENTRIES)]
    proof: Annotated[tuple[_Hash, ...], Length(0, 64)] = ()
    checkpoint: _Note = ""
    lost: Annotated[tuple[_Hash, ...], Length(0, MAX_ENTRIES)] = ()


def fitting(entries: Iterable[bytes]) -> int:
    """How many of ``entries``, from the first on, go into one package."""
    room, count = MAX_PACKAGE - MAX_HEADER, 0
    for entry in entries:
        room -= len(entry) + 1
        if room < 0 or count == MAX_ENTRIES:
            break
        count += 1
    return count


def encode_package(package: Package) -> bytes:
    """The bytes of a package.  Raises Refused for one that would not be read."""
    header = _Header(
        1,
        package.origin,
        package.nonce,
        package.start,
        len(package.entries),
        tuple(map(to_base64, package.proof)),
        package.checkpoint,
        tuple(map(to_base64, package.lost)),
    )
    payload = b"".join(line + b"\n" for line in (dumps(header), *package.entries))
    read_package(
        payload
    )  # what no hub would take, such as an entry with a line break, does not leave a board
    return payload


def read_count(line: bytes) -> int:
    """How many lines follow the first ``line`` of a package.  Raises Refused."""
    return decode_json(_Header, line, max_bytes=MAX_HEADER).count


def read_package(payload: bytes) -> Package:
    """Decode and check a package; its entries are taken as they are.  Raises Refused."""
    if len(payload) > MAX_PACKAGE:
        raise Refused(
            f"a package of {len(payload)} bytes is over the limit of {MAX_PACKAGE}", code="too-large"
        )
    first, _, rest = payload.partition(b"\n")
    header = decode_json(_Header, first, max_bytes=MAX_HEADER)
    lines = rest.split(b"\n")
    if lines.pop() or len(lines) != header.count:
        raise Refused(f"the package does not hold the {header.count} whole lines that it names")
    if len(header.lost) + header.count > MAX_ENTRIES:
        raise Refused(f"a package of over {MAX_ENTRIES} entries", code="too-large")
    for line in lines:
        if not 0 < len(line) <= MAX_ENTRY:
            raise Refused(f"an entry of {len(line)} bytes is not within 1 to {MAX_ENTRY}", code="too-large")
    return Package(
        header.origin,
        header.nonce,
        header.start,
        tuple(lines),
        _hashes(header.proof),
        header.checkpoint,
        _hashes(header.lost),
    )


def _hashes(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(from_base64(each, "hash", HASH) for each in texts)


@dataclass(frozen=True, slots=True)
class Receipt:
    """``down/receipt`` (retained), and the answer to POST /ledger: what the hub holds of a log.

    ``note``: the checkpoint with the hub's cosignature, or empty while there is none.  State "behind": the
    package did not begin at ``size``, go on from there; "conflict": the hub holds another history and keeps
    both notes, a new epoch must begin; "unknown": nothing is held of this log yet.  ``pending``: the largest
    checkpoint of this log that the hub saw signed, when that is of a larger size than it holds.
    """

    origin: Origin
    nonce: Nonce
    size: Count
    note: _Note = ""
    state: Literal["ok", "behind", "conflict", "unknown"] = "ok"
    reason: Long = ""
    pending: _Note = ""


@dataclass(frozen=True, slots=True)
class LocalSeal:
    """Signed as kind "seal": what was written before the hub's size is known; it binds the log to nothing."""

    origin: Origin
    size: Count
    root: _Hash
    boot: BootId
    at_ms: Millis
