"""Several packages in one body: what is read, and what is refused in bounded memory."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from agent.wire.errors import Refused
from agent.wire.package import MAX_ENTRIES, MAX_PACKAGE, Package, encode_package
from agent.wire.series import MAX_BODY, MAX_SERIES, encode_series, read_series

ORIGIN = "b" * 16 + "/usage/" + "e" * 16
PACKAGE = Package(ORIGIN, "n", 0, (b"{}", b'{"a":1}'), (bytes(32),), "...\n", (bytes(32),))


def test_packages_of_all_kinds_come_back() -> None:
    question = Package(ORIGIN, "q", 7)
    full = Package(ORIGIN, "n", 9, tuple(b'{"n":%d}' % n for n in range(MAX_ENTRIES)), (), "...\n")
    for packages in ([PACKAGE], [question], [PACKAGE, question, full], [full] * MAX_SERIES):
        assert read_series(encode_series(packages)) == packages


@pytest.mark.parametrize("count", [0, MAX_SERIES + 1])
def test_a_body_has_some_packages(count: int) -> None:
    with pytest.raises(Refused, match="1 to 8 packages"):
        encode_series([PACKAGE] * count)


def squeezed(text: bytes) -> bytes:
    return zlib.compress(text)


WHOLE = encode_package(PACKAGE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cut short"),
        (b"{}", "not zlib"),
        (squeezed(WHOLE)[:-3], "cut short"),
        (squeezed(WHOLE) + b"more", "goes on behind"),
        (squeezed(b""), "JSON"),
        (squeezed(WHOLE[:-1]), "cut short"),
        (squeezed(WHOLE[:-9]), "cut short"),
        (squeezed(WHOLE + b"{}\n"), "v: missing"),
        (squeezed(WHOLE + b"\n"), "JSON"),
        (squeezed(WHOLE * (MAX_SERIES + 1)), "over 8 packages"),
        (squeezed(bytes(MAX_SERIES * MAX_PACKAGE + 1)), "larger than"),
        (bytes(MAX_BODY + 1), "over the limit"),
    ],
)
def test_what_is_no_body_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_series(body)


def test_a_package_is_held_to_its_own_form() -> None:
    text = encode_package(PACKAGE).replace(b'"count":2', b'"count":3')
    with pytest.raises(Refused, match="cut short"):
        read_series(squeezed(text))
    other = encode_package(replace(PACKAGE, entries=(b"{}",)))
    with pytest.raises(Refused):
        read_series(squeezed(text + other))
