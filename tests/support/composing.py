"""Compile tests as text files: a recipe and an app's env in, a manifest or an error out.

A file of tests/vectors/compose says in its first lines what it is about.  Then sections follow, each below a
line "--- name": the files of the recipe by their path, and

    env            the app's env, as a .env file; STACK_NAME is "demo"
    service NAME   what the manifest says of a service, in JSON
    app            what the manifest says beside that
    secrets, configs, placement
                   what else the draft has
    verdicts       "file:line key: verdict (reason)" for each that is not plainly "supported"
    error, hint    instead of all that: why it is refused

Nothing is left unsaid: what is in the draft and in no section fails the test, and only what has its default
is not written.  Two things would be in every file and are left out of it: the image "demo", and
the network "default" where it is the only one.  No tool writes these files; a failure shows what came out.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.wire.errors import Refused
from hub.apps.compile import compile_draft
from hub.apps.draft import Draft
from hub.apps.recipe import Recipe, read_env

FOLDER = Path(__file__).parents[1] / "vectors" / "compose"
APP = "demo"
IMAGE = {"image": "docker.io/library/demo:latest", "written": "demo"}
OUTPUTS = ("app", "secrets", "configs", "placement", "verdicts", "error", "hint")


@dataclass(frozen=True)
class Case:
    """A recipe, an env, and what is expected by section."""

    name: str
    recipe: Recipe
    env: dict[str, str]
    expected: dict[str, str]


def read_case(path: Path) -> Case:
    """A case from its file."""
    _, *parts = ("\n" + path.read_text()).split("\n--- ")
    sections = {name.strip(): text for name, _, text in (part.partition("\n") for part in parts)}
    assert len(sections) == len(parts), f"{path}: a section is there twice"
    expected = {
        name: text for name, text in sections.items() if name.startswith("service ") or name in OUTPUTS
    }
    files = {
        name: text.rstrip("\n") + "\n"
        for name, text in sections.items()
        if name not in expected and name != "env"
    }
    return Case(path.stem, Recipe(files), read_env(sections.get("env", ""), file="env"), expected)


def outcome(case: Case) -> dict[str, Any]:
    """What comes of a case, by section."""
    try:
        draft = compile_draft(case.recipe, case.env, app=APP)
    except Refused as error:
        return {"error": str(error), **({"hint": error.hint} if error.hint else {})}
    return _sections(draft)


def expectation(case: Case) -> dict[str, Any]:
    """What is expected, in the same form."""
    words = ("error", "hint")
    found: dict[str, Any] = {name: text.strip() for name, text in case.expected.items() if name in words}
    if "verdicts" in case.expected:
        found["verdicts"] = case.expected["verdicts"].strip().splitlines()
    for name, text in case.expected.items():
        if name not in found:
            found[name] = json.loads(text)
    return {name: each for name, each in found.items() if each}  # "{}": it is as plain as can be


def _sections(draft: Draft) -> dict[str, Any]:
    app = _sparse(draft.app)
    services = {each["name"]: each for each in app.pop("services")}
    del app["name"], app["revision"]
    if app.get("networks") == [{"name": f"{APP}_default"}]:
        del app["networks"]
    found = {
        "app": app,
        "secrets": [_sparse(each) for each in draft.secrets],
        "configs": [_sparse(each) for each in draft.configs],
        "placement": draft.placement,
        "verdicts": [
            f"{each.file}:{each.line} {each.key}: {each.verdict} ({each.reason})"
            for each in draft.verdicts
            if each.verdict != "supported"
        ],
    }
    for name, each in services.items():
        usual = {
            "name": name,
            "networks": [{"network": f"{APP}_default", "aliases": [name, f"{APP}_{name}"]}],
            **IMAGE,
        }
        found[f"service {name}"] = {key: value for key, value in each.items() if usual.get(key) != value}
    return {name: each for name, each in found.items() if each}


def _sparse(value: Any) -> Any:
    """Plain data without what has its default."""
    if isinstance(value, tuple | list):
        return [_sparse(each) for each in value]
    if isinstance(value, dict):
        return dict(value)
    if not dataclasses.is_dataclass(value):
        return value
    found = {}
    for field in dataclasses.fields(value):
        each = getattr(value, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if each != default:
            found[field.name] = _sparse(each)
    return found
