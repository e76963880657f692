"""Files into one document: which ones, how they are merged, and that it ends."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from agent.wire.errors import Refused
from hub.apps.compile import check, compile_draft, proposed_name
from hub.apps.loader import compose_files, load
from hub.apps.recipe import Recipe
from hub.apps.tree import plain

BASE = "services: {web: {image: demo}}"


def merged(base: str, over: str, key: str = "web") -> Any:
    """What a service becomes when another file is laid over the first."""
    recipe = Recipe({"a.yml": f"services: {{web: {base}}}", "b.yml": f"services: {{web: {over}}}"})
    return plain(load(recipe, {"COMPOSE_FILE": "a.yml:b.yml"}).root["services"][key])


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ("{image: a, user: x}", "{image: b}", {"image": "b", "user": "x"}),
        ("{command: [a, b]}", "{command: c}", {"command": "c"}),
        ("{entrypoint: a}", "{entrypoint: [b]}", {"entrypoint": ["b"]}),
        ("{healthcheck: {test: [CMD, a], retries: 1}}", "{healthcheck: {test: [CMD, b]}}",
         {"healthcheck": {"test": ["CMD", "b"], "retries": 1}}),
        ("{environment: [A=1, B]}", "{environment: {B: 2}}", {"environment": {"A": "1", "B": 2}}),
        ("{environment: {A: 1}}", "{environment: [A]}", {"environment": {"A": None}}),
        ("{labels: [a=1]}", "{labels: [a=2, b=2]}", {"labels": {"a": "2", "b": "2"}}),
        ("{deploy: {labels: [a=1], replicas: 1}}", "{deploy: {labels: {b: 2}}}",
         {"deploy": {"labels": {"a": "1", "b": 2}, "replicas": 1}}),
        ("{cap_add: [A, B]}", "{cap_add: [B, C]}", {"cap_add": ["A", "B", "C"]}),
        ("{dns: a}", "{dns: [a, b]}", {"dns": ["a", "b"]}),
        ("{env_file: [a, {path: b}]}", "{env_file: {path: c}}", None),
        ("{env_file: [a, {path: b}]}", "{env_file: [{path: b, required: false}]}",
         {"env_file": ["a", {"path": "b", "required": False}]}),
        ("{tmpfs: /a}", "{tmpfs: /b}", {"tmpfs": ["/a", "/b"]}),
        ("{volumes: ['a:/x', 'b:/y:ro']}", "{volumes: [{type: volume, source: c, target: /x}]}",
         {"volumes": [{"type": "volume", "source": "c", "target": "/x"}, "b:/y:ro"]}),
        ("{secrets: [a, b]}", "{secrets: [{source: c, target: a}]}",
         {"secrets": [{"source": "c", "target": "a"}, "b"]}),
        ("{devices: ['/dev/a:/dev/x']}", "{devices: ['/dev/b:/dev/x:r']}", {"devices": ["/dev/b:/dev/x:r"]}),
        ("{ports: ['80:80', {target: 1}]}", "{ports: ['80:80', {target: 1}, '81:80']}",
         {"ports": ["80:80", {"target": 1}, "81:80"]}),
        ("{networks: [a]}", "{networks: {a: {aliases: [x]}, b: }}",
         {"networks": {"a": {"aliases": ["x"]}, "b": None}}),
        ("{networks: {a: {aliases: [x]}}}", "{networks: [a]}", {"networks": {"a": {"aliases": ["x"]}}}),
        ("{depends_on: [a]}", "{depends_on: [b]}",
         {"depends_on": {"a": {"condition": "service_started"}, "b": {"condition": "service_started"}}}),
        ("{logging: {driver: a, options: {x: 1}}}", "{logging: {options: {y: 1}}}",
         {"logging": {"driver": "a", "options": {"x": 1, "y": 1}}}),
        ("{logging: {driver: a, options: {x: 1}}}", "{logging: {driver: b}}", {"logging": {"driver": "b"}}),
        ("{ulimits: {nofile: 1, nproc: 2}}", "{ulimits: {nofile: {soft: 1, hard: 2}}}",
         {"ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 2}}),
        ("{extra_hosts: ['a:1']}", "{extra_hosts: ['b:2']}", {"extra_hosts": ["a:1", "b:2"]}),
        ("{ports: [80]}", "{ports: !override [81]}", {"ports": [81]}),
        ("{ports: [80], user: x}", "{ports: !reset [], user: !reset null}", {}),
        ("{environment: {A: 1, B: 2}}", "{environment: {A: !reset null}}", {"environment": {"B": 2}}),
        ("{deploy: {replicas: 2}}", "{deploy: }", {"deploy": {"replicas": 2}}),
        ("{cap_add: [A]}", "{cap_add: ! [B]}", {"cap_add": ["A", "B"]}),
        ("{x-a: [1]}", "{x-a: [2]}", {"x-a": [1, 2]}),
    ],
)  # fmt: skip
def test_a_file_is_laid_over_another(base: str, over: str, result: Any) -> None:
    if result is None:
        with pytest.raises(Refused):
            merged(base, over)
    else:
        assert merged(base, over) == result


def test_a_service_that_only_the_overlay_has() -> None:
    recipe = Recipe({"a.yml": BASE, "b.yml": "services: {db: {image: db}}\nvolumes: {data: }"})
    root = plain(load(recipe, {"COMPOSE_FILE": "a.yml:b.yml"}).root)
    assert root == {"services": {"web": {"image": "demo"}, "db": {"image": "db"}}, "volumes": {"data": None}}


def test_errors_name_the_file_that_is_wrong() -> None:
    recipe = Recipe({"a.yml": BASE, "more/b.yml": "services:\n  web:\n    prots: [80]"})
    with pytest.raises(
        Refused, match=r"^more/b.yml:3: services.web.prots: unknown key; did you mean 'ports'\?$"
    ):
        load(recipe, {"COMPOSE_FILE": "a.yml:more/b.yml"})


def test_which_files_are_read() -> None:
    every = dict.fromkeys(("compose.yaml", "compose.yml", "docker-compose.yml", "x/a.yml"), BASE)
    assert compose_files(Recipe(every), {}) == ("compose.yaml",)
    assert compose_files(Recipe(every), {"COMPOSE_FILE": " "}) == ("compose.yaml",)
    assert compose_files(Recipe(every), {"COMPOSE_FILE": "x/a.yml:compose.yml:x/a.yml"}) == (
        "x/a.yml",
        "compose.yml",
    )
    named = {"COMPOSE_FILE": "x/a.yml;./compose.yml", "COMPOSE_PATH_SEPARATOR": ";"}
    assert compose_files(Recipe(every), named) == ("x/a.yml", "compose.yml")
    assert compose_files(Recipe({"stack.yml": BASE, ".env.sample": ""}), {}) == ("stack.yml",)
    with pytest.raises(Refused, match="the recipe has no compose file"):
        compose_files(Recipe({"stack.yml": BASE, "other.yml": BASE}), {})
    with pytest.raises(Refused, match="which the recipe does not have"):
        compose_files(Recipe(every), {"COMPOSE_FILE": "../compose.yml"})


def test_a_file_that_is_extended_lies_beside_the_one_that_says_so() -> None:
    files = {
        "compose.yml": "services: {web: {extends: {file: common/web.yml, service: web}}}",
        "common/web.yml": "services: {web: {extends: {file: ./base.yml, service: base}, user: x}}",
        "common/base.yml": "services: {base: {image: demo}}",
    }
    assert plain(load(Recipe(files), {}).root) == {"services": {"web": {"image": "demo", "user": "x"}}}
    del files["common/base.yml"]
    with pytest.raises(Refused, match=r"^common/web.yml:1: .*: the recipe has no file './base.yml'$"):
        load(Recipe(files), {})


def test_files_have_their_number() -> None:
    files = {f"f{number}.yml": BASE for number in range(17)}
    with pytest.raises(Refused, match="more than 16 compose files"):
        load(Recipe(files), {"COMPOSE_FILE": ":".join(files)})


def test_a_document_that_is_taken_away_is_none() -> None:
    with pytest.raises(Refused, match="a compose file is a mapping"):
        load(Recipe({"compose.yml": "--- !reset\nservices: {}"}), {})


def test_a_recipe_may_propose_a_name() -> None:
    assert proposed_name(Recipe({"compose.yml": "name: ${N:-blog}\n" + BASE}), {}) == "blog"
    assert proposed_name(Recipe({"compose.yml": BASE}), {}) == ""


@pytest.mark.parametrize("name", ["", "Blog", "a b", "-a", "x" * 41, "../a"])
def test_an_app_has_a_name(name: str) -> None:
    with pytest.raises(Refused, match="is no name of an app"):
        compile_draft(Recipe({"compose.yml": BASE}), {}, app=name)


def test_the_env_is_text() -> None:
    with pytest.raises(Refused, match="'A' in the app's env is no text"):
        compile_draft(Recipe({"compose.yml": BASE}), {"A": "\0"}, app="demo")


def test_a_check_tells_of_every_key_in_order() -> None:
    text = "version: '3'\nservices:\n  web:\n    image: demo\n    build: .\n    environment: [A=$B]\n"
    text += "    ipc: host\n"
    found = [
        (each.line, each.key, each.verdict) for each in check(Recipe({"compose.yml": text}), {}, app="demo")
    ]
    assert found == [
        (1, "version", "ignored"),
        (2, "services", "supported"),
        (4, "services.web.image", "supported"),
        (5, "services.web.build", "refused"),
        (6, "services.web.environment", "supported"),
        (6, "services.web.environment[0]", "warned"),
        (7, "services.web.ipc", "refused"),
    ]


def services(text: str, count: int = 1) -> str:
    return "services:\n" + "".join(f"  w{n}: {text.replace('%', str(n + 1))}\n" for n in range(count))


PORTS = ",".join(f"'{n + 1}',{n + 2000},{{target: {n + 1}}}" for n in range(340))
NETWORKS = [f"n{n}" for n in range(60)]
UNSET = ",".join(f"A{n}=$B{n}" for n in range(900))
HARMFUL = {
    "lists of everything": services(f"{{image: a, ports: [{PORTS}]}}", 2),
    "a long chain of extends": services("{extends: w%, image: a}", 600),
    "everybody extends a large one": "services:\n"
    f"  base: {{image: a, ports: [{PORTS}], volumes: [{','.join(f'/a{n}' for n in range(900))}]}}\n"
    + "".join(f"  w{n}: {{extends: base, ports: [80], volumes: [/b]}}\n" for n in range(150)),
    "a long chain of dependencies": services("{image: a, depends_on: [w%]}", 600) + "  w600: {image: a}",
    "everybody on every network": services(f"{{image: a, networks: [{','.join(NETWORKS)}]}}", 30)
    + "networks:\n"
    + "".join(f"  {name}: {{external: true}}\n" for name in NETWORKS),
    "variables that are not set": services(f"{{image: a, environment: [{UNSET}], develop: {{}}}}", 3),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_document_that_means_harm_ends_soon(name: str) -> None:
    begin = time.process_time()
    with contextlib.suppress(Refused):
        compile_draft(Recipe({"compose.yml": HARMFUL[name]}), {}, app="demo")
    assert time.process_time() - begin < 2
