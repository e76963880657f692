"""The table of compose's keys against the schema: no key without a verdict, no verdict without a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.wire.errors import Refused
from hub.apps.compile import check, compile_draft
from hub.apps.recipe import Recipe
from hub.apps.schema import schema
from hub.apps.table import TABLE
from hub.apps.verdicts import known_keys

REASONED = ("emulated", "ignored", "refused")


def keys(part: dict[str, Any], path: str) -> Iterator[str]:
    """Every key below ``path`` in the schema; not below what the table judges as a whole."""
    if path in TABLE and TABLE[path].judgement in ("ignored", "refused"):
        return
    if "$ref" in part:
        yield from keys(schema()["$defs"][part["$ref"].rpartition("/")[2]], path)
    for word in ("allOf", "anyOf", "oneOf"):
        for each in part.get(word, []):
            yield from keys(each, path)
    if "items" in part:
        yield from keys(part["items"], path)
    for key, below in part.get("properties", {}).items():
        name = f"{path}.{key}".lstrip(".")
        yield name
        yield from keys(below, name)
    for pattern, below in part.get("patternProperties", {}).items():
        found = list(keys(below, f"{path}.*")) if pattern != "^x-" else []
        if found:
            yield from [f"{path}.*", *found]


KEYS = set(keys(schema(), ""))


def test_the_walk_has_seen_the_schema() -> None:
    assert len(KEYS) > 200
    assert {"services.*.ports.target", "services.*.depends_on.*.condition", "volumes.*.driver"} <= KEYS


def test_every_key_of_compose_has_a_verdict() -> None:
    missing = sorted(KEYS - TABLE.keys())
    assert not missing, (
        f"a newer schema of compose has these: say in hub/apps/table.py what becomes of them: {missing}"
    )


def test_every_verdict_is_on_a_key_of_compose() -> None:
    unknown = sorted(key for key in TABLE if "x-lichen" not in key and key not in KEYS)
    assert not unknown, f"compose has no such key: {unknown}"


def test_what_is_not_done_as_written_has_a_reason() -> None:
    assert [key for key, row in TABLE.items() if row.judgement in REASONED and not row.reason] == []


def test_known_keys_are_those_of_one_level() -> None:
    assert known_keys("services") == ("*",)
    assert known_keys("services.*.healthcheck")[:2] == ("test", "interval")
    assert known_keys("services.*.image") == ()


# One key of each kind that is refused, at each place; "x" stands for any value that the schema takes.
REFUSED = sorted(key for key, row in TABLE.items() if row.judgement == "refused")


@pytest.mark.parametrize("key", REFUSED)
def test_what_the_table_refuses_is_refused(key: str) -> None:
    text = (
        "services:\n  web:\n    image: demo\n    networks: [net]\n    volumes: [{type: volume, target: /a}]\n"
    )
    document = _with(key)
    recipe = Recipe({"compose.yml": text, "over.yml": document})
    env = {"COMPOSE_FILE": "compose.yml:over.yml"}
    with pytest.raises(Refused, match="is not supported") as caught:
        compile_draft(recipe, env, app="demo")
    assert caught.value.hint == TABLE[key].reason
    refused = [each for each in check(recipe, env, app="demo") if each.verdict == "refused"]
    assert [(each.file, each.reason) for each in refused] == [("over.yml", TABLE[key].reason)]


VALUES = {
    "include": "[a.yml]",
    "models": "{a: {model: b}}",
    "jobs": "{a: {image: b, triggers: {manual: true}}}",
    "services.*.build": "{context: .}",
    "services.*.provider": "{type: x}",
    "services.*.models": "[x]",
    "services.*.gpus": "all",
    "services.*.cgroup": "host",
    "services.*.credential_spec": "{file: x}",
    "services.*.storage_opt": "{size: 1g}",
    "services.*.use_api_socket": "true",
    "services.*.networks.*.link_local_ips": "[169.254.1.1]",
    "services.*.volumes.image": "{subpath: x}",
    "services.*.deploy.resources.reservations.generic_resources": "[{discrete_resource_spec: {kind: x}}]",
    "services.*.deploy.resources.reservations.devices": "[{capabilities: [gpu]}]",
    "networks.*.ipam.config.aux_addresses": "{a: 10.0.0.1}",
    "secrets.*.driver_opts": "{a: b}",
    "configs.*.external": "true",
} | {f"services.*.{hook}": "[{command: x}]" for hook in ("pre_start", "post_start", "pre_stop")}
LISTS = ("device_cgroup_rules", "volumes_from", "external_links")
ENTRIES = ("services.*.volumes.", "networks.*.ipam.config.")
"""Lists whose entries have the keys."""


def _with(key: str) -> str:
    """A document in which this key has a value."""
    value = VALUES.get(key) or ("[x]" if key.endswith(LISTS) else "x")
    names = iter(["web", "net"] if key.startswith("services") else ["net"])
    steps = [next(names) if step == "*" else step for step in key.split(".")]
    text = f"{{{steps[-1]}: {value}}}"
    if key.startswith(ENTRIES):
        more = "type: volume, target: /b, " if "volumes" in key else ""
        text = f"[{{{more}{text[1:-1]}}}]"
        if "volume.subpath" in key:
            text, steps = f"[{{{more}volume: {{subpath: x}}}}]", steps[:-1]
    for step in reversed(steps[:-1]):
        text = f"{{{step}: {text}}}"
    return text
