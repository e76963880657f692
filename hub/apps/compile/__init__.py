"""Recipes to drafts: what a compose file says, as the manifest of an app.

    recipe + env -> load (YAML, variables, merge, schema) -> verdicts -> one function per noun -> Draft

Owns the order in which that happens.  Called by whoever checks or deploys an app; never asks a
registry, a board or the store, so the same recipe and env always give the same draft.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from agent.wire.decode import decode, plain
from agent.wire.errors import Refused
from agent.wire.order import App
from hub.apps.compile.dependencies import active_services, awaited, dependencies, refuse_cycles
from hub.apps.compile.given import configs, secrets
from hub.apps.compile.mounts import volumes
from hub.apps.compile.networks import attachments, networks
from hub.apps.compile.ports import refuse_conflicts
from hub.apps.compile.scope import Scope
from hub.apps.compile.service import service
from hub.apps.compile.wishes import placement, timeout_ms, version, windows
from hub.apps.draft import Draft, Verdict
from hub.apps.loader import load
from hub.apps.recipe import Recipe
from hub.apps.tree import Node
from hub.apps.units import is_text
from hub.apps.verdicts import verdicts

APP = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MAX_SERVICES = 64
_UNPINNED = "@sha256:" + "0" * 64


def compile_draft(recipe: Recipe, env: Mapping[str, str], *, app: str) -> Draft:
    """The draft of an app called ``app``.  Takes milliseconds to a second of processor time.

    Raises Refused (code "compose"; "env" for .env.sample) for the first thing that is wrong, naming
    file, line and key.
    """
    scope, judged = _judged(recipe, env, app)
    for each in judged:
        if each.verdict == "refused":
            raise Refused(
                f"{each.file}:{each.line}: {each.key}: is not supported", code="compose", hint=each.reason
            )
    return _draft(scope, judged)


def check(recipe: Recipe, env: Mapping[str, str], *, app: str) -> tuple[Verdict, ...]:
    """What becomes of each key, in the order of the file, refused ones among them.

    Raises Refused (code "compose"; "env" for .env.sample) for what is wrong beyond a key that is refused.
    """
    scope, judged = _judged(recipe, env, app)
    if any(each.verdict == "refused" for each in judged):
        return _in_order([*judged, *scope.warnings])
    return _draft(scope, judged).verdicts


def proposed_name(recipe: Recipe, env: Mapping[str, str]) -> str:
    """The name that the recipe gives itself (``name:``), or empty.  Raises Refused (code "compose")."""
    return load(recipe, env).root["name"].text()


def _judged(recipe: Recipe, env: Mapping[str, str], app: str) -> tuple[Scope, list[Verdict]]:
    """The document with what belongs to it, and the verdicts on all of it that is active."""
    if not APP.fullmatch(app):
        raise Refused(
            f"{app[:60]!r} is no name of an app",
            code="compose",
            hint="lower-case letters, digits, '_' and '-', at most 40",
        )
    for name, value in env.items():
        if not is_text(name + value):
            raise Refused(f"{name[:60]!r} in the app's env is no text", code="env")
    env = {**env, "STACK_NAME": app, "COMPOSE_PROJECT_NAME": app}
    document = load(recipe, env)
    services = active_services(document.root, env)
    root = document.root
    if not services:
        raise root["services"].refused("no service is left to run", hint="name one, or set COMPOSE_PROFILES")
    if len(services) > MAX_SERVICES:
        raise root["services"].refused(f"{len(services)} services, of {MAX_SERVICES} allowed")
    active = root.with_value({**root.value, "services": root["services"].with_value(services)})
    judged = [*verdicts(active), *_asleep(root, services)]
    ignored = {each.key for each in judged if each.verdict == "ignored"}
    warnings = [each for each in document.warnings if ignored.isdisjoint(_above(each.key))]
    return Scope(app, env, recipe, root, services, warnings), judged


def _above(key: str) -> Iterator[str]:
    """A key, and those that it is below: "a.b[0]", "a.b" and "a"."""
    yield key
    for mark in re.finditer(r"[.\[]", key):
        yield key[: mark.start()]


def _asleep(root: Node, services: Mapping[str, Node]) -> list[Verdict]:
    """Services that another profile would have."""
    return [
        Verdict(each.file, each.line, each.path, "ignored", "its profile is not in COMPOSE_PROFILES")
        for name, each in root["services"].items()
        if name not in services
    ]


def _draft(scope: Scope, judged: list[Verdict]) -> Draft:
    waits = {name: dependencies(name, scope) for name in scope.services}
    refuse_cycles(waits, scope)
    ended = awaited(waits)
    files = configs(scope)
    net = networks(scope)
    services = tuple(
        service(
            name,
            scope,
            networks=attachments(name, net, scope),
            configs=files.of(name, scope),
            depends_on=waits[name],
            is_awaited=name in ended,
        )
        for name in scope.services
    )
    refuse_conflicts(zip(scope.services.values(), services, strict=True))
    needs = secrets(scope, files.drafts)
    files.refuse_names_of(needs, scope)
    app = App(
        scope.app,
        revision=1,
        version=version(scope),
        services=services,
        networks=tuple({each.name: each for each in net.definitions.values()}.values()),
        volumes=volumes(scope),
        timeout_ms=timeout_ms(scope),
        windows=windows(scope),
    )
    _refuse_what_cannot_travel(app)
    return Draft(
        app,
        needs,
        files.drafts,
        placement(scope),
        _in_order([*judged, *scope.warnings]),
        app.version,
    )


def _refuse_what_cannot_travel(app: App) -> None:
    """Raise Refused when the board would not take it: names, lengths and counts have limits on the wire."""
    pinned = tuple(
        replace(each, image=each.image if "@" in each.image else each.image + _UNPINNED)
        for each in app.services
    )
    try:
        decode(App, plain(replace(app, services=pinned)))
    except Refused as error:
        raise Refused(f"the manifest of {app.name}: {error}", code="compose", hint=error.hint) from None


def _in_order(found: list[Verdict]) -> tuple[Verdict, ...]:
    """File by file, line by line; a key before what is said of its value."""
    files = list(dict.fromkeys(each.file for each in found))
    return tuple(sorted(dict.fromkeys(found), key=lambda each: (files.index(each.file), each.line)))
