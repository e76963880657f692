"""JSON text to plain data and back, in bounded time and memory.

Owns what JSON is acceptable, and what is written.  What `loads` lets through is stricter than
RFC 8259: UTF-8 without a mark, no key twice, no NaN or infinity, integers of 64 bit, no half
surrogates, at most `MAX_DEPTH` levels.  It returns dicts, lists and scalars; `agent.wire.decode` gives them
types, and is where everybody else imports these functions from.

>>> loads(b'{"a": [1, null]}', max_bytes=100)
{'a': [1, None]}
>>> loads(b'{"a": 1, "a": 2}', max_bytes=100)
Traceback (most recent call last):
agent.wire.errors.Refused: not acceptable JSON: the key 'a' appears twice
>>> dumps({"path": Path("/sys"), "values": (1.0, 2)})
b'{"path":"/sys","values":[1.0,2]}'
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from agent.wire.errors import Refused

MAX_DEPTH = 64
"""Levels of lists and objects that `loads` accepts."""
MAX_INT = 2**63 - 1


# --- in ------------------------------------------------------------------------------------------

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SHAPE = bytes.maketrans(b"123456789ED", b"000000000ed")
_LONG = (b"0" * 19, b"0e000", b"0e+000")


def loads(payload: bytes, *, max_bytes: int) -> Any:
    """Parse JSON from a stranger in bounded time and memory.  Raises Refused."""
    if len(payload) > max_bytes:
        raise Refused(f"{len(payload)} bytes of JSON are over the limit of {max_bytes}", code="too-large")
    try:
        text = payload.decode("utf-8")
        shape = payload.translate(_SHAPE)
        # What the C parser lets through although it must not: long integers, exponents of three
        # digits, half surrogates.  To see whether one may be there is cheap; to look closer is not.
        suspect = b"\\ud" in shape or any(digits in shape and _is_number(digits, shape) for digits in _LONG)
        value = _SUSPICIOUS.decode(text) if suspect else _PARSER.decode(text)
        if suspect:
            _ENCODER.encode(value).encode()
    except RecursionError:
        raise Refused(f"not acceptable JSON: nested over {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise Refused(f"not acceptable JSON: {error}") from error
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and _depth(payload) > MAX_DEPTH:
        raise Refused(f"not acceptable JSON: nested over {MAX_DEPTH} levels")
    return value


def _is_number(digits: bytes, shape: bytes) -> bool:
    """Whether ``digits`` may be in a number of ``shape``; hexadecimal ones in a string look the same.

    A number begins after one of a few characters.  Where many look so, it is not worth the time to see.
    """
    at = shape.find(digits)
    for _ in range(8):
        before = shape[max(0, at - 32) : at].rstrip(b"0.-")
        if not before or before[-1:] in b"[:, \t\r\n":
            return True
        at = shape.find(digits, at + len(digits))
        if at < 0:
            return False
    return True


def _depth(payload: bytes) -> int:
    """Levels of nesting of valid JSON."""
    brackets = _STRING.sub(b"", payload).translate(_BRACKETS, _NO_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_DEPTH:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} appears twice")
    return result


def _bounded_int(digits: str) -> int:
    # The length first: the time of int() grows with the square of it.
    if len(digits) > 20 or not -MAX_INT - 1 <= (value := int(digits)) <= MAX_INT:
        raise ValueError("an integer is beyond 64 bits")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_PARSER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_SUSPICIOUS = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_bounded_int)


# --- out -----------------------------------------------------------------------------------------


def plain(value: object) -> Any:
    """What `dumps` writes: dataclasses as dicts in the order of their fields, tuples as lists.

    A field that is None, and would be without being written, is left out.
    """
    if isinstance(value, (str, int, float, types.NoneType)):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return plain(_plainer(value))


def _plainer(value: object) -> Any:
    """``value``, which JSON has no word for, one level closer to what it has."""
    if dataclasses.is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: entry for field, entry in pairs if entry is not None or field.default is not None}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no plain form")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plainer)


def dumps(value: object) -> bytes:
    """Compact UTF-8 JSON of `plain`.  Raises Refused for a number or text that JSON cannot carry."""
    try:
        return _ENCODER.encode(value).encode()
    except ValueError as error:
        raise Refused(f"cannot be written as JSON: {error}") from error


def show(value: Any) -> str:
    """A value in an error: short, on one line, whatever it is."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value) if len(value) <= 64 else f"{value[:64]!r}..."
        case int() if abs(value) > MAX_INT:
            return "an integer beyond 64 bits"
        case int() | float():
            return repr(value)
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"
