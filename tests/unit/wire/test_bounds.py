"""Whatever a stranger sends, reading it takes a bounded amount of memory and of time.

Large messages, filled with whatever is small to write and large to hold: the parsers
answer with a value or with Refused, and stay below `MOST_BYTES` and `MOST_S`.
"""

from __future__ import annotations

import os
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.broker import Message
from agent.wire import joining, messages, note
from agent.wire.decode import decode_json, loads
from agent.wire.envelope import JSON, MAX_INFLATED, MAX_PAYLOAD, ZLIB_JSON, unpack
from agent.wire.errors import Corrupt, Refused
from agent.wire.messages import compose, read_batch, read_text
from hub.fleet.arrivals import read_arrival

SIZE = MAX_INFLATED if os.environ.get("LICHEN_SOAK") else MAX_INFLATED // 64
"""Of the messages: `make soak` makes them as large as they may be."""
MOST_BYTES = 64 * SIZE
"""An empty list takes 56 bytes and is written in three; a copy or two of the text come on top."""
MOST_S = 0.2 + 2 * SIZE / MAX_INFLATED
"""Of a processor, some ten times what the slowest takes: what grows faster than its input takes longer."""

BOARD = "k3yd5q7c2n4xw6ba"
SIGNER = note.Signer("hub", bytes(range(32)))
PIECES = (
    b"[", b"]", b"{", b"}", b'{"a":', b"[],", b"{},", b"1,", b"-0.5,", b"1e9,", b"1e-999,", b"null,", b'"",',
    b'"\\u0000",', b'"\\ud800",', b'"\\\\",', b'"', b"\\", b",", b":", b"\x00", b"\xff", b"\xf0\x9f\x92\xa9",
    b"9", b'"held":{', b'"blocks":[', b'"sensors":[', b'"value":[', b'"mono_ms":[', b'"a":1,', b" ", b"-",
)  # fmt: skip


def read_note(payload: bytes) -> object:
    return read_text("hub", joining.HubDocument, note.open_note(payload, SIGNER.verifier))


def inflate(payload: bytes) -> object:
    return unpack(zlib.compress(payload, 1)[:MAX_PAYLOAD], ZLIB_JSON)


def arrive(payload: bytes) -> object:
    topic = f"lichen/v1/{BOARD}/up/readings"
    return read_arrival(Message(topic, zlib.compress(payload, 1), content_type=ZLIB_JSON), 0)


READERS: tuple[Callable[[bytes], object], ...] = (
    lambda payload: loads(payload, max_bytes=MAX_INFLATED),
    lambda payload: decode_json(messages.About, payload, max_bytes=MAX_INFLATED),
    lambda payload: decode_json(messages.Ack, payload, max_bytes=MAX_INFLATED),
    lambda payload: decode_json(messages.Command, payload, max_bytes=MAX_INFLATED),
    lambda payload: decode_json(joining.JoinRequest, payload, max_bytes=MAX_INFLATED),
    lambda payload: decode_json(joining.RenewRequest, payload, max_bytes=MAX_INFLATED),
    lambda payload: read_text("hub", joining.HubDocument, "lichen/hub/v1\n" + payload.decode("latin-1")),
    read_batch,
    read_note,
    inflate,
    arrive,
)


