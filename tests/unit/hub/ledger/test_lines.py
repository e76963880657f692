"""Entries as columns: what is read at a glance is what is read word for word, and never more."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Refused
from agent.wire.usage import ContainerRecord, Counters, Other, encode, numbered, read
from hub.ledger.lines import _PATTERNS, COLUMNS, Line, line_of, read_line
from hub.store.ledgers import RecordRow
from support.boardlog import began, delivered, hole, offered, used

AMOUNTS = st.none() | st.integers(0, 2**63 - 1) | st.integers(0, 1000)
COUNTS = st.integers(0, 2**53) | st.integers(0, 1000)
TIMES = st.integers(-(2**53), 2**53) | st.integers(-10, 10)
TEXTS = st.text(max_size=256) | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=256)
COUNTERS = st.builds(Counters, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
PIECES = [b"", *(bytes([each]) for each in b'0-1",}] \\\n\x00\x7fe'), b"9" * 15, b"9" * 19, b"\xc3\xa9"]
"""What a byte or two may be replaced by."""


@st.composite
def containers(draw: st.DrawFn) -> ContainerRecord:
    """Any record of a container."""
    begin, end = sorted((draw(COUNTS), draw(COUNTS)))
    given: dict[str, Any] = {
        name: draw(AMOUNTS)
        for name in ("cpu_us", "mem_byte_ms", "mem_peak", "io_r", "io_w", "net_rx", "net_tx", "oom_kills")
    }
    given |= {name: draw(TEXTS) for name in ("lease", "payer", "workspace", "app", "service", "image", "run")}
    return replace(
        used(1),
        **given,
        seq=draw(COUNTS),
        mono0_ms=begin,
        mono1_ms=end,
        wall0_ms=draw(TIMES),
        wall1_ms=draw(TIMES),
        clock=draw(st.sampled_from(["synced", "hub", "unsynced"])),
        order=draw(COUNTS),
        mem_sample_ms=draw(COUNTS),
        reset=draw(st.booleans()),
        ended=draw(st.booleans()),
        exit_code=draw(st.none() | st.integers(-(2**31), 2**31 - 1)),
        abs=draw(COUNTERS),
    )


def slowly(entry: bytes) -> Line | Other:
    """The same, word for word."""
    record = read(entry)
    return record if isinstance(record, Other) else line_of(record)


def same(found: Line | Other, expected: Line | Other) -> bool:
    """Whether they say the same; at a glance there is no record beside it."""
    if isinstance(found, Line) and isinstance(expected, Line):
        return found._replace(record=None) == expected._replace(record=None)
    return found == expected


def test_examples_are_right() -> None:
    assert doctest.testmod(importlib.import_module("hub.ledger.lines")).failed == 0


def test_the_pattern_has_every_key_of_a_record() -> None:
    assert list(_PATTERNS) == [each.name for each in fields(ContainerRecord)]
    named = ["log", "seq", *Line._fields[1:8], "at_ms", "certain", *COLUMNS]
    assert named == [each.name for each in fields(RecordRow)]


@pytest.mark.parametrize("counters", [Counters(), Counters(5), Counters(io_w=7), Counters(1, 2, 3, 4, 5)])
def test_what_boards_write_is_read_at_a_glance(counters: Counters) -> None:
    record = replace(used(3), abs=counters)
    found = read_line(encode(record))
    assert isinstance(found, Line)
    assert found.record is None
    assert same(found, line_of(record))


@given(containers())
def test_any_record_of_a_container_is_read_the_same(record: ContainerRecord) -> None:
    entry = encode(record)
    assert same(read_line(entry), slowly(entry))


@given(containers(), st.data())
def test_a_changed_entry_is_read_the_same_or_refused(record: ContainerRecord, data: st.DataObject) -> None:
    entry = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(entry) - 1))
        entry[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(PIECES))
    try:
        expected = slowly(bytes(entry))
    except Refused:
        with pytest.raises(Refused):
            read_line(bytes(entry))
    else:
        assert same(read_line(bytes(entry)), expected)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"abs":{"cpu_us":4000}', b'"abs":{"cpu_us":4000,}'),
        (b'"abs":{"cpu_us":4000}', b'"abs":{,"cpu_us":4000}'),
        (b'"abs":{"cpu_us":4000}', b'"abs":{"cpu_us":4000,"cpu_us":4000}'),
        (b'"abs":{"cpu_us":4000}', b'"abs":{"cpu_us":-1}'),
        (b'"mono0_ms":10800000', b'"mono0_ms":99999999'),
        (b'"cpu_us":1000', b'"cpu_us":01000'),
        (b'"ended":false', b'"ended":0'),
    ],
)
def test_what_is_no_record_is_refused(good: bytes, bad: bytes) -> None:
    entry = encode(used(3))
    assert good in entry
    with pytest.raises(Refused):
        read_line(entry.replace(good, bad))


def test_other_kinds_have_their_columns_and_their_record() -> None:
    for record in (began(), offered(2), delivered(20_000), hole(3, 4)):
        found = read_line(encode(numbered(record, 5)))
        assert isinstance(found, Line)
        assert found.record == numbered(record, 5)
    values = dict(zip(COLUMNS, line_of(delivered(20_000, 17)).columns, strict=True))
    assert [values[name] for name in ("sensor", "unit", "readings", "day")] == ["room", "Cel", 17, 20_000]
    later = read_line(b'{"v":1,"seq":1,"salt":"%s","type":"future"}' % (b"0" * 32))
    assert isinstance(later, Other)
