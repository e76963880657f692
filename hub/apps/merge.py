"""Merging: a compose file laid over another one, by the rules of compose.

    mappings      key by key
    lists         one after the other; of two entries for the same thing the later one stays
    all else      the later one
    !override     the later one, whatever it is
    !reset        nothing

Owns which lists are about the same thing, and which keys go their own way.  Called by `hub.apps.loader` for
overlays and for ``extends``.
"""

from __future__ import annotations

from collections.abc import Callable

from hub.apps.tree import Node, plain

NAMED = ("services", "networks", "volumes", "secrets", "configs")

REPLACED = ("services.*.command", "services.*.entrypoint", "services.*.healthcheck.test")
"""A list, but one thing."""

PAIRS = (
    "services.*.environment",
    "services.*.labels",
    "services.*.annotations",
    "services.*.sysctls",
    "services.*.deploy.labels",
    "networks.*.labels",
    "volumes.*.labels",
)
"""A mapping, or a list of "name=value"."""

NAMES = {"services.*.networks": None, "services.*.depends_on": "service_started"}
"""A mapping, or a list of its keys; and the condition that such a key stands for."""

SINGLE = (
    "services.*.dns",
    "services.*.dns_search",
    "services.*.tmpfs",
    "services.*.env_file",
    "services.*.label_file",
)
"""A list, or its only entry."""


def merge(base: Node, over: Node) -> Node:
    """``base`` with ``over`` laid over it: two documents."""
    return _merged(base, over, "")


def merge_services(base: Node, over: Node) -> Node:
    """The same for two services."""
    return _merged(base, over, "services.*")


def settled(node: Node) -> Node | None:
    """What is left when there is nothing to lay over: None for what is reset."""
    if node.tag == "!reset":
        return None
    value = node.value
    if isinstance(value, dict):
        value = {key: kept for key, each in value.items() if (kept := settled(each)) is not None}
    elif isinstance(value, list):
        value = [kept for each in value if (kept := settled(each)) is not None]
    return node.with_value(value)


def _merged(base: Node, over: Node, path: str) -> Node:
    if over.tag or base.tag == "!reset" or path in REPLACED:
        return over
    if path == "services.*.logging" and not _same_driver(base, over):
        return over
    base, over = _unfolded(base, path), _unfolded(over, path)
    if over.value is None or over.value in ({}, []):
        return base
    if base.is_mapping and over.is_mapping:
        return _merged_mappings(base, over, path)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return base.with_value(_united([*base, *over], path))
    return over


def _merged_mappings(base: Node, over: Node, path: str) -> Node:
    values = dict(base.items())
    for key, each in over.items():
        inner = f"{path}.*" if path in NAMED else f"{path}.{key}".lstrip(".")
        known = values.get(key)
        # A variable without a value is not nothing: it is taken from the app's env.
        values[key] = each if known is None or path in PAIRS else _merged(known, each, inner)
    return base.with_value(values)


def _unfolded(node: Node, path: str) -> Node:
    """The form of two that can be merged."""
    if path in PAIRS and isinstance(node.value, list):
        return node.with_value(node.pairs())
    if path in NAMES and isinstance(node.value, list):
        condition = NAMES[path]
        value = None if condition is None else {"condition": node.with_value(condition)}
        return node.with_value({each.text(): each.with_value(value) for each in node})
    if path in SINGLE and node.is_given and not isinstance(node.value, list):
        return node.with_value([node])
    return node


def _same_driver(base: Node, over: Node) -> bool:
    drivers = {each["driver"].text() for each in (base, over) if each["driver"].is_given}
    return len(drivers) < 2


# --- lists of things -----------------------------------------------------------------------------


def _united(entries: list[Node], path: str) -> list[Node]:
    """The entries, each thing once: in the place of the first, as the last has it."""
    identify = IDENTITIES.get(path, _whole)
    return list({identify(each): each for each in entries}.values())


def _whole(entry: Node) -> str:
    return repr(plain(entry))


def _target_of_volume(entry: Node) -> str:
    if entry.is_mapping:
        return entry["target"].text()
    parts = entry.text().split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _target_of_device(entry: Node) -> str:
    if entry.is_mapping:
        return entry["target"].text() or entry["source"].text()
    return _target_of_volume(entry)


def _target_of_given(entry: Node) -> str:
    target = entry["target"].text() or entry["source"].text() if entry.is_mapping else entry.text()
    return target.removeprefix("/run/secrets/")


def _path_of_file(entry: Node) -> str:
    return entry["path"].text() if entry.is_mapping else entry.text()


IDENTITIES: dict[str, Callable[[Node], str]] = {
    "services.*.volumes": _target_of_volume,
    "services.*.devices": _target_of_device,
    "services.*.secrets": _target_of_given,
    "services.*.configs": _target_of_given,
    "services.*.env_file": _path_of_file,
}
