"""What an app wants of where and when it runs: ``x-lichen``, placement constraints, labels of Co-op Cloud.

    x-lichen:
      placement: {room: greenhouse}    # labels that the board must have
      ports: direct                    # by Podman itself; auto, the default, leaves it to the board
      windows: ["02:00-05:00"]         # when an update may begin
      timeout: 10m                     # how long it may take

A service may have its own ``x-lichen``.  An app is on one board and updated as one, so what several
say of place and time must not contradict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hub.apps.compile import process
from hub.apps.compile.scope import Scope
from hub.apps.tree import Node

X_LICHEN = "x-lichen"
DEFAULT_TIMEOUT_MS = 300_000
MAX_TIMEOUT_S = 86_400

_WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_CONSTRAINT = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(==|!=)\s*(.*?)\s*")


def _all(scope: Scope) -> Iterator[Node]:
    """Every x-lichen that counts."""
    for owner in (scope.document, *scope.services.values()):
        node = owner[X_LICHEN]
        if node.is_given and not node.is_mapping:
            raise node.refused("expected a mapping", hint="such as {placement: {room: greenhouse}}")
        yield node


def wants_direct_ports(service: Node, scope: Scope) -> bool:
    """Whether nothing may stand between a port of the board and the container."""
    node = service[X_LICHEN]["ports"]
    node = node if node.is_given else scope.document[X_LICHEN]["ports"]
    return node.choice(("auto", "direct"), default="auto") == "direct"


def windows(scope: Scope) -> tuple[str, ...]:
    """Times of day at which an update may begin; none: always."""
    said: dict[tuple[str, ...], Node] = {}
    for node in _all(scope):
        for each in node["windows"]:
            if not _WINDOW.fullmatch(each.text()):
                raise each.refused(f"{each.text()[:30]!r} is no time of day", hint="such as 02:00-05:00")
        if node["windows"].is_given:
            if not isinstance(node["windows"].value, list):
                raise node["windows"].refused("expected a list of times of day")
            said.setdefault(node["windows"].texts(), node["windows"])
    if len(said) > 1:
        first, other, *_ = said.values()
        raise other.refused(
            f"an app is updated as one, and line {first.line} of {first.file} says other times"
        )
    return next(iter(said), ())


def timeout_ms(scope: Scope) -> int:
    """How long an update may take.

    As x-lichen has it, else the label coop-cloud.${STACK_NAME}.timeout in seconds.
    """
    longest = 0
    for node in _all(scope):
        longest = max(longest, node["timeout"].duration_ms(1_000, MAX_TIMEOUT_S * 1000))
    if longest:
        return longest
    label = _label(scope, "timeout")
    if label is None or not label.text():
        return DEFAULT_TIMEOUT_MS
    return label.whole(1, MAX_TIMEOUT_S) * 1000


def version(scope: Scope) -> str:
    """The recipe's version, such as "1.7.1+1.27.2"; empty when it says none."""
    label = _label(scope, "version")
    return label.text() if label is not None else ""


def _label(scope: Scope, name: str) -> Node | None:
    """The first label coop-cloud.${STACK_NAME}.name, as a node so that an error has a place."""
    wanted = f"coop-cloud.{scope.app}.{name}"
    for service in scope.services.values():
        text = process.labels(service, scope).get(wanted)
        if text is not None:
            nodes = {**service["labels"].pairs(), **service["deploy"]["labels"].pairs()}
            return nodes.get(wanted, service).with_value(text)
    return None


def placement(scope: Scope) -> dict[str, str]:
    """Labels that the board must have."""
    found: dict[str, str] = {}
    for name, value, node in _demands(scope):
        if found.setdefault(name, value) != value:
            raise node.refused(f"{name!r} cannot be both {found[name]!r} and {value!r} on one board")
    return found


def _demands(scope: Scope) -> Iterator[tuple[str, str, Node]]:
    for node in _all(scope):
        wanted = node["placement"]
        if wanted.is_given and not wanted.is_mapping:
            raise wanted.refused("expected labels and their values")
        for name, each in wanted.items():
            yield name, each.text(), each
    for service in scope.services.values():
        for each in service["deploy"]["placement"]["constraints"]:
            yield from _constraint(each, scope)


def _constraint(node: Node, scope: Scope) -> Iterator[tuple[str, str, Node]]:
    found = _CONSTRAINT.fullmatch(node.text())
    if not found:
        raise node.refused(
            f"{node.text()[:80]!r} is no constraint", hint="such as 'node.labels.room == cellar'"
        )
    name, operator, value = found.groups()
    if name in ("node.role", "node.platform.os", "node.platform.arch"):
        scope.warn(node, "changes nothing: boards have no roles, and the image decides about the platform")
        return
    label = name.removeprefix("node.labels.")
    if label == name:
        raise node.refused(
            f"{name!r} says nothing of a board", hint="choose the board when you deploy, or by label"
        )
    if operator == "!=":
        raise node.refused("a board is chosen by the labels that it has, not by those it has not")
    yield label, value, node
