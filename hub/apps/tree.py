"""A compose document as a tree whose every value knows where it was written.

Owns how values are read as what compose means by them: variables are put in as text, so "80" is a number
where one is wanted, and "1m30s" a duration.  What does not fit is an error that names file, line and key.
Made by `hub.apps.parser`, changed by the other steps of `hub.apps.loader`, read by `hub.apps.compile`.

>>> node = Node({"retries": Node("3", "compose.yml", 7, path="web.retries")}, "compose.yml", 6, path="web")
>>> node["retries"].whole(1, 10), node["interval"].is_given
(3, False)
>>> node["retries"].whole(5, 10)
Traceback (most recent call last):
agent.wire.errors.Refused: compose.yml:7: web.retries: 3 is not within 5 to 10
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agent.wire.decode import nearest
from agent.wire.errors import Refused
from agent.wire.plain import show
from hub.apps import units

T = TypeVar("T", int, float)
W = TypeVar("W", bound=str)

_SIMPLE = re.compile(r"[^\s\[\]\x00-\x1f\x7f-\x9f]{1,128}")

TRUE = ("true", "yes", "on", "y", "1")
FALSE = ("false", "no", "off", "n", "0", "")


@dataclass(frozen=True, slots=True)
class Node:
    """One value.  ``value`` holds a scalar, a dict by key or a list of further nodes; None is nothing.

    ``line`` is that of its key.  ``written`` is a scalar as it stands in the file, before variables
    were put in.  ``tag`` is "!reset" or "!override" until files are merged.  ``path`` names it once
    they are: "services.web.ports[0]".
    """

    value: Any
    file: str
    line: int
    written: str = field(default="", repr=False)
    tag: str = ""
    path: str = ""

    # --- where things are

    def __getitem__(self, key: str) -> Node:
        """The value of a key; nothing, in this place, where there is none."""
        if isinstance(self.value, dict) and key in self.value:
            return self.value[key]  # type: ignore[no-any-return]  # a dict of nodes
        return Node(None, self.file, self.line, path=below(self.path, key))

    def __iter__(self) -> Iterator[Node]:
        """The entries of a list; none of anything else."""
        return iter(self.value if isinstance(self.value, list) else ())

    def items(self) -> Sequence[tuple[str, Node]]:
        """The keys and values of a mapping; none of anything else."""
        return tuple(self.value.items()) if isinstance(self.value, dict) else ()

    @property
    def is_given(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    @property
    def is_mapping(self) -> bool:
        """Whether it has keys."""
        return isinstance(self.value, dict)

    def with_value(self, value: Any) -> Node:
        """Another value in this place."""
        return replace(self, value=value)

    def refused(self, reason: str, *, hint: str = "") -> Refused:
        """The error that this value is; it names the place."""
        where = f"{self.file}:{self.line}: {self.path}: " if self.path else f"{self.file}:{self.line}: "
        return Refused(where + reason, code="compose", hint=hint)

    # --- what they mean

    def text(self) -> str:
        """A scalar as text.  A number is what was written: "1.10" stays that."""
        if isinstance(self.value, str):
            return self.value
        if self.value is None:
            return ""
        if isinstance(self.value, dict | list):
            raise self.refused(f"expected text, not a {'mapping' if self.is_mapping else 'list'}")
        return self.written

    def flag(self, *, default: bool = False) -> bool:
        """True or false, also as a word."""
        if self.value is None:
            return default
        word = self.text().strip().lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
        raise self.refused(f"{show(self.text())} is neither true nor false")

    def whole(self, low: int, high: int, *, default: int = 0) -> int:
        """A whole number within bounds."""
        return self._read(units.whole, low, high, default)

    def number(self, low: float, high: float, *, default: float = 0.0) -> float:
        """A number within bounds."""
        return self._read(units.number, low, high, default)

    def duration_ms(self, low: int = 0, high: int = 86_400_000, *, default: int = 0) -> int:
        """A duration such as "1m30s", in milliseconds."""
        return self._read(units.duration_ms, low, high, default)

    def size_bytes(self, *, default: int = 0) -> int:
        """A size such as "64m", in bytes; powers of 1,024 as everywhere in compose."""
        return self._read(units.size_bytes, 0, 2**53, default)

    def mode(self) -> int | None:
        """The mode of a file, such as 0440 or "0440"; None when it is not given."""
        return self._read(units.mode, 0, 0o7777, -1) if self.is_given else None

    def _read(self, read: Callable[[str], T], low: T, high: T, default: T) -> T:
        if self.value is None or self.text() == "":
            return default
        try:
            found = read(self.text().strip())
        except ValueError as error:
            raise self.refused(str(error)) from None
        if not low <= found <= high:
            raise self.refused(f"{self.text().strip()[:40]} is not within {low} to {high}")
        return found

    def choice(self, choices: tuple[W, ...], *, default: W) -> W:
        """One of some words."""
        word = self.text()
        for each in choices:
            if each == word:
                return each
        if not word:
            return default
        near = nearest(word, choices)
        suffix = f"; did you mean {near!r}?" if near else ""
        raise self.refused(f"{show(word)} is not one of {', '.join(map(repr, choices))}{suffix}")

    def entries(self) -> tuple[Node, ...]:
        """What compose writes as a list, or as its only entry."""
        if isinstance(self.value, list):
            return tuple(self.value)
        return (self,) if self.is_given else ()

    def texts(self) -> tuple[str, ...]:
        """A list of texts, or a single one."""
        return tuple(each.text() for each in self.entries())

    def pairs(self) -> dict[str, Node]:
        """What compose writes as a mapping or as a list of "name=value"; a bare name has no value."""
        if self.is_mapping:
            return dict(self.items())
        found = {}
        for each in self:
            name, equals, value = each.text().partition("=")
            if name:
                found[name] = each.with_value(value if equals else None)
        return found


def below(path: str, key: str) -> str:
    """The path of a key of what is at ``path``, in one line whatever the key is."""
    if not _SIMPLE.fullmatch(key):
        return f"{path}[{show(key)}]"
    return f"{path}.{key}" if path else key


def plain(node: Node) -> Any:
    """The tree without its places."""
    if isinstance(node.value, dict):
        return {key: plain(each) for key, each in node.value.items()}
    if isinstance(node.value, list):
        return [plain(each) for each in node.value]
    return node.value


def count(node: Node, most: int) -> int:
    """How many values there are in a tree; counting ends beyond ``most``."""
    waiting, found = [node], 0
    while waiting and found <= most:
        value = waiting.pop().value
        found += 1
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return found


def with_paths(node: Node, path: str = "") -> Node:
    """The same tree, every value of which knows its path."""
    value = node.value
    if isinstance(value, dict):
        value = {key: with_paths(each, below(path, key)) for key, each in value.items()}
    elif isinstance(value, list):
        value = [with_paths(each, f"{path}[{index}]") for index, each in enumerate(value)]
    return replace(node, value=value, path=path)
