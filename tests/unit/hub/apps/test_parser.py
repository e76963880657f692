"""YAML as compose files have it: scalars as Docker reads them, lines, anchors, and files that do harm."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.wire.errors import Refused
from hub.apps.parser import MAX_CHARACTERS, parse
from hub.apps.tree import Node, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("0x1F", 31), ("0o17", 15), ("0440", 288), ("0", 0),
        ("09", 9.0), ("1_000", 1000),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0),
        ("true", True), ("False", False), ("yes", "yes"), ("on", "on"), ("no", "no"), ("y", "y"),
        ("null", None), ("~", None), ("", None), ("'1'", "1"), ('"true"', "true"), ("22:22", "22:22"),
        ("2024-01-01", "2024-01-01"), (".inf", ".inf"), ("1.2.3", "1.2.3"),
        ("!!str 1", "1"), ("!!int '7'", 7),
        ("! 5", "5"), ("1" * 40, "1" * 40),
    ],
)  # fmt: skip
def test_a_scalar_is_what_docker_makes_of_it(text: str, value: object) -> None:
    node = parse(f"a: {text}", "f.yml")["a"]
    assert (node.value, type(node.value)) == (value, type(value))


def test_a_scalar_keeps_how_it_was_written() -> None:
    tree = parse("a: 1.10\nb: 0440\nc: True\nd: 'x'\n", "f.yml")
    assert [tree[key].text() for key in "abcd"] == ["1.10", "0440", "True", "x"]


def test_lines_are_those_of_the_keys() -> None:
    tree = parse(
        "# one\na:\n  b:\n    - c: 1\n      d: |\n        x\n        y\n    - [2,\n       3]\n", "f.yml"
    )
    assert (tree["a"].line, tree["a"]["b"].line) == (2, 3)
    first, second = tree["a"]["b"]
    assert (first.line, first["c"].line, first["d"].line) == (4, 4, 5)
    assert [second.line, *(each.line for each in second)] == [8, 8, 9]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 1}\nd: {<<: *x, c: 2}", {"a": {"b": 1, "c": 1}, "d": {"b": 1, "c": 2}}),
        ("a: &x {b: 1}\ny: &y {b: 2, c: 2}\nd: {<<: [*x, *y]}",
         {"a": {"b": 1}, "y": {"b": 2, "c": 2}, "d": {"b": 1, "c": 2}}),
        ("a: {c: 3, <<: {b: 1, c: 1}}", {"a": {"b": 1, "c": 3}}),
        ("a: {'<<': 1}", {"a": {"<<": 1}}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("1: a\ntrue: b", {"1": "a", "true": "b"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("", None),
    ],
)  # fmt: skip
def test_anchors_merges_and_keys(text: str, value: Any) -> None:
    assert plain(parse(text, "f.yml")) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "f.yml:3: 'a' is there twice, first in line 1"),
        ("a: *x", "f.yml:1: nothing before it is called '&x'"),
        ("a: &x [*x]", "f.yml:1: nothing before it is called '&x'"),
        ("a: 1\n---\nb: 2", "f.yml:2: a second document; a compose file is one"),
        ("a: !thing 1", "f.yml:1: the tag '!thing' means nothing in compose"),
        ("a: !!python/name:x 1", "f.yml:1: the tag 'python/name:x' means nothing in compose"),
        ("a: {<<: 1}", "f.yml:1: '<<' takes a mapping or a list of them"),
        ("? [a]\n: 1", "f.yml:1: a key has to be text"),
        ("~: 1", "f.yml:1: a key has to be text"),
        ("a:\n\t- b", "f.yml:2: not YAML: found character '\\t' that cannot start any token"),
        ("a: b: c", "f.yml:1: not YAML: mapping values are not allowed here"),
        ("a: [1", "f.yml:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: \0", "f.yml:1: not YAML: unacceptable character"),
        ('a: "\\0"', "f.yml:1: a character that no text can have"),
        ('a: "\\ud800"', "f.yml:1: a character that no text can have"),
        ('a: "\\UFFFFFFFF"', "f.yml:1: not YAML:"),
        ("%YAML 7.9\n---\na: 1", "f.yml:1: not YAML:"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_line(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text, "f.yml")
    assert str(caught.value).startswith(reason)
    assert caught.value.code == "compose"


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}], k{n}: *a{n - 1}}}\n" for n in range(1, 12)
)
HARMFUL = {
    "lists in lists": "[" * 50_000,
    "mappings in mappings": "{a: " * 50_000,
    "blocks in blocks": "- " * 100_000,
    "questions": "? " * 100_000,
    "laughs": LAUGHS,
    "merges": MERGES,
    "a chain of anchors": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)),
    "many values": "[" + "a," * 100_000 + "]",
    "many keys": "".join(f"a{n}: 1\n" for n in range(20_000)),
    "many lists": "".join(f"a{n}: [{'a,' * 1_000}]\n" for n in range(25)),
    "long": "a" * (MAX_CHARACTERS + 1),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_file_that_does_harm_is_refused_soon(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(
        Refused, match=r"nested more than|unfolds to more than|more than 1,024 entries|characters of"
    ):
        parse(HARMFUL[name], "f.yml")
    assert time.process_time() - begin < 5


def test_nothing_is_a_node_too() -> None:
    tree = parse("a: 1", "f.yml")
    nothing = tree["b"]["c"]
    assert isinstance(nothing, Node)
    assert not nothing.is_given
    assert (list(nothing), list(nothing.items()), nothing.text()) == ([], [], "")
