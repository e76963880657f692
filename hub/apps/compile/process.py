"""What runs in a container: its command line, its environment, its labels, its user."""

from __future__ import annotations

import re
import shlex

from agent.wire.errors import Refused
from agent.wire.rights import steers
from hub.apps.compile.scope import Scope, labels_of
from hub.apps.recipe import read_env
from hub.apps.tree import Node

APP_ENV = ".env"
_SIGNAL = re.compile(r"(SIG)?[A-Z0-9+-]{2,12}|[0-9]{1,2}")


def words(node: Node) -> tuple[str, ...] | None:
    """A command or an entrypoint; a text is split as a shell would.  None: as the image has it."""
    if not node.is_given:
        return None
    if isinstance(node.value, list):
        return node.texts()
    try:
        return tuple(shlex.split(node.text()))
    except ValueError as error:
        raise node.refused(f"cannot be split into words: {str(error).lower()}") from None


def environment(service: Node, scope: Scope) -> dict[str, str]:
    """The variables of a container: those of its env files, then its own."""
    found: dict[str, str] = {}
    for entry in service["env_file"].entries():
        found |= _env_file(entry, scope)
    for name, node in service["environment"].pairs().items():
        if node.is_given:
            found[name] = node.text()
        elif name in scope.env:
            found[name] = scope.env[name]
    for name in found:
        if not name or "=" in name or "\0" in name + found[name]:
            raise service["environment"].refused(f"{name[:60]!r} is no variable")
    return found


def _env_file(entry: Node, scope: Scope) -> dict[str, str]:
    path = entry["path"].text() if entry.is_mapping else entry.text()
    if path.removeprefix("./") == APP_ENV and APP_ENV not in scope.recipe:
        return dict(scope.env)
    if path not in scope.recipe:
        if not entry["required"].flag(default=True):
            return {}
        raise entry.refused(f"the recipe has no file {path[:200]!r}")
    text = scope.recipe.text(path)
    match entry["format"].text():
        case "raw":
            rows = (row.partition("=") for row in text.splitlines() if not row.lstrip().startswith("#"))
            return {name.strip(): value for name, equals, value in rows if equals}
        case "":
            return _read(entry, path, text, scope)
    raise entry["format"].refused("is neither 'raw' nor left out")


def _read(entry: Node, path: str, text: str, scope: Scope) -> dict[str, str]:
    try:
        return read_env(text, file=path, env=scope.env)
    except Refused as error:
        raise entry.refused(str(error), hint=error.hint) from None


def labels(service: Node, scope: Scope) -> dict[str, str]:
    """The labels of a container; in Swarm those below 'deploy' would be the service's."""
    found: dict[str, str] = {}
    for entry in service["label_file"].entries():
        found |= _env_file(entry, scope)
    return found | labels_of(service["labels"]) | labels_of(service["deploy"]["labels"])


def annotations_of(service: Node) -> dict[str, str]:
    """The annotations of a container: notes, and no instructions to what runs it."""
    found = service["annotations"].pairs()
    for name, each in found.items():
        if steers(name):
            raise each.refused(f"{name[:80]!r} steers what runs containers, and no board takes it")
    return {name: each.text() for name, each in found.items()}


def stop_signal(service: Node) -> str:
    """The signal that asks a container to end."""
    node = service["stop_signal"]
    signal = node.text().strip().upper()
    if signal and not _SIGNAL.fullmatch(signal):
        raise node.refused(f"{signal[:30]!r} is no signal", hint="such as SIGINT")
    return signal
