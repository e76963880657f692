"""Plain JSON or TOML data to frozen dataclasses, and back.

Owns the one way in which outside data becomes typed values: messages from the wire, request
bodies, config files.  The annotations of a dataclass are the whole schema; nothing is
converted that its writer did not mean (a bool is no int, a string no number), and every
error names the path of what is wrong.

>>> @dataclass(frozen=True)
... class Lamp:
...     colours: tuple[Literal["red", "green"], ...]
...     pin: Annotated[int, Range(0, 27)] = 4
>>> decode(Lamp, {"colours": ["red"], "later": 1})
Lamp(colours=('red',), pin=4)
>>> decode(Lamp, {"colours": ["red", "gren"]}, where="lamps[2]")
Traceback (most recent call last):
agent.wire.errors.Refused: lamps[2].colours[1]: 'gren' is not one of 'red', 'green'; did you mean 'green'?

On the wire unknown keys are ignored, so that an older side can read a newer one.  In a file
of the operator (``strict``) they are typing errors:

>>> decode(Lamp, {"colours": [], "pn": 5}, strict=True)
Traceback (most recent call last):
agent.wire.errors.ConfigError: pn: unknown key; did you mean 'pin'?

Annotations understood: ``int`` (signed 64 bit), ``float`` (finite; an int is welcome), ``str``,
``bool``, ``Literal``, ``T | None``, ``tuple[T, ...]``, ``dict[str, T]``, ``Path``, ``Any``, dataclasses, and
``Annotated`` with `Range`, `Length` or `Match`.  Anything else is a TypeError of the programmer.

Below it, `agent.wire.plain` turns JSON text into plain data and back.

>>> dumps(Lamp(("red",)))
b'{"colours":["red"],"pin":4}'
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from agent.wire.errors import ConfigError, Refused
from agent.wire.plain import MAX_INT, dumps, loads, plain, show

__all__ = ["Length", "Match", "Range", "decode", "decode_json", "dumps", "loads", "nearest", "plain"]

T = TypeVar("T")
Decoder = Callable[[Any], Any]


# --- what an annotation may add to a type ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float

    def complaint(self, value: Any) -> str:
        """Why ``value`` does not fit; empty when it does."""
        if self.low <= value <= self.high:
            return ""
        return f"{show(value)} is not within {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Length:
    """A string, list or object of ``low`` to ``high`` characters or entries."""

    low: int
    high: int

    def complaint(self, value: Any) -> str:
        """Why ``value`` does not fit; empty when it does."""
        size = len(value)
        if self.low <= size <= self.high:
            return ""
        noun = "characters" if isinstance(value, str) else "entries"
        return f"{size} {noun} where {self.low} to {self.high} are allowed"


@dataclass(frozen=True, slots=True)
class Match:
    """A string that is ``pattern`` from end to end, in ASCII; ``what`` says it in words."""

    pattern: str
    what: str

    def complaint(self, value: Any) -> str:
        """Why ``value`` does not fit; empty when it does."""
        return "" if _compiled(self.pattern).fullmatch(value) else f"{show(value)} is not {self.what}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


# --- plain data in -----------------------------------------------------------------------------


def decode(cls: type[T], value: object, *, strict: bool = False, where: str = "") -> T:
    """Check plain data against ``cls`` and build it.

    ``where`` is the path of ``value`` itself, for the error.  Raises Refused, or when ``strict``
    ConfigError, for the first thing that is wrong.
    """
    try:
        return cast("T", _decoder(cast("Any", cls), strict)(value))
    except _Wrong as wrong:
        path = (where + "".join(reversed(wrong.path))).removeprefix(".")
        message = f"{path}: {wrong.reason}" if path else wrong.reason
        kind = ConfigError if strict else Refused
        raise kind(message, hint=wrong.hint) from None


def decode_json(cls: type[T], payload: bytes, *, max_bytes: int) -> T:
    """`loads`, then `decode` as from the wire.  Raises Refused."""
    return decode(cls, loads(payload, max_bytes=max_bytes))


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of ``words`` that ``word`` was probably meant to be; empty when none is near."""
    # Imported only for an error: an agent without one does not pay for it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word[:64], list(words), n=1)), "")


# --- decoders, built once per type ---------------------------------------------------------------


