"""Records: the same bytes each time, read as they were written, and what is none is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Refused
from agent.wire.tlog import leaf_hash
from agent.wire.usage import (
    MAX_ENTRY,
    BoardRecord,
    ClockRecord,
    ContainerRecord,
    EpochRecord,
    HoleRecord,
    Known,
    OrderRecord,
    Other,
    SensorRecord,
    draw_epoch,
    draw_salt,
    encode,
    head,
    numbered,
    origin_of,
    read,
    split_origin,
)
from support.drawing import changed
from support.logs import entry, record

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "usage-records.json").read_text("utf-8"))
BOARD = "k3yd5q7c2n4xw6ba"
HEAD: dict[str, Any] = {
    "salt": "0f" * 16, "boot": "ab" * 16, "mono0_ms": 0, "mono1_ms": 5,
    "wall0_ms": -1, "wall1_ms": 4, "clock": "unsynced",
}  # fmt: skip
EACH: tuple[Known, ...] = (
    record(1),
    BoardRecord(**HEAD, cpus=4, memory_bytes=2**63 - 1, disk_bytes=0),
    SensorRecord(**HEAD, sensor="room", unit="Cel", readings=8640, day=19_700),
    OrderRecord(**HEAD, generation=3, sha256="0" * 64, accepted=False, reason="image without digest"),
    ClockRecord(**HEAD, from_state="unsynced", to_state="hub", step_ms=-5),
    EpochRecord(**HEAD, reason="first", previous="a\n8\n…\n"),
    HoleRecord(**HEAD, first=3, count=9, reason="the hub was restored"),
)


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: str(case["name"]))
def test_records_of_the_vectors(case: dict[str, str]) -> None:
    raw = case["entry"].encode()
    found = read(raw)
    assert type(found).__name__ == case["class"]
    assert leaf_hash(raw).hex() == case["leaf"]
    if not isinstance(found, Other):
        assert encode(found) == raw


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: str(case["name"]))
def test_what_is_no_record_of_the_vectors(case: dict[str, str]) -> None:
    with pytest.raises(Refused):
        read(case["entry"].encode())


@pytest.mark.parametrize("each", EACH, ids=lambda each: each.type)
def test_a_record_is_read_as_it_was_written(each: Known) -> None:
    numbered_one = numbered(each, 12)
    assert read(encode(numbered_one)) == numbered_one
    assert encode(each, 12) == encode(numbered_one)
    assert head(encode(each, 12)) == (1, 12, each.type)
    assert list(json.loads(encode(each)))[:4] == ["v", "seq", "salt", "type"]


def test_what_cannot_be_counted_is_null_and_said() -> None:
    written = json.loads(encode(record(1)))
    assert "io_r" in written
    assert written["io_r"] is None
    assert written["exit_code"] is None
    without = json.loads(entry(1))
    del without["io_r"]
    with pytest.raises(Refused, match=r"entry 1\.io_r: missing"):
        read(json.dumps(without, separators=(",", ":")).encode())


def test_later_kinds_and_versions_are_kept_as_they_are() -> None:
    for version, kind in ((2, "container"), (1, "gpu")):
        raw = b'{"v":%d,"seq":7,"salt":"%s","type":"%s","watts":[1.5]}' % (version, b"0" * 32, kind.encode())
        other = read(raw)
        assert isinstance(other, Other)
        assert (other.v, other.seq, other.type, other.data["watts"]) == (version, 7, kind, [1.5])


def test_later_keys_are_not_looked_at() -> None:
    raw = entry(1)[:-1] + b',"watts":5}'
    assert read(raw) == record(1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        entry(1)[1:],
        b" " + entry(1),
        entry(1).replace(b'"v":1', b'"v":0'),
        entry(1).replace(b'"v":1', b'"v": 1'),
        entry(1).replace(b'"v":1', b'"v":true'),
        entry(1).replace(b'"seq":1', b'"seq":01'),
        entry(1).replace(b'"seq":1', b'"seq":-1'),
        entry(1).replace(b'"seq":1', b'"seq":1.0'),
        entry(1).replace(b'"seq":1', b'"seq":"1"'),
        entry(1).replace(b'"seq":1', b'"seq":' + b"9" * 17),
        entry(1).replace(b'"seq":1,', b""),
        entry(1).replace(b'"salt":"', b'"salt":"0'),
        entry(1).replace(b'"type":"container"', b'"type":"Container"'),
        entry(1).replace(b'"type":"container"', b'"type":""'),
        entry(1)[:-1] + b',"seq":2}',
        entry(1)[:-1] + b"\n}",
        entry(1)[:-1],
        entry(1) + b"}",
        entry(1)[:-1] + b',"x":"' + b"x" * MAX_ENTRY + b'"}',
        entry(1)[:-1] + b',"x":"\xff"}',
    ],
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        read(raw)


def test_an_entry_as_long_as_it_may_be() -> None:
    order = OrderRecord(**HEAD, generation=1, sha256="0" * 64, accepted=False, reason="é" * 4096)
    assert read(encode(order)) == order
    epoch = EpochRecord(**HEAD, reason="", previous="\n" * 16_384)
    assert read(encode(epoch)) == epoch
    with pytest.raises(Refused, match="over the limit of 65535") as raised:
        encode(replace(epoch, previous="\x01" * 16_384))
    assert raised.value.code == "too-large"


def test_no_time_runs_backwards_within_a_boot() -> None:
    backwards = replace(record(1), mono0_ms=7, mono1_ms=5)
    with pytest.raises(Refused, match="entry 1 ends 2 ms before it begins"):
        encode(backwards)
    with pytest.raises(Refused, match="before it begins"):
        read(entry(1).replace(b'"mono0_ms":600000', b'"mono0_ms":1200001'))


def test_counts_of_63_bits_and_no_more() -> None:
    raw = entry(1).replace(b'"cpu_us":1000001', b'"cpu_us":9223372036854775807')
    found = read(raw)
    assert isinstance(found, ContainerRecord)
    assert found.cpu_us == 2**63 - 1
    with pytest.raises(Refused):
        read(raw.replace(b"9223372036854775807", b"9223372036854775808"))
    with pytest.raises(Refused, match="cpu_us"):
        read(raw.replace(b"9223372036854775807", b"-1"))


@given(st.sampled_from(EACH).flatmap(lambda each: changed(json.loads(encode(each)))))
def test_a_changed_record_is_read_or_refused(value: Any) -> None:
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Refused):
        found = read(raw)
        assert isinstance(found, Other) or read(encode(found)) == found


def test_salts_and_epochs_are_drawn() -> None:
    assert len({draw_salt() for _ in range(100)}) == 100
    assert len({BoardRecord(**HEAD | {"salt": draw_salt()}, cpus=1, memory_bytes=1, disk_bytes=1).salt}) == 1
    plain = {key: value for key, value in HEAD.items() if key != "salt"}
    drawn = {HoleRecord(**plain, first=0, count=1, reason="").salt for _ in range(100)}
    assert len(drawn) == 100
    epoch = draw_epoch()
    assert split_origin(origin_of(BOARD, epoch)) == (BOARD, epoch)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "a/usage/b",
        f"{BOARD}/usage/",
        f"{BOARD}/usage/{BOARD}/",
        f"{BOARD}/usage/{BOARD[:-1]}1",
        f"{BOARD}/usage/../x",
        f"{BOARD.upper()}/usage/{BOARD}",
    ],
)
def test_no_other_name_is_an_origin(origin: str) -> None:
    with pytest.raises(Refused, match="not the origin of a usage log"):
        split_origin(origin)
