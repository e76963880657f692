"""JSON from strangers: what is let through, what is not, and that nothing hangs or crashes."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.wire.errors import Refused
from agent.wire.plain import MAX_DEPTH, dumps, loads, plain

GOOD = [
    b"null",
    b" [ 1 , 2.5e10, -0.0, 1e-999 ] ",
    b'"\\ud83c\\udf19 \\u0000"',
    b"9223372036854775807",
    b"-9223372036854775808",
    b"0.12345678901234567890123456789",
    b'"99999999999999999999999999"',
    b"1e308",
    b'{"a":"1e999","b":"0123456789012345678901234567890123456789","c":"sha256:1e999","d":1}',
    b'{"a":{"b":[{}]}}',
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    b"[" + b"[]," * 1000 + b'{}, "[[[[", "\\"[["]',
    '"é"'.encode(),
]
BAD = {
    b"": "Expecting value",
    b"{": "Expecting property name",
    b"[1,]": "not acceptable JSON",  # Python 3.13 has words of its own for it
    b"{'a': 1}": "Expecting property name",
    b"[1] 2": "Extra data",
    b"NaN": "NaN is not a JSON number",
    b"[Infinity]": "Infinity is not a JSON number",
    b"-Infinity": "-Infinity is not a JSON number",
    b"1e999": "Out of range float",
    b"[-1E+400]": "Out of range float",
    b'{"a":"5e1234567","b":[0.5E1234567]}': "Out of range float",
    b'{"a":"' + b"12e345 " * 20 + b'","b":\n-1e400}': "Out of range float",
    b"1" + b"0" * 400 + b".0": "Out of range float",
    b'{"a":"b","c":' + b"1" * 40 + b"}": "beyond 64 bits",
    b"0." + b"1" * 40 + b"e400": "Out of range float",
    b"9223372036854775808": "beyond 64 bits",
    b"-9223372036854775809": "beyond 64 bits",
    b"1" * 5000: "beyond 64 bits",
    b'{"a":1,"b":2,"a":1}': "the key 'a' appears twice",
    b'[{"\\u0061":1,"a":1}]': "the key 'a' appears twice",
    b'"\\ud800"': "surrogates not allowed",
    b'{"\\uDFFF":1}': "surrogates not allowed",
    b'"\xff"': "invalid start byte",
    b'"\xed\xa0\x80"': "invalid continuation byte",
    b"\xef\xbb\xbf[]": "Expecting value",
    "[1]".encode("utf-16"): "invalid start byte",
    b'"a\nb"': "Invalid control character",
    b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1): f"nested over {MAX_DEPTH} levels",
    b'{"a":' * 100 + b"1" + b"}" * 100: f"nested over {MAX_DEPTH} levels",
    b'{"a":[' * 33 + b"1" + b"]}" * 33: f"nested over {MAX_DEPTH} levels",
    b"[" * 100_000 + b"]" * 100_000: f"nested over {MAX_DEPTH} levels",
    b"[" * 1_000_000: f"nested over {MAX_DEPTH} levels",
}


@pytest.mark.parametrize("payload", GOOD, ids=lambda payload: payload[:24].decode())
def test_good_json_is_what_json_says(payload: bytes) -> None:
    assert loads(payload, max_bytes=10**6) == json.loads(payload)


@pytest.mark.parametrize(("payload", "reason"), BAD.items(), ids=[repr(payload[:24]) for payload in BAD])
def test_bad_json_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(Refused) as raised:
        loads(payload, max_bytes=10**6)
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 300


def test_the_size_comes_first() -> None:
    assert loads(b"[1]", max_bytes=3) == [1]
    with pytest.raises(Refused) as raised:
        loads(b"[1 ]", max_bytes=3)
    assert raised.value.code == "too-large"


@pytest.mark.parametrize(
    "payload",
    [
        b"9" * 10**6,
        b"[" + b"[]," * 300_000 + b"1]",
        b'"' + b'\\"' * 400_000 + b'"',
        b"[0" + b",1e5" * 200_000 + b"]",
    ],
    ids=["digits", "brackets", "escapes", "numbers"],
)
def test_a_megabyte_of_anything_takes_no_time_to_speak_of(payload: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(Refused):
        loads(payload, max_bytes=2 * 10**6)
    assert time.process_time() - started < 2


@dataclass(frozen=True)
class Inner:
    path: Path
    unset: str | None = None
    given: str | None = "x"


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    table: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({"b": 1, "a": 2}))


def test_plain_and_dumps_say_the_same() -> None:
    value = Outer((Inner(Path("/a"), given=None), Inner(Path("b"), unset="set")))
    expected = {
        "inner": [{"path": "/a", "given": None}, {"path": "b", "unset": "set", "given": "x"}],
        "table": {"b": 1, "a": 2},
    }
    assert plain(value) == expected
    assert dumps(value) == json.dumps(expected, separators=(",", ":")).encode()


def test_text_stays_readable() -> None:
    assert dumps({"ort": "Küche 🌙"}) == '{"ort":"Küche 🌙"}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"a": (1.0, -math.inf)}])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(Refused, match="cannot be written as JSON"):
        dumps(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_has_no_plain_form_is_a_mistake_of_ours(value: object) -> None:
    for write in (plain, dumps):
        with pytest.raises(TypeError, match="has no plain form"):
            write(value)
