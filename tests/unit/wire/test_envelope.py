"""Compression and its limits."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from agent.wire.envelope import (
    COMPRESS_ABOVE,
    JSON,
    MAX_INFLATED,
    MAX_PAYLOAD,
    Z1_JSON,
    ZLIB_JSON,
    pack,
    unpack,
)
from agent.wire.errors import Refused

VECTORS = Path(__file__).parents[2] / "vectors" / "envelope.json"


@pytest.mark.parametrize("size", [0, 1, COMPRESS_ABOVE, COMPRESS_ABOVE + 1, 10_000])
def test_what_is_packed_is_unpacked(size: int) -> None:
    payload = b"x" * size
    data, content_type = pack(payload)
    assert content_type == (JSON if size <= COMPRESS_ABOVE else Z1_JSON)
    assert unpack(data, content_type) == payload


def test_what_was_packed_once_is_unpacked_for_ever() -> None:
    for vector in json.loads(VECTORS.read_text()):
        assert unpack(bytes.fromhex(vector["packed"]), vector["content_type"]) == vector["payload"].encode()


def test_a_short_batch_takes_half_the_bytes_that_it_took_without_the_dictionary() -> None:
    [_, vector] = json.loads(VECTORS.read_text())
    payload = vector["payload"].encode()
    assert len(pack(payload)[0]) < len(zlib.compress(payload)) * 0.6


def test_another_dictionary_is_refused() -> None:
    squeezer = zlib.compressobj(zdict=b"another")
    with pytest.raises(Refused, match="not zlib data"):
        unpack(squeezer.compress(b"x" * 1000) + squeezer.flush(), Z1_JSON)


def test_no_content_type_is_json() -> None:
    assert unpack(b"{}", "") == b"{}"


@pytest.mark.parametrize(
    ("payload", "content_type", "reason"),
    [
        (b"x" * (MAX_PAYLOAD + 1), JSON, "over the limit"),
        (b"{}", "text/html", "none of application/json,"),
        (b"{}", "x" * 10_000, "none of application/json,"),
        (b"{}", ZLIB_JSON, "not zlib data"),
        (b"", ZLIB_JSON, "cut short"),
        (zlib.compress(b"x" * 1000)[:-1], ZLIB_JSON, "cut short"),
        (zlib.compress(b"x" * 1000) + b"y", ZLIB_JSON, "cut short"),
        (zlib.compress(b"x" * (MAX_INFLATED + 1)), ZLIB_JSON, "inflates to over"),
        (zlib.compress(bytes(20 * MAX_INFLATED), 9), ZLIB_JSON, "inflates to over"),
    ],
    ids=[
        "too large",
        "another type",
        "a long type",
        "not zlib",
        "empty",
        "cut",
        "more after it",
        "one over",
        "a bomb",
    ],
)
def test_what_is_not_unpacked(payload: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as raised:
        unpack(payload, content_type)
    assert len(str(raised.value)) < 300


def test_the_limit_itself_is_allowed() -> None:
    payload = b"x" * MAX_INFLATED
    assert unpack(zlib.compress(payload), ZLIB_JSON) == payload
