"""What travels: batches and signed texts, there and back, and every way to get them wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.wire import messages
from agent.wire.decode import decode_json, dumps
from agent.wire.errors import Refused
from agent.wire.messages import (
    Gap,
    Held,
    Reading,
    block_of,
    compose,
    frame,
    read_batch,
    read_text,
    readings_of,
)

STREAM = "s" * 16
BOOT = "b" * 32
READINGS = [
    Reading("room", 21.5, 900, 1_700_000_000_000),
    Reading("room", None, 10_900, 1_700_000_010_000),
    Reading("capacity.cpu", 3.0, 10_901, 1_699_999_000_000),
]


def batch_of(**changes: Any) -> dict[str, Any]:
    """A good batch as plain data; ``changes`` go into its one block."""
    block = block_of(READINGS, boot=BOOT, stream=STREAM, seq0=7, clock="synced")
    batch: dict[str, Any] = json.loads(frame({STREAM: Held(7, 10)}, (), [dumps(block)]))
    batch["blocks"][0].update(changes)
    return batch


def test_readings_survive_the_way() -> None:
    blocks = [
        block_of(READINGS, boot=BOOT, stream=STREAM, seq0=7, clock="synced"),
        block_of(READINGS[:1], boot=BOOT, stream=STREAM, seq0=10, clock="unsynced"),
    ]
    gap = Gap(STREAM, 1, 6, 0, 5)
    batch = read_batch(frame({STREAM: Held(7, 11)}, [gap], [dumps(block) for block in blocks]))
    assert batch.blocks == tuple(blocks)
    assert [reading for block in batch.blocks for reading in readings_of(block)] == [*READINGS, READINGS[0]]
    assert batch.held == {STREAM: Held(7, 11)}
    assert batch.gaps == (gap,)
    assert batch.blocks[0].next == 10


def test_a_batch_of_nothing_still_says_what_is_held() -> None:
    assert read_batch(frame({STREAM: Held(7, 7)}, (), [])) == messages.Batch({STREAM: Held(7, 7)})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boot": "B" * 32}, "blocks[0].boot: '" + "B" * 32 + "' is not 32 hexadecimal digits"),
        ({"stream": "+"}, "blocks[0].stream: '+' is not 16 characters of a-z and 2-7"),
        ({"seq0": 0}, "blocks[0].seq0: 0 is not within 1 to"),
        ({"clock": "right"}, "blocks[0].clock: 'right' is not one of"),
        ({"sensors": []}, "blocks[0].sensors: 0 entries where 1 to 512"),
        ({"sensors": ["room", "../x"]}, "blocks[0].sensors[1]: '../x' is not lower-case letters"),
        ({"sensors": ["room"]}, "blocks[0].sensor: an index is outside of sensors (0 to 0)"),
        ({"sensor": [0, 0, -1]}, "blocks[0].sensor: an index is outside of sensors"),
        ({"sensor": [0, 0]}, "blocks[0].mono_ms: 3 entries where sensor has 2"),
        ({"sensor": []}, "blocks[0].sensor: 0 entries where 1 to"),
        ({"value": [1.0, 2.0]}, "blocks[0].value: 2 entries where sensor has 3"),
        ({"value": [1.0, 2.0, "3"]}, "blocks[0].value[2]: expected a number, not '3'"),
        ({"wall_ms": [1, 2]}, "blocks[0].wall_ms: 2 entries where sensor has 3"),
        ({"wall_ms": [1, 2, 2**62]}, "blocks[0].wall_ms: the differences add up to more than"),
        ({"mono_ms": [2**53, 1, -1]}, "blocks[0].mono_ms: the differences add up to more than"),
    ],
)
def test_wrong_blocks_are_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as raised:
        read_batch(json.dumps(batch_of(**changes)).encode())
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize("after", [{"seq0": 11}, {"seq0": 9}, {"seq0": 10, "stream": "t" * 16}])
def test_blocks_follow_each_other(after: dict[str, Any]) -> None:
    batch = batch_of()
    batch["blocks"].append({**batch["blocks"][0], **after})
    with pytest.raises(Refused, match=f"does not follow {STREAM}/9"):
        read_batch(json.dumps(batch).encode())


def test_the_number_of_streams_is_bounded() -> None:
    held = {f"{'a' * 14}{a}{b}": {"low": 1, "next": 1} for a in "abcdefghijkl" for b in "abcdefghijkl"}
    with pytest.raises(Refused, match=r"^held: 144 entries where 0 to 128 are allowed$"):
        read_batch(json.dumps({"held": held}).encode())


def test_a_signed_text_is_read_as_what_it_says_it_is() -> None:
    command = messages.Command("c1", "board", "nonce", "live", 5, {"for_s": 60})
    text = compose("command", command)
    assert text.startswith("lichen/command/v1\n")
    assert read_text("command", messages.Command, text) == command
    for other in ("lichen/order/v1\n{}\n", "", "\n", text.replace("v1", "v2"), text[1:], "x" * 10**6):
        with pytest.raises(Refused, match="the signed text begins with") as raised:
            read_text("command", messages.Command, other)
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("tail", ["\n{}\n", "x", "\n"])
def test_a_signed_text_is_two_lines_and_no_more(tail: str) -> None:
    text = compose("time", {"at_ms": 5})
    with pytest.raises(Refused):
        read_text("time", messages.Ack, text + tail)


def test_presence_of_a_newer_side_is_read() -> None:
    payload = dumps({"state": "online", "nonce": "n", "boot": BOOT, "at_ms": 5, "mood": "good"})
    assert decode_json(messages.Presence, payload, max_bytes=1000) == messages.Presence(
        "online", "n", BOOT, 5
    )
