"""Whatever arrives, each parser answers with a value or with one of our errors."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import joining, messages, topics
from agent.wire.decode import decode, decode_json, dumps, loads, plain
from agent.wire.envelope import JSON, ZLIB_JSON, pack, unpack
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.messages import Reading, block_of, frame, read_batch, readings_of
from agent.wire.note import Signer, Verifier, generate, open_note, sign
from agent.wire.seal import SealKey, seal
from support.drawing import changed, plain_data

pytestmark = pytest.mark.soak

MESSAGES = (
    messages.Presence, messages.About, messages.Batch, messages.Ack, messages.Command, messages.Reply,
    messages.Live, messages.HubTime,
    joining.HubDocument, joining.JoinFile, joining.JoinProof, joining.JoinRequest, joining.JoinAnswer,
    joining.Challenge, joining.RenewProof, joining.RenewRequest, joining.RenewAnswer,
)  # fmt: skip
SIGNER = Signer("board", bytes(range(32)))
BATCH = json.loads(
    frame(
        {"s" * 16: messages.Held(7, 9)},
        (messages.Gap("s" * 16, 1, 6, 0, 5),),
        [
            dumps(
                block_of(
                    [Reading("room", 21.5, 900, 5)] * 2, boot="b" * 32, stream="s" * 16, seq0=7, clock="hub"
                )
            )
        ],
    )
)


@given(st.sampled_from(MESSAGES), plain_data, st.booleans())
def test_decode_of_anything(cls: type[object], value: Any, strict: bool) -> None:
    refusal = ConfigError if strict else Refused
    try:
        decoded = decode(cls, value, strict=strict)
    except refusal as error:
        message = str(error)
    else:
        message = ""
        assert decode(cls, plain(decoded)) == decoded
    assert len(message) < 1000
    assert "\n" not in message


@given(changed(BATCH))
def test_a_batch_that_was_tampered_with(value: Any) -> None:
    try:
        batch = read_batch(json.dumps(value).encode())
    except Refused:
        return
    for block in batch.blocks:
        readings = list(readings_of(block))
        assert len(readings) == block.next - block.seq0
        assert all(abs(reading.wall_ms) <= messages.MAX_MS for reading in readings)
        assert all(reading.value is None or math.isfinite(reading.value) for reading in readings)


@given(st.binary() | st.text().map(str.encode) | plain_data.map(lambda value: json.dumps(value).encode()))
def test_loads_of_anything(payload: bytes) -> None:
    try:
        value = loads(payload, max_bytes=1000)
    except Refused:
        return
    assert loads(dumps(value), max_bytes=10_000) == value


@given(
    st.lists(
        st.builds(
            Reading,
            st.sampled_from(["room", "capacity.cpu", "t-1"]),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 2**40),
            st.integers(0, 2**42),
        ),
        min_size=1,
    )
)
def test_readings_come_back_as_they_were(readings: list[Reading]) -> None:
    block = block_of(readings, boot="b" * 32, stream="s" * 16, seq0=1, clock="synced")
    assert list(readings_of(decode_json(messages.Block, dumps(block), max_bytes=10**6))) == readings


@given(st.binary(max_size=2000), st.sampled_from([JSON, ZLIB_JSON, "", "text/plain"]))
def test_unpack_of_anything(payload: bytes, content_type: str) -> None:
    try:
        unpack(payload, content_type)
    except Refused:
        return
    assert unpack(*pack(payload)) == payload


@given(
    st.text()
    | st.lists(
        st.sampled_from(["lichen", "v1", "k3yd5q7c2n4xw6ba", "up", "down", "reply", "ack", "+", "#", ""])
    ).map("/".join)
)
def test_topics_of_anything(topic: str) -> None:
    try:
        parsed = topics.parse(topic)
    except Refused:
        return
    build = topics.up if parsed.direction == "up" else lambda board, leaf, _: topics.down(board, leaf)
    assert build(parsed.board, parsed.leaf, parsed.id) == topic


@given(st.text(st.characters(exclude_categories=())) | st.binary())
def test_notes_of_anything(note: str | bytes) -> None:
    with pytest.raises((Refused, Corrupt)):
        open_note(note, SIGNER.verifier)


@given(st.text(st.characters(exclude_categories=()), max_size=40), st.data())
def test_a_note_with_one_change_is_never_another_text(text: str, data: st.DataObject) -> None:
    try:
        note = sign(text + "\n", SIGNER)
    except Refused:
        return
    assert open_note(note, SIGNER.verifier) == text + "\n"
    at = data.draw(st.integers(0, len(note)))
    cut = data.draw(st.integers(0, 3))
    other = note[:at] + data.draw(st.text(max_size=3)) + note[at + cut :]
    try:
        assert open_note(other, SIGNER.verifier) == text + "\n"
    except (Refused, Corrupt):
        assert other != note


@given(st.text() | st.text(alphabet="PRIVATEKEY+board0123456789abcdef=/"))
def test_keys_of_anything(text: str) -> None:
    for parse in (Verifier.parse, Signer.parse, SealKey.parse):
        with pytest.raises(Refused):
            parse(text)


@given(st.binary(max_size=100))
def test_public_keys_of_anything(raw: bytes) -> None:
    try:
        verifier = Verifier("a", raw)
    except Refused:
        return
    assert Verifier.parse(verifier.vkey) == verifier


@given(st.text() | st.binary().map(lambda raw: seal(SealKey.parse("A" * 43 + "=").public, raw)))
def test_boxes_of_anything(box: str) -> None:
    with pytest.raises((Refused, Corrupt)):
        SealKey.parse("B" * 42 + "A=").unseal(box)


def test_what_is_generated_is_what_is_parsed() -> None:
    signer = generate()
    assert Signer.parse(signer.skey) == signer
