"""Secrets and configs: which ones a service is given as files, and what the app needs for that."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from agent.wire.errors import Refused
from agent.wire.order import Given
from hub.apps import templates
from hub.apps.compile import process
from hub.apps.compile.scope import Scope
from hub.apps.draft import SIZE_HINT, ConfigDraft, SecretNeed, size_fault
from hub.apps.recipe import SecretHint, secret_hints
from hub.apps.tree import Node

SECRETS_FOLDER = "/run/secrets"
RENAME = "give one of them another name: a board keeps secrets and configs side by side"

_VERSION_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*_VERSION)\b")
_VERSION = re.compile(r"[a-z0-9]{1,32}")


def given(service: Node, kind: Literal["secrets", "configs"], scope: Scope) -> tuple[Given, ...]:
    """The secrets or the configs of a service, each with the file that it becomes."""
    folder = SECRETS_FOLDER if kind == "secrets" else "/"
    found: dict[str, Given] = {}
    for entry in service[kind]:
        name = (entry["source"] if entry.is_mapping else entry).text()
        scope.defined(kind, entry, name)
        mode = entry["mode"].mode() if entry.is_mapping else None
        target = posixpath.normpath(posixpath.join(folder, entry["target"].text() or name))
        if target in found:
            raise entry.refused(f"{found[target].source!r} is at {target} already")
        if target in ("/", SECRETS_FOLDER):
            raise entry.refused(f"{target} is a folder")
        found[target] = Given(
            name,
            target,
            entry["uid"].whole(0, 2**31),
            entry["gid"].whole(0, 2**31),
            0o444 if mode is None else mode,
        )
    return tuple(found.values())


# --- configs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configs:
    """The configs of an app, and which of them each service means by a name.

    A template sees the environment of the container that it is for, so one that is given to two services
    becomes two configs where they differ.
    """

    drafts: tuple[ConfigDraft, ...]
    renamed: Mapping[tuple[str, str], str]  # (service, config) -> name of the draft

    def of(self, service: str, scope: Scope) -> tuple[Given, ...]:
        """The configs of a service, under the names of their drafts."""
        files = given(scope.services[service], "configs", scope)
        return tuple(replace(each, source=self.renamed[service, each.source]) for each in files)

    def refuse_names_of(self, needs: Iterable[SecretNeed], scope: Scope) -> None:
        """Raise Refused when a config is called like a secret."""
        names = {need.name for need in needs}
        for (_, source), name in self.renamed.items():
            if name in names:
                definition = scope.document["configs"][source]
                raise definition.refused(f"there is a secret {name!r}, too", hint=RENAME)


def configs(scope: Scope) -> Configs:
    """The configs that the app's services use."""
    drafts: dict[str, ConfigDraft] = {}
    seen: dict[str, Mapping[str, str]] = {}
    sources: dict[str, str] = {}
    renamed = {}
    for service_name, service in scope.services.items():
        for each in given(service, "configs", scope):
            definition = scope.document["configs"][each.source]
            draft, variables = _config(definition, each.source, service, scope)
            if seen.setdefault(draft.name, variables) != variables:
                draft = replace(draft, name=f"{draft.name}.{service_name}")
            if sources.setdefault(draft.name, each.source) != each.source:
                raise definition.refused(f"there is another config {draft.name!r}", hint=RENAME)
            drafts[draft.name] = draft
            renamed[service_name, each.source] = draft.name
    return Configs(tuple(drafts.values()), renamed)


def _config(definition: Node, name: str, service: Node, scope: Scope) -> tuple[ConfigDraft, dict[str, str]]:
    """A config as one service is given it, and the variables that it shows of that service."""
    text, file = _content(definition, scope)
    if text is None:
        raise definition.refused(
            "says nothing of what is in it", hint="give 'file', 'content' or 'environment'"
        )
    driver = definition["template_driver"]
    if driver.choice(("golang",), default="") != "golang":
        _check_size(definition, text)
        return ConfigDraft(name, text), {}
    environment = process.environment(service, scope)
    try:
        uses = templates.uses(text, {**scope.env, **environment}, file)
    except Refused as error:
        raise definition.refused(str(error), hint=error.hint) from None
    for secret in uses.secrets:
        scope.defined("secrets", definition, secret)
    shown = {variable: environment[variable] for variable in uses.variables if variable in environment}
    return ConfigDraft(name, text, is_template=True, secrets=uses.secrets, file=file), shown


def _check_size(definition: Node, text: str) -> None:
    if fault := size_fault(text):
        raise definition.refused(fault, hint=SIZE_HINT)


def _content(definition: Node, scope: Scope) -> tuple[str | None, str]:
    """What a config holds, and in which file it stands; None where the recipe does not say."""
    if (file := definition["file"]).is_given:
        if file.text() not in scope.recipe:
            raise file.refused(f"the recipe has no file {file.text()[:200]!r}")
        return scope.recipe.text(file.text()), posixpath.normpath(file.text())
    if (variable := definition["environment"]).is_given:
        if variable.text() not in scope.env:
            raise variable.refused(f"{variable.text()[:60]} is not set in the app's env")
        return scope.env[variable.text()], definition.file
    if (content := definition["content"]).is_given:
        return content.text(), definition.file
    return None, ""


# --- secrets -------------------------------------------------------------------------------------


def secrets(scope: Scope, drafts: Iterable[ConfigDraft]) -> tuple[SecretNeed, ...]:
    """The secrets that services are given, and those that configs refer to."""
    names = [each.source for service in scope.services.values() for each in given(service, "secrets", scope)]
    names += [name for draft in drafts for name in draft.secrets]
    hints = secret_hints(scope.recipe)
    return tuple(
        _secret(scope.document["secrets"][name], name, hints, scope) for name in dict.fromkeys(names)
    )


def _secret(definition: Node, name: str, hints: Mapping[str, SecretHint], scope: Scope) -> SecretNeed:
    variable, version = _version(definition, scope)
    hint = hints.get(variable, SecretHint())
    return SecretNeed(
        name,
        scope.full_name(definition, name),
        variable,
        version,
        hint.length,
        hint.charset,
        hint.generate,
    )


def _version(definition: Node, scope: Scope) -> tuple[str, str]:
    """The variable that holds the version of a secret, and its value; "" and "v1" where there is none."""
    node = definition["name"]
    found = _VERSION_VARIABLE.search(node.written)
    if not found:
        return "", "v1"
    # A default may stand in the name itself: ${SECRET_X_VERSION:-v1}.
    version = scope.env.get(found[1], "") or node.text().rpartition("_")[2]
    if not _VERSION.fullmatch(version):
        raise node.refused(
            f"{found[1]} is {version[:40]!r}, which is no version",
            hint=f"set {found[1]} in the app's env, to v1 for example",
        )
    return found[1], version
