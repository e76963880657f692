"""How to ask a service whether it is well."""

from __future__ import annotations

from agent.wire.order import Health
from hub.apps.compile.scope import Scope
from hub.apps.tree import Node

CHEAP_MS = 60_000
"""Each check costs the board a process; from this interval on that is nothing."""
LEAST_MS = 1_000
"""No board asks more often, or gives up sooner: to begin a process may take that long on a small one."""


def is_disabled(service: Node) -> bool:
    """Whether the check of the image is switched off."""
    node = service["healthcheck"]
    return node["disable"].flag() or node["test"].texts() == ("NONE",)


def health(service: Node, scope: Scope) -> Health | None:
    """The check of a service; None: that of the image, if there is one."""
    node = service["healthcheck"]
    if not node.is_given or is_disabled(service):
        return None
    if node["test"].value in (None, "", []):
        # What the image runs is in the image, and Podman takes a check as a whole or not at all.
        scope.warn(node, "changes nothing without 'test': the image's own check counts, at its own times")
        return None
    interval = _at_least(node["interval"], scope)
    if LEAST_MS < interval < CHEAP_MS:
        scope.warn(
            node["interval"] if node["interval"].is_given else node,
            f"asked every {interval / 1000:g} s; from 60 s on it costs the board next to nothing",
        )
    return Health(
        _test(node["test"]),
        interval_ms=interval,
        timeout_ms=_at_least(node["timeout"], scope),
        retries=node["retries"].whole(0, 1000) or 3,
        start_period_ms=node["start_period"].duration_ms(),
    )


def _at_least(node: Node, scope: Scope) -> int:
    """A time of a check in milliseconds, as far as boards are that fine."""
    asked_ms = node.duration_ms() or 30_000
    if asked_ms < LEAST_MS:
        scope.warn(node, f"{asked_ms} ms is taken for {LEAST_MS / 1000:g} s, the least that a board does")
    return max(asked_ms, LEAST_MS)


def _test(node: Node) -> tuple[str, ...]:
    if not isinstance(node.value, list):
        return ("CMD-SHELL", node.text())
    test = node.texts()
    if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        raise node.refused("the first word is CMD or CMD-SHELL, and what to run follows; or it is NONE alone")
    return test
