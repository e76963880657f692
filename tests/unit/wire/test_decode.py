"""Typed values from plain data: every kind of annotation, and the path of every mistake."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from agent.wire.decode import Length, Match, Range, decode, decode_json, nearest
from agent.wire.errors import ConfigError, Refused

Slug = Annotated[str, Match(r"[a-z]{1,8}", "a slug")]


@dataclass(frozen=True)
class Leaf:
    kind: Literal["capacity", "file", 3]
    share: float = 0.5
    every_s: Annotated[float, Range(1, 60)] = 10.0


@dataclass(frozen=True)
class Tree:
    name: Slug
    leaf: Leaf | None = None
    leaves: Annotated[tuple[Leaf, ...], Length(0, 3)] = ()
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()
    maybe: tuple[float | None, ...] = ()
    labels: dict[Slug, str] = field(default_factory=dict)
    flag: bool = False
    count: int = 0
    path: Path = Path("/")
    data: dict[str, Any] = field(default_factory=dict)
    made: int = field(default=7, init=False)


def test_everything_is_built() -> None:
    tree = decode(
        Tree,
        {
            "name": "oak",
            "leaf": {"kind": 3, "share": 1},
            "leaves": [{"kind": "file"}, {"kind": "capacity", "every_s": 60}],
            "ints": [1, -2],
            "floats": [1, 2.5],
            "maybe": [None, 1, 0.5],
            "labels": {"site": "north"},
            "flag": True,
            "count": -(2**63),
            "path": "/var/lib",
            "data": {"any": [{"thing": None}, 1.5, "x", False]},
        },
    )
    assert tree == Tree(
        "oak",
        Leaf(3, 1.0),
        (Leaf("file"), Leaf("capacity", every_s=60.0)),
        (1, -2),
        (1.0, 2.5),
        (None, 1.0, 0.5),
        {"site": "north"},
        True,
        -(2**63),
        Path("/var/lib"),
        {"any": [{"thing": None}, 1.5, "x", False]},
    )
    assert all(type(value) is float for value in (tree.leaf.share, *tree.floats) if tree.leaf)
    assert tree.made == 7


def test_defaults_are_what_the_dataclass_says() -> None:
    assert decode(Tree, {"name": "a"}) == Tree("a")
    assert decode(Tree, {"name": "a", "leaf": None}).leaf is None


WRONG: list[tuple[Any, str]] = [
    ([], "expected a table of names and values, not a list"),
    (None, "expected a table of names and values, not null"),
    ({}, "name: missing"),
    ({"name": "A"}, "name: 'A' is not a slug"),
    ({"name": "a\n"}, r"name: 'a\n' is not a slug"),
    ({"name": "ä"}, "name: 'ä' is not a slug"),
    ({"name": 1}, "name: expected a string, not 1"),
    ({"name": "x" * 100}, f"name: '{'x' * 64}'... is not a slug"),
    ({"name": "a", "leaf": 1}, "leaf: expected a table of names and values, not 1"),
    ({"name": "a", "leaf": {}}, "leaf.kind: missing"),
    ({"name": "a", "leaf": {"kind": "foo"}}, "leaf.kind: 'foo' is not one of 'capacity', 'file', 3"),
    (
        {"name": "a", "leaf": {"kind": "fiel"}},
        "leaf.kind: 'fiel' is not one of 'capacity', 'file', 3; did you mean 'file'?",
    ),
    ({"name": "a", "leaf": {"kind": True}}, "leaf.kind: true is not one of 'capacity', 'file', 3"),
    (
        {"name": "a", "leaves": [{"kind": "file"}, 5]},
        "leaves[1]: expected a table of names and values, not 5",
    ),
    (
        {"name": "a", "leaves": [{"kind": "file"}, {"kind": "file", "share": "1"}]},
        "leaves[1].share: expected a number, not '1'",
    ),
    (
        {"name": "a", "leaves": [{"kind": "file", "every_s": 61}]},
        "leaves[0].every_s: 61.0 is not within 1 to 60",
    ),
    ({"name": "a", "leaves": [{"kind": "file"}] * 4}, "leaves: 4 entries where 0 to 3 are allowed"),
    ({"name": "a", "leaves": {"0": 1}}, "leaves: expected a list, not a table"),
    ({"name": "a", "leaves": "file"}, "leaves: expected a list, not 'file'"),
    ({"name": "a", "ints": [1, True]}, "ints[1]: expected an integer, not true"),
    ({"name": "a", "ints": [1, 2.0]}, "ints[1]: expected an integer, not 2.0"),
    ({"name": "a", "ints": [1, None]}, "ints[1]: expected an integer, not null"),
    ({"name": "a", "ints": [2**63]}, "ints[0]: expected an integer, not an integer beyond 64 bits"),
    ({"name": "a", "ints": [1, 10**5000]}, "ints[1]: expected an integer, not an integer beyond 64 bits"),
    ({"name": "a", "floats": [1.0, math.nan]}, "floats[1]: expected a number, not nan"),
    ({"name": "a", "floats": [1.0, -math.inf]}, "floats[1]: expected a number, not -inf"),
    ({"name": "a", "floats": [1.0, None]}, "floats[1]: expected a number, not null"),
    ({"name": "a", "floats": [10**400]}, "floats[0]: expected a number, not an integer beyond 64 bits"),
    ({"name": "a", "maybe": [None, "x"]}, "maybe[1]: expected a number, not 'x'"),
    ({"name": "a", "maybe": [True]}, "maybe[0]: expected a number, not true"),
    ({"name": "a", "labels": {"A": "b"}}, "labels.A: 'A' is not a slug"),
    ({"name": "a", "labels": {"a b": "b"}}, "labels['a b']: 'a b' is not a slug"),
    ({"name": "a", "labels": {"a": 1}}, "labels.a: expected a string, not 1"),
    ({"name": "a", "labels": [1]}, "labels: expected a table of names and values, not a list"),
    ({"name": "a", "flag": 1}, "flag: expected true or false, not 1"),
    ({"name": "a", "flag": None}, "flag: expected true or false, not null"),
    ({"name": "a", "count": 1.0}, "count: expected an integer, not 1.0"),
    ({"name": "a", "count": "1"}, "count: expected an integer, not '1'"),
    ({"name": "a", "path": ""}, "path: '' is not a path"),
    ({"name": "a", "path": "a\0b"}, r"path: 'a\x00b' is not a path"),
    ({"name": "a", "path": 1}, "path: expected a string, not 1"),
    ({"name": "a", "data": {"x": [1, {"y": math.inf}]}}, "data.x[1].y: expected a number, not inf"),
    ({"name": "a", "data": {"x": 2**64}}, "data.x: expected an integer, not an integer beyond 64 bits"),
    ({"name": "a", "data": {"x": dt.date(2020, 1, 1)}}, "data.x: expected plain data, not a date"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_every_mistake_has_its_path(value: Any, message: str) -> None:
    with pytest.raises(Refused) as raised:
        decode(Tree, value)
    assert str(raised.value) == message
    assert raised.value.code == "invalid"
    with pytest.raises(ConfigError) as strict:
        decode(Tree, value, strict=True, where="trees[2]")
    path, separator, reason = message.rpartition(": ")
    step = "." if path and not path.startswith("[") else ""
    assert str(strict.value) == f"trees[2]{step}{path}: {reason}" if separator else f"trees[2]: {message}"


def test_unknown_keys_are_ignored_on_the_wire_and_refused_in_files() -> None:
    assert decode(Tree, {"name": "a", "later": {"deep": []}}) == Tree("a")
    with pytest.raises(ConfigError) as raised:
        decode(Tree, {"name": "a", "leaf": {"kind": "file", "evry_s": 1}}, strict=True)
    assert str(raised.value) == "leaf.evry_s: unknown key; did you mean 'every_s'?"
    assert raised.value.hint == "known keys: kind, share, every_s"
    with pytest.raises(ConfigError, match=r"^made: unknown key"):
        decode(Tree, {"name": "a", "made": 1}, strict=True)
    with pytest.raises(ConfigError, match=r"^\['q q'\]: unknown key$"):
        decode(Tree, {"name": "a", "q q": 1}, strict=True)


def test_a_range_says_what_it_allows() -> None:
    @dataclass(frozen=True)
    class Pin:
        number: Annotated[int, Range(0, 27)]

    with pytest.raises(Refused, match=r"^number: 28 is not within 0 to 27$"):
        decode(Pin, {"number": 28})


def test_an_annotation_that_is_not_known_is_a_mistake_of_ours() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: set[int]

    with pytest.raises(TypeError, match="decode does not know"):
        decode(Odd, {"value": []})


def test_json_is_decoded_at_once() -> None:
    assert decode_json(Leaf, b'{"kind":"file"}', max_bytes=100) == Leaf("file")
    with pytest.raises(Refused) as raised:
        decode_json(Leaf, b'{"kind":"file"}', max_bytes=10)
    assert raised.value.code == "too-large"


def test_nearest_is_near_or_nothing() -> None:
    assert nearest("evry_s", ["every_s", "kind"]) == "every_s"
    assert nearest("x", ["every_s", "kind"]) == ""
    assert nearest("x" * 10**6, ["every_s"]) == ""
    assert nearest("x", []) == ""
