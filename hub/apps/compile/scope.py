"""What every noun of a recipe is compiled with: the app, its env, the document, and a place for warnings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.wire.decode import nearest
from agent.wire.rights import RESERVED_LABELS, is_reserved
from hub.apps.draft import Verdict
from hub.apps.recipe import Recipe
from hub.apps.tree import Node

NOUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Scope:
    """One compilation.  ``services`` are those whose profile is active, by name.

    ``warnings`` is the only thing that changes: what is honoured, and worth a word.
    """

    app: str
    env: Mapping[str, str]
    recipe: Recipe
    document: Node
    services: Mapping[str, Node] = field(default_factory=dict)
    warnings: list[Verdict] = field(default_factory=list)

    def warn(self, node: Node, reason: str) -> None:
        """Tell the operator something about a value."""
        self.warnings.append(Verdict(node.file, node.line, node.path, "warned", reason))

    def defined(self, kind: str, used: Node, name: str) -> Node:
        """The definition of a network, volume, secret or config at the top of the document."""
        definitions = self.document[kind]
        names = [key for key, _ in definitions.items()]
        if name not in names:
            near = nearest(name, names)
            suffix = f"; did you mean {near!r}?" if near else ""
            raise used.refused(
                f"{name[:128]!r} is not defined{suffix}", hint=f"define it at the top, below '{kind}'"
            )
        return definitions[name]

    def service(self, used: Node, name: str) -> Node:
        """A service that another one names."""
        if name in self.services:
            return self.services[name]
        if self.document["services"][name].is_given:
            raise used.refused(
                f"the profile of the service {name!r} is not active",
                hint="add it to COMPOSE_PROFILES in the app's env",
            )
        near = nearest(name, self.services)
        suffix = f"; did you mean {near!r}?" if near else ""
        raise used.refused(f"there is no service {name[:128]!r}{suffix}")

    def full_name(self, definition: Node, key: str) -> str:
        """What a network, volume or secret is called outside of the app."""
        external = definition["external"]
        name = external["name"].text() if external.is_mapping else ""
        name = definition["name"].text() or name
        if not name:
            name = key if is_external(definition) else f"{self.app}_{key}"
        if not NOUN.fullmatch(name):
            raise definition.refused(
                f"{name[:128]!r} is no name: letters, digits, '_', '.' and '-' are allowed, 128 at most"
            )
        return name


def labels_of(node: Node) -> dict[str, str]:
    """The labels that a recipe gives to something: none by which a board knows what it made."""
    found = node.pairs()
    for label, each in found.items():
        if is_reserved(label):
            hint = f"none may begin with {RESERVED_LABELS}"
            raise each.refused(f"{label[:80]!r} is the board's own label", hint=hint)
    return {label: each.text() for label, each in found.items()}


def is_external(definition: Node) -> bool:
    """Whether a thing is there already; the older form gives its name instead of true."""
    external = definition["external"]
    return external.is_mapping or external.flag()
