"""Several packages of a usage log in one body: what ``POST /ledger`` takes, and each takes much less time so.

Up to `MAX_SERIES` packages (`agent.wire.package`), one behind the other, and all of that as zlib data
(RFC 1950).  The first line of a package says how many lines follow, so where the next one begins is known.

>>> first = Package("b" * 16 + "/usage/" + "e" * 16, "n", start=0, entries=(b"{}",), checkpoint="...")
>>> second = Package(first.origin, "n", start=1, entries=(b"{}", b"{}"), checkpoint="...")
>>> read_series(encode_series([first, second])) == [first, second]
True

Called by the sync of a board and the web side of a hub.  It does no I/O.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from agent.wire.errors import Refused
from agent.wire.package import MAX_PACKAGE, Package, encode_package, read_count, read_package

MAX_SERIES = 8
"""Most packages in one body."""
MAX_BODY = 1024 * 1024
"""Most bytes of a body, as it travels."""
SQUEEZE = 1
"""Level of zlib: a small board has better things to do, and this saves most of it."""


def encode_series(packages: Sequence[Package]) -> bytes:
    """The body that carries these packages.  Raises Refused for what would not be read."""
    if not 0 < len(packages) <= MAX_SERIES:
        raise Refused(f"a body takes 1 to {MAX_SERIES} packages, not {len(packages)}")
    return zlib.compress(b"".join(map(encode_package, packages)), SQUEEZE)


def read_series(body: bytes) -> list[Package]:
    """The packages in a body, never holding more than they may be together.  Raises Refused."""
    if len(body) > MAX_BODY:
        raise Refused(f"a body of {len(body)} bytes is over the limit of {MAX_BODY}", code="too-large")
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(body, MAX_SERIES * MAX_PACKAGE)
    except zlib.error as error:
        raise Refused(f"the body is not zlib data: {error}") from error
    if inflater.unconsumed_tail:
        raise Refused("the body is larger than its packages may be", code="too-large")
    if not inflater.eof or inflater.unused_data:
        raise Refused("the body is cut short, or goes on behind its end")
    packages: list[Package] = []
    at = 0
    while at < len(text) or not packages:
        if len(packages) == MAX_SERIES:
            raise Refused(f"a body of over {MAX_SERIES} packages", code="too-large")
        end = _end(text, at)
        packages.append(read_package(text[at:end]))
        at = end
    return packages


def _end(text: bytes, at: int) -> int:
    """Where the package ends that begins at ``at``.  Raises Refused."""
    end = text.find(b"\n", at) + 1
    for _ in range(read_count(text[at:end])):
        end = text.find(b"\n", end) + 1
        if not end:
            break
    if not end:
        raise Refused("the last package is cut short")
    return end