class _Wrong(Exception):
    """One mismatch; each level that it passes on its way out adds its part of the path."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        self.reason = reason
        self.hint = hint
        self.path: list[str] = []


@functools.cache
def _decoder(annotation: Any, strict: bool) -> Decoder:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        match args:
            case [kind, Range() as mark] if kind is int:
                return _whole(mark)
            case [kind, Length() as mark] if kind is str:
                return _text(mark)
        return _annotated(_decoder(args[0], strict), args[1:])
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if origin is Literal:
        return _literal(args)
    if origin in (Union, types.UnionType) and len(args) == 2 and types.NoneType in args:
        inner = _decoder(args[0] if args[1] is types.NoneType else args[1], strict)
        return lambda value: None if value is None else inner(value)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _tuple(_decoder(args[0], strict), _COLUMNS.get(args[0]))
    if origin is dict:
        return _dict(_decoder(args[0], strict), _decoder(args[1], strict))
    if dataclasses.is_dataclass(annotation):
        return _dataclass(annotation, strict)
    raise TypeError(f"decode does not know {annotation!r}")


def _annotated(inner: Decoder, marks: tuple[Any, ...]) -> Decoder:
    checks = tuple(mark.complaint for mark in marks)

    def run(value: Any) -> Any:
        decoded = inner(value)
        for check in checks:
            if complaint := check(decoded):
                raise _Wrong(complaint)
        return decoded

    return run


def _whole(mark: Range) -> Decoder:
    """One of the two most frequent marks, with one call where `_annotated` takes three."""
    low, high = mark.low, mark.high

    def run(value: Any) -> Any:
        if type(value) is int and low <= value <= high and value <= MAX_INT:
            return value
        raise _Wrong(mark.complaint(_int(value)))

    return run


def _text(mark: Length) -> Decoder:
    """The other one."""
    low, high = mark.low, mark.high

    def run(value: Any) -> Any:
        if type(value) is str and low <= len(value) <= high:
            return value
        raise _Wrong(mark.complaint(_str(value)))

    return run


def _literal(allowed: tuple[Any, ...]) -> Decoder:
    def run(value: Any) -> Any:
        # By type as well: 1 and True are equal.
        for choice in allowed:
            if choice == value and type(choice) is type(value):
                return choice
        near = nearest(value, map(str, allowed)) if isinstance(value, str) else ""
        listed = ", ".join(map(repr, allowed))
        raise _Wrong(f"{show(value)} is not one of {listed}" + (f"; did you mean {near!r}?" if near else ""))

    return run


def _tuple(inner: Decoder, column: Callable[[Sequence[Any]], tuple[Any, ...] | None] | None) -> Decoder:
    def run(value: Any) -> Any:
        if type(value) is not list and type(value) is not tuple:
            raise _Wrong(f"expected a list, not {show(value)}")
        if column is not None and (whole := column(value)) is not None:
            return whole
        decoded = []
        for index, entry in enumerate(value):
            try:
                decoded.append(inner(entry))
            except _Wrong as wrong:
                wrong.path.append(f"[{index}]")
                raise
        return tuple(decoded)

    return run


def _dict(key_decoder: Decoder, inner: Decoder) -> Decoder:
    def run(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"expected a table of names and values, not {show(value)}")
        decoded = {}
        for key, entry in value.items():
            try:
                decoded[key_decoder(key)] = inner(entry)
            except _Wrong as wrong:
                wrong.path.append(_step(key))
                raise
        return decoded

    return run


def _dataclass(cls: Any, strict: bool) -> Decoder:
    hints = get_type_hints(cls, include_extras=True)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    decoders = {field.name: _decoder(hints[field.name], strict) for field in fields}
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def run(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"expected a table of names and values, not {show(value)}")
        given = {}
        for key, entry in value.items():
            decoder = decoders.get(key)
            if decoder is None:
                if strict:
                    raise _unknown(key, decoders)
                continue
            try:
                given[key] = decoder(entry)
            except _Wrong as wrong:
                wrong.path.append(_step(key))
                raise
        if len(given) < len(fields):
            for name in required:
                if name not in given:
                    raise _at(name, "missing")
        return cls(**given)

    return run


def _unknown(key: Any, known: Iterable[str]) -> _Wrong:
    names = list(known)
    near = nearest(str(key), names)
    reason = "unknown key" + (f"; did you mean {near!r}?" if near else "")
    return _at(key, reason, hint=f"known keys: {', '.join(names) or 'none'}")


def _at(key: Any, reason: str, *, hint: str = "") -> _Wrong:
    wrong = _Wrong(reason, hint=hint)
    wrong.path.append(_step(key))
    return wrong


def _step(key: Any) -> str:
    text = str(key)
    return f".{text}" if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else f"[{show(key)}]"


# --- scalars, and columns of them ----------------------------------------------------------------


def _int(value: Any) -> int:
    if type(value) is not int or not -MAX_INT - 1 <= value <= MAX_INT:
        raise _Wrong(f"expected an integer, not {show(value)}")
    return value


def _float(value: Any) -> float:
    if type(value) is int and -MAX_INT - 1 <= value <= MAX_INT:
        return float(value)
    if type(value) is not float or not math.isfinite(value):
        raise _Wrong(f"expected a number, not {show(value)}")
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise _Wrong(f"expected a string, not {show(value)}")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Wrong(f"expected true or false, not {show(value)}")
    return value


def _path(value: Any) -> Path:
    text = _str(value)
    if not text or "\0" in text:
        raise _Wrong(f"{show(value)} is not a path")
    return Path(text)


def _any(value: Any) -> Any:
    """Plain data as it is; what JSON has no word for (dates of TOML, infinity) is refused."""
    if isinstance(value, dict):
        for key, entry in value.items():
            try:
                _str(key)
                _any(entry)
            except _Wrong as wrong:
                wrong.path.append(_step(key))
                raise
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            try:
                _any(entry)
            except _Wrong as wrong:
                wrong.path.append(f"[{index}]")
                raise
    elif isinstance(value, float):
        _float(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        _int(value)
    elif value is not None and not isinstance(value, (str, bool)):
        raise _Wrong(f"expected plain data, not {show(value)}")
    return value


def _ints(values: Sequence[Any]) -> tuple[int, ...] | None:
    """The column when all is well, at C speed; None leaves it to the slow way, which says what is not."""
    if set(map(type, values)) == {int} and min(values) >= -MAX_INT - 1 and max(values) <= MAX_INT:
        return tuple(values)
    return None


def _floats(values: Sequence[Any]) -> tuple[float, ...] | None:
    kinds = set(map(type, values))
    if kinds == {float, int} and -MAX_INT <= min(values) <= max(values) <= MAX_INT:
        values, kinds = tuple(map(float, values)), {float}
    # A sum is finite only if every term is.
    return tuple(values) if kinds == {float} and math.isfinite(sum(values)) else None


_SCALARS: dict[Any, Decoder] = {int: _int, float: _float, str: _str, bool: _bool, Path: _path, Any: _any}
_COLUMNS: dict[Any, Callable[[Sequence[Any]], tuple[Any, ...] | None]] = {
    int: _ints,
    float: _floats,
    float | None: _floats,
}