def check(read: Callable[[bytes], object], payload: bytes, most_bytes: int = MOST_BYTES) -> None:
    """Read it twice: once for the time, and once for the memory, which takes longer to count."""
    took_s = timed(read, payload)
    if took_s >= MOST_S:  # or the garbage collector had its turn, after a thousand other tests
        took_s = min(took_s, timed(read, payload))
    assert took_s < MOST_S, f"{took_s:.1f} s for {payload[:40]!r}..."
    tracemalloc.start()
    try:
        tell(read, payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most_bytes, f"{peak / 1e6:.0f} MB for {payload[:40]!r}..."


def timed(read: Callable[[bytes], object], payload: bytes) -> float:
    """Seconds of this thread's processor time."""
    began_s = time.thread_time()
    tell(read, payload)
    return time.thread_time() - began_s


def tell(read: Callable[[bytes], object], payload: bytes) -> None:
    try:
        read(payload)
        said = ""
    except (Refused, Corrupt) as error:
        said = str(error)
    assert len(said) < 1000


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """A large message made of this."""
    room = SIZE - len(head) - len(tail)
    return head + unit * (room // len(unit)) + tail


def about(field: bytes, unit: bytes) -> bytes:
    said = (
        b'{"board":"k3yd5q7c2n4xw6ba","version":"","log_key":"","seal_key":"","boot":"%s","started_ms":0,"%s":['
        % (b"b" * 32, field)
    )
    return filled(said, unit + b",", unit + b"]}")


def block(column: bytes, unit: bytes) -> bytes:
    said = (
        b'{"held":{},"blocks":[{"boot":"%s","stream":"%s","seq0":1,"clock":"hub","sensors":["a"],"%s":['
        % (
            b"b" * 32,
            b"s" * 16,
            column,
        )
    )
    return filled(said, unit + b",", unit + b"]}]}")


WORST = {
    "empty lists": filled(b"[", b"[],", b"[]]"),
    "empty tables": filled(b"[", b"{},", b"{}]"),
    "open lists": b"[" * SIZE,
    "open tables": filled(b"", b'{"a":', b""),
    "deep and closed": b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
    "a long number": b"9" * SIZE,
    "a long fraction": b"0." + b"9" * (SIZE - 2),
    "a large exponent": b"1e" + b"9" * (SIZE - 2),
    "many keys": b"{" + b",".join(b'"%06x":0' % n for n in range(SIZE // 12)) + b"}",
    "one key often": filled(b"{", b'"a":0,', b'"a":0}'),
    "escapes": filled(b'"', b"\\u0000", b'"'),
    "half surrogates": filled(b'"', b"\\ud800", b'"'),
    "an open string": b'"' + b"\\" * (SIZE - 1),
    "four-byte letters": filled(b'["', "\U0001f4a9".encode(), b'"]'),
    "one four-byte letter": filled(b'["', b"a", b'", "\xf0\x9f\x92\xa9"]'),
    "brackets in strings": filled(b'["', b"[", b'"]'),
    "sensors": about(b"sensors", b'{"name":"a","kind":""}'),
    "sensors without a name": about(b"sensors", b"{}"),
    "problems": about(b"problems", b'{"code":"a","sentence":""}'),
    "tags": about(b"sensors", b'{"name":"a","kind":"","tags":{"a":""}}'),
    "values": block(b"value", b"0"),
    "fractions": block(b"value", b".5"),
    "indices": block(b"sensor", b"0"),
    "stale rows": block(b"stale", b"0"),
    "blocks": filled(b'{"held":{},"blocks":[', b"{},", b"{}]}"),
    "gaps": filled(b'{"held":{},"gaps":[', b"{},", b"{}]}"),
    "signature lines": filled(b"lichen/hub/v1\n{}\n\n", "— a Zm9v\n".encode(), b""),
    "empty lines": b"\n" * SIZE,
    "zeros": bytes(SIZE),
    "spaces": b" " * SIZE,
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_that_we_could_think_of(name: str) -> None:
    for read in READERS:
        check(read, WORST[name])


@pytest.mark.soak
@settings(max_examples=settings.default.max_examples // 4)
@given(
    st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join),
    st.sampled_from(READERS),
)
def test_a_large_message_of_anything(
    head: bytes, unit: bytes, tail: bytes, read: Callable[[bytes], object]
) -> None:
    check(read, filled(head, unit, tail))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_bomb_is_not_inflated(depth: int) -> None:
    bomb = bytes(32 * 2**20)
    for _ in range(depth):
        bomb = zlib.compress(bomb, 9)
    assert len(bomb) <= MAX_PAYLOAD
    check(lambda payload: unpack(payload, ZLIB_JSON), bomb, 4 * MAX_INFLATED)
    if depth == 1:
        with pytest.raises(Refused, match="inflates to over"):
            unpack(bomb, ZLIB_JSON)


def test_a_signed_text_of_the_largest_size_is_read() -> None:
    text = compose("hub", {"filler": "x" * 200_000})
    signed = note.sign(text, SIGNER).encode()
    check(lambda payload: note.open_note(payload, SIGNER.verifier), signed, 64 * len(signed))


def test_what_is_too_large_is_not_even_copied() -> None:
    payload = bytes(64 * MAX_INFLATED)
    for content_type in (JSON, ZLIB_JSON):
        tracemalloc.start()
        with pytest.raises(Refused, match="over the limit"):
            unpack(payload, content_type)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000
