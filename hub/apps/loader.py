"""A recipe's compose files to one document: variables put in, checked, extended and merged.

    each file of COMPOSE_FILE:  parse -> put in variables -> schema, unknown keys -> extends
    all of them:                merge in their order

Owns which files are read, and in which order these steps are taken.  Called by `hub.apps.compile`; what the
document means is not known here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.wire.errors import Refused
from hub.apps.draft import Verdict
from hub.apps.interpolate import interpolate
from hub.apps.merge import merge, merge_services, settled
from hub.apps.parser import MAX_NODES, parse
from hub.apps.recipe import SAMPLE, Recipe, inside
from hub.apps.schema import validate
from hub.apps.tree import Node, count, with_paths
from hub.apps.verdicts import verdicts

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
MAX_FILES = 16
MAX_EXTENDS = 16
MAX_CHARACTERS = 2 * 1024 * 1024
"""Of all values of a file together, with variables put in."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a recipe says.  ``warnings``: variables that are not set, and so are empty."""

    root: Node
    warnings: tuple[Verdict, ...]


def load(recipe: Recipe, env: Mapping[str, str]) -> Document:
    """The document of a recipe for an app with this env.  Raises Refused (code "compose")."""
    loading = _Loading(recipe, env)
    root: Node | None = None
    for file in compose_files(recipe, env):
        document = loading.file(file)
        root = document if root is None else merge(root, document)
    assert root is not None
    if count(root, MAX_NODES) > MAX_NODES:
        raise root.refused(f"with all that is merged and extended, there are more than {MAX_NODES:,} values")
    kept = settled(root)
    assert kept is not None
    return Document(with_paths(kept), tuple(loading.warnings))


def compose_files(recipe: Recipe, env: Mapping[str, str]) -> tuple[str, ...]:
    """The files that make up the app, the later ones laid over the earlier.  Raises Refused."""
    if named := env.get("COMPOSE_FILE", "").strip():
        files = [file for file in named.split(env.get("COMPOSE_PATH_SEPARATOR") or ":") if file]
        for file in files:
            if file not in recipe:
                raise Refused(
                    f"COMPOSE_FILE names {file[:200]!r}, which the recipe does not have",
                    code="compose",
                    hint=f"it has {', '.join(_yaml_files(recipe)) or 'no YAML file'}",
                )
        return tuple(dict.fromkeys(map(inside, files)))
    for file in DEFAULT_FILES:
        if file in recipe:
            return (file,)
    alone = [path for path in recipe.files if path != SAMPLE]
    if len(alone) == 1 and _yaml_files(recipe) == alone:
        return (alone[0],)
    raise Refused(
        "the recipe has no compose file",
        code="compose",
        hint=f"name one {' or '.join(DEFAULT_FILES[:3])}, or set COMPOSE_FILE in the app's env",
    )


def _yaml_files(recipe: Recipe) -> list[str]:
    return sorted(path for path in recipe.files if path.endswith((".yml", ".yaml")))[:20]


class _Loading:
    """Reads the files of one recipe, each once."""

    def __init__(self, recipe: Recipe, env: Mapping[str, str]) -> None:
        self._recipe = recipe
        self._env = env
        self._files: dict[str, Node] = {}
        self.warnings: dict[Verdict, None] = {}

    def file(self, file: str) -> Node:
        """A file on its own, checked, its services extended."""
        document = self._checked(file)
        services = document["services"]
        if not services.is_mapping:
            return document
        extended = {
            name: self._extended(service, file, ((file, name),)) for name, service in services.items()
        }
        return document.with_value({**document.value, "services": services.with_value(extended)})

    def _checked(self, file: str) -> Node:
        if file in self._files:
            return self._files[file]
        if len(self._files) == MAX_FILES:
            raise Refused(f"more than {MAX_FILES} compose files", code="compose")
        tree = with_paths(parse(self._recipe.text(file), file))
        if not tree.is_mapping or tree.tag:
            raise tree.refused("a compose file is a mapping with the key 'services'")
        document = _Variables(self._env, self.warnings).put_into(tree)
        shape = settled(document)
        assert shape is not None
        validate(shape)
        verdicts(shape)  # for unknown keys
        self._files[file] = document
        return document

    def _extended(self, service: Node, file: str, chain: tuple[tuple[str, str], ...]) -> Node:
        """A service with what it extends below it.  ``chain``: who asks, so that circles are noticed."""
        extends = service["extends"]
        if not extends.is_given:
            return service
        name = (extends["service"] if extends.is_mapping else extends).text()
        source = file
        if beside := extends["file"].text():
            source = inside(posixpath.join(posixpath.dirname(file), beside))
            if source not in self._recipe:
                raise extends.refused(f"the recipe has no file {beside[:200]!r}")
        if len(chain) > MAX_EXTENDS:
            raise extends.refused(f"services extend each other more than {MAX_EXTENDS} deep")
        if (source, name) in chain:
            circle = " -> ".join(each for _, each in (*chain, (source, name)))
            raise extends.refused(f"services extend each other in a circle: {circle}")
        base = self._checked(source)["services"][name]
        if not base.is_given:
            raise extends.refused(f"{source} has no service {name[:200]!r}")
        base = self._extended(base, source, (*chain, (source, name)))
        own = {key: each for key, each in service.items() if key != "extends"}
        return merge_services(base, service.with_value(own))


class _Variables:
    """Puts variables into the values of one file."""

    def __init__(self, env: Mapping[str, str], warnings: dict[Verdict, None]) -> None:
        self._env = env
        self._warnings = warnings
        self._characters = 0

    def put_into(self, node: Node) -> Node:
        """The same tree with variables put into its texts; keys stay as they are.  Raises Refused."""
        value = node.value
        if isinstance(value, dict):
            return node.with_value({key: self.put_into(each) for key, each in value.items()})
        if isinstance(value, list):
            return node.with_value([self.put_into(each) for each in value])
        return self._text(node) if isinstance(value, str) else node

    def _text(self, node: Node) -> Node:
        def unset(name: str) -> None:
            reason = f"{name} is not set in the app's env, so it is empty here"
            self._warnings[Verdict(node.file, node.line, node.path, "warned", reason)] = None

        try:
            value = interpolate(node.value, self._env, unset=unset)
        except Refused as error:
            raise node.refused(str(error), hint=error.hint) from None
        self._characters += len(value)
        if self._characters > MAX_CHARACTERS:
            raise node.refused(f"with variables put in, the file is over {MAX_CHARACTERS:,} characters")
        return replace(node, value=value)
