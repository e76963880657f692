"""YAML to a `Node` tree: one file, nothing put in, nothing merged.

Owns what of YAML 1.2 a compose file may use: anchors, aliases, merges (``<<``), the tags of its schema, and
compose's own ``!reset`` and ``!override``.  ruamel.yaml reads the text into events; the tree is built here
because lines have to be kept, numbers have to be what Docker makes of them ("0440" is octal), and
a file that unfolds to gigabytes ("billion laughs") has to be noticed before it does.  Called by
`hub.apps.loader`.

>>> tree = parse("x: &a {mode: 0440}\\ny:\\n  <<: *a\\n", "compose.yml")
>>> tree["y"]["mode"].value, tree["y"]["mode"].line
(288, 1)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from agent.wire.errors import Refused
from hub.apps import units
from hub.apps.tree import Node

MAX_CHARACTERS = 256 * 1024
MAX_NODES = 20_000
"""Of one file, aliases unfolded."""
MAX_ENTRIES = 1_024
"""Of one list or mapping: what is checked against each other is never much."""
MAX_DEPTH = 32

OWN_TAGS = ("!reset", "!override")
MERGE = "<<"

_YAML = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[+-]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|[1-9][0-9_]*|0)")
_FLOAT = re.compile(r"[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?")


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read, and what it unfolds to so far."""

    node: Node
    anchor: str | None
    size: int = 1
    depth: int = 1
    entries: list[Node] = field(default_factory=list)
    values: dict[str, Node] = field(default_factory=dict)
    merges: list[Node] = field(default_factory=list)
    key: Node | None = None


@dataclass(frozen=True, slots=True)
class _Whole:
    """A value that has been read, and what it unfolds to."""

    node: Node
    size: int = 1
    depth: int = 1


def parse(text: str, file: str) -> Node:
    """The tree of a file.  Raises Refused (code "compose") naming the line."""
    if len(text) > MAX_CHARACTERS:
        raise Refused(f"{file} has {len(text):,} characters of {MAX_CHARACTERS:,} allowed", code="compose")
    return _Tree(file).built(_events(text, file))


def _events(text: str, file: str) -> Iterator[Any]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.problem, error.context)))
        raise _not_yaml(file, mark.line + 1 if mark else 1, reason) from None
    # It also lets out what chr(), int() and its own assertions raise at odd escapes and directives.
    except (YAMLError, ValueError, ArithmeticError, AssertionError, LookupError, AttributeError) as error:
        raise _not_yaml(file, 1, str(error).partition("\n")[0]) from None


def _not_yaml(file: str, line: int, reason: str) -> Refused:
    return Refused(f"{file}:{line}: not YAML: {reason[:200]}", code="compose")


class _Tree:
    """Builds the tree of one document from its events, without recursion."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Whole] = {}
        self._root: Node | None = None

    def built(self, events: Iterator[Any]) -> Node:
        """The whole tree.  Raises Refused."""
        for event in events:
            match event:
                case ScalarEvent():
                    self._add(_Whole(self._scalar(event)), event.anchor)
                case AliasEvent():
                    self._add(self._aliased(event), None)
                case MappingStartEvent():
                    self._open({}, event, ("map",))
                case SequenceStartEvent():
                    self._open([], event, ("seq",))
                case MappingEndEvent() | SequenceEndEvent():
                    self._close()
                case DocumentStartEvent() if self._root is not None:
                    raise self._error(event, "a second document; a compose file is one")
        return self._root or Node(None, self._file, 1)

    def _error(self, event: Any, reason: str) -> Refused:
        return Node(None, self._file, event.start_mark.line + 1).refused(reason)

    def _tag(self, event: Any, known: tuple[str, ...]) -> str:
        """The tag of an event; empty, one of ``known`` or one of compose's own."""
        tag = str(event.tag or "").removeprefix(_YAML)
        if tag not in ("", "!", *OWN_TAGS, *known):
            raise self._error(event, f"the tag {tag[:40]!r} means nothing in compose")
        return tag

    def _open(self, empty: Any, event: Any, known: tuple[str, ...]) -> None:
        if len(self._stack) == MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} deep")
        tag = self._tag(event, known)
        node = Node(empty, self._file, event.start_mark.line + 1, tag=tag if tag in OWN_TAGS else "")
        self._stack.append(_Open(node, event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        value: Any = done.entries
        if isinstance(done.node.value, dict):
            value = done.values
            for merged in done.merges:  # the earlier one wins, and what the mapping says itself
                value = dict(merged.items()) | value
        self._add(_Whole(replace(done.node, value=value), done.size, done.depth), done.anchor)

    def _aliased(self, event: Any) -> _Whole:
        if event.anchor not in self._anchors:
            raise self._error(event, f"nothing before it is called '&{event.anchor}'")
        return self._anchors[event.anchor]

    def _add(self, whole: _Whole, anchor: str | None) -> None:
        """Put a value that is complete where it belongs."""
        if anchor:
            self._anchors[anchor] = whole
        if not self._stack:
            self._root = whole.node
            return
        parent = self._stack[-1]
        parent.size += whole.size
        parent.depth = max(parent.depth, whole.depth + 1)
        if max(len(parent.entries), len(parent.values)) >= MAX_ENTRIES:
            raise parent.node.refused(f"more than {MAX_ENTRIES:,} entries")
        if parent.size > MAX_NODES:
            raise parent.node.refused(f"unfolds to more than {MAX_NODES:,} values")
        if parent.depth > MAX_DEPTH:
            raise parent.node.refused(f"nested more than {MAX_DEPTH} deep")
        if isinstance(parent.node.value, list):
            parent.entries.append(whole.node)
        elif parent.key is None:
            parent.key = self._key(parent, whole.node)
        elif _is_merge(parent.key):
            parent.merges += self._merged(parent.key, whole.node)
            parent.key = None
        else:
            # An error about a value is best looked for at its key.
            parent.values[parent.key.value] = replace(whole.node, line=parent.key.line)
            parent.key = None

    def _key(self, parent: _Open, node: Node) -> Node:
        """A key as text; the first of its name."""
        if isinstance(node.value, dict | list) or node.value is None:
            raise node.refused("a key has to be text")
        if _is_merge(node):
            return node
        name = node.text()
        if name in parent.values:
            first = parent.values[name].line
            raise node.refused(f"{name[:60]!r} is there twice, first in line {first}")
        return node.with_value(name)

    def _merged(self, key: Node, node: Node) -> list[Node]:
        parts = list(node) if isinstance(node.value, list) else [node]
        if not all(part.is_mapping for part in parts):
            raise key.refused("'<<' takes a mapping or a list of them")
        return parts

    def _scalar(self, event: Any) -> Node:
        tag = self._tag(event, ("str", "int", "float", "bool", "null", "timestamp"))
        if not units.is_text(event.value):
            raise self._error(event, "a character that no text can have")
        is_plain = event.style is None and tag in ("", *OWN_TAGS)
        is_typed = tag in ("int", "float", "bool", "null")
        value = _resolved(event.value) if is_plain or is_typed else event.value
        own = tag if tag in OWN_TAGS else ""
        if is_plain and event.value == MERGE:
            own = MERGE  # in quotes it is a key like any other
        return Node(value, self._file, event.start_mark.line + 1, event.value, own)


def _is_merge(key: Node) -> bool:
    return key.tag == MERGE


def _resolved(text: str) -> Any:
    """What a plain scalar is.  Docker reads with Go's yaml.v3, for which "0440" is octal."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        try:
            return units.whole(text)
        except ValueError:
            return text
    if _FLOAT.fullmatch(text) and len(text) <= 32:
        return units.number(text)
    return text
