"""Compression and its limits."""

from __future__ import annotations

import zlib

import pytest

from agent.wire.envelope import COMPRESS_ABOVE, JSON, MAX_INFLATED, MAX_PAYLOAD, ZLIB_JSON, pack, unpack
from agent.wire.errors import Refused


@pytest.mark.parametrize("size", [0, 1, COMPRESS_ABOVE, COMPRESS_ABOVE + 1, 10_000])
def test_what_is_packed_is_unpacked(size: int) -> None:
    payload = b"x" * size
    data, content_type = pack(payload)
    assert content_type == (JSON if size <= COMPRESS_ABOVE else ZLIB_JSON)
    assert unpack(data, content_type) == payload


def test_no_content_type_is_json() -> None:
    assert unpack(b"{}", "") == b"{}"


@pytest.mark.parametrize(
    ("payload", "content_type", "reason"),
    [
        (b"x" * (MAX_PAYLOAD + 1), JSON, "over the limit"),
        (b"{}", "text/html", "neither application/json nor"),
        (b"{}", "x" * 10_000, "neither application/json nor"),
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
