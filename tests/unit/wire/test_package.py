"""Packages and receipts: what one side writes the other reads, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.decode import decode_json, dumps
from agent.wire.envelope import MAX_INFLATED, MAX_PAYLOAD, pack, unpack
from agent.wire.errors import Refused
from agent.wire.package import (
    MAX_ENTRIES,
    MAX_PACKAGE,
    Package,
    Receipt,
    encode_package,
    fitting,
    read_package,
)
from agent.wire.tlog import consistency_proof, leaf_hash
from support.logs import ORIGIN, UsageLog, entry

LOG = UsageLog.of(300)
HELLO = Package(ORIGIN, "nonce", 0)
PACKAGE = Package(
    ORIGIN,
    "nonce",
    start=10,
    entries=tuple(map(entry, range(10, 20))),
    proof=tuple(consistency_proof(20, 300, LOG.read)),
    checkpoint=LOG.note(),
)


@pytest.mark.parametrize(
    "package",
    [
        HELLO,
        PACKAGE,
        replace(PACKAGE, lost=tuple(leaf_hash(entry(index)) for index in range(10))),
        replace(HELLO, lost=(bytes(32),) * MAX_ENTRIES),
    ],
)
def test_a_package_is_read_as_it_was_written(package: Package) -> None:
    assert read_package(encode_package(package)) == package
    data, content_type = pack(encode_package(package))
    assert read_package(unpack(data, content_type)) == package


def test_what_a_package_adds() -> None:
    assert (HELLO.end, HELLO.leaves()) == (0, [])
    both = replace(PACKAGE, start=8, lost=(bytes(32), bytes(range(32))))
    assert both.end == 20
    assert both.leaves() == [*both.lost, *map(leaf_hash, both.entries)]


def test_a_package_holds_as_many_as_fit() -> None:
    usual = [entry(index) for index in range(300)]
    assert fitting(usual) == MAX_ENTRIES
    assert fitting([]) == 0
    large = [b"x" * 65_535] * 20
    count = fitting(large)
    assert 0 < count < 20
    proof = (bytes(32),) * 64
    full = encode_package(Package(ORIGIN, "n" * 64, 0, tuple(large[:count]), proof, LOG.note()))
    assert len(full) <= MAX_PACKAGE < MAX_PAYLOAD
    with pytest.raises(Refused, match="over the limit"):
        encode_package(Package(ORIGIN, "n" * 64, 0, tuple(large[: count + 1]), proof, LOG.note()))


def test_what_compresses_badly_still_fits_into_a_message() -> None:
    noise = [leaf_hash(b"%d" % index) for index in range(MAX_PACKAGE)]
    entries = [b"".join(noise[at : at + 1000]).replace(b"\n", b"") for at in range(0, 20_000, 1000)]
    payload = encode_package(Package(ORIGIN, "", 0, tuple(entries[: fitting(entries)])))
    assert len(payload) > MAX_PACKAGE * 0.7
    data, content_type = pack(payload)
    assert len(data) <= MAX_PAYLOAD < MAX_INFLATED
    assert unpack(data, content_type) == payload


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (replace(PACKAGE, entries=(b"a\nb",)), "whole lines"),
        (replace(PACKAGE, entries=(b"",)), "within 1 to 65535"),
        (replace(PACKAGE, entries=(b"x" * 65_536,)), "within 1 to 65535"),
        (replace(PACKAGE, entries=(b"x",) * 257), "257 is not within"),
        (replace(PACKAGE, entries=(b"x",) * 256, lost=(bytes(32),)), "over 256 entries"),
        (replace(PACKAGE, lost=(bytes(31),)), "has 31 bytes"),
        (replace(PACKAGE, proof=(bytes(32),) * 65), "65 entries where"),
        (replace(PACKAGE, origin="a/usage/b"), "origin"),
        (replace(PACKAGE, nonce="n" * 65), "65 characters"),
        (replace(PACKAGE, start=-1), "start"),
        (replace(PACKAGE, checkpoint="x" * 16_385), "checkpoint"),
    ],
)
def test_what_nobody_would_read_is_not_written(package: Package, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        encode_package(package)


GOOD = encode_package(PACKAGE)
HEADER, _, LINES = GOOD.partition(b"\n")


def test_two_entries_are_not_one_with_a_line_break() -> None:
    joined = replace(PACKAGE, entries=(b"a\nb", b"c"))
    with pytest.raises(Refused):
        encode_package(joined)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        HEADER,
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + b"x\n",
        b"\n" + GOOD,
        HEADER.replace(b'"count":10', b'"count":9') + b"\n" + LINES,
        HEADER.replace(b'"count":10', b'"count":11') + b"\n" + LINES,
        HEADER.replace(b'"v":1', b'"v":2') + b"\n" + LINES,
        HEADER.replace(b'"proof":["', b'"proof":["!') + b"\n" + LINES,
        b"[" + HEADER + b"]\n" + LINES,
        b"{" * 40_000 + b"\n",
        b"x" * (MAX_PACKAGE + 1),
    ],
)
def test_what_is_no_package_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        read_package(payload)


def test_later_keys_are_not_looked_at() -> None:
    assert read_package(HEADER[:-1] + b',"later":1}\n' + LINES) == PACKAGE


@given(st.binary(max_size=300) | st.integers(0, len(GOOD) - 1).map(lambda at: GOOD[:at]))
def test_anything_else_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        read_package(payload)


@given(st.integers(0, len(HEADER) - 1), st.integers(0, 255))
def test_a_changed_header_is_read_or_refused(at: int, byte: int) -> None:
    payload = HEADER[:at] + bytes([byte]) + HEADER[at + 1 :] + b"\n" + LINES
    try:
        package = read_package(payload)
    except Refused:
        return
    assert read_package(encode_package(package)) == package


def test_a_receipt_is_read_as_it_was_written() -> None:
    receipt = Receipt(ORIGIN, "nonce", 300, LOG.cosigned(), pending=LOG.note())
    assert decode_json(Receipt, dumps(receipt), max_bytes=MAX_INFLATED) == receipt
    assert json.loads(dumps(Receipt(ORIGIN, "", 0, state="unknown"))) == {
        "origin": ORIGIN, "nonce": "", "size": 0, "note": "", "state": "unknown", "reason": "", "pending": "",
    }  # fmt: skip
    with pytest.raises(Refused, match="state"):
        decode_json(Receipt, dumps(receipt).replace(b'"ok"', b'"good"'), max_bytes=MAX_INFLATED)
