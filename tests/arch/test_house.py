"""The house: which room may import which, where each dependency is confined, how large rooms get.

A rule that is broken fails with its reason.  To change a rule, change its table here and say why
in CONTRIBUTING.md under "Decisions".
"""

from __future__ import annotations

import ast
import sys

import pytest

from support.source import Module, functions, imports, is_within, modules

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

# --- rooms -------------------------------------------------------------------------------------

CONTRACT = {"agent.wire", "agent.base"}
"""What both halves of the house stand on."""

AGENT = CONTRACT | {"agent.clock", "agent.config"}
"""What every leaf of the agent may know."""

HUB = CONTRACT | {"hub.config"}

LEAF = "leaves of the agent do not know each other: app.py joins them, so each can be read and tested alone"
STACK = "the hub is a stack: pages on top, then fleet, then access, then the store; nothing looks up"

# room: (what it may import of the house besides itself, the reason)
ROOMS: dict[str, tuple[set[str], str]] = {
    "agent.wire": (set(), "the contract stands on nothing: another language must be able to follow it"),
    "agent.base": ({"agent.wire"}, "the base serves both halves, so it knows neither"),
    "agent.clock": (CONTRACT, LEAF),
    "agent.config": (CONTRACT | {"agent.sensors.driver"}, LEAF),  # a sensor's table is checked by its kind
    "agent.identity": (AGENT, LEAF),
    "agent.https": (CONTRACT, LEAF),
    "agent.join": (AGENT | {"agent.identity", "agent.https"}, LEAF),
    "agent.renewal": (AGENT | {"agent.identity", "agent.https"}, LEAF),
    "agent.traffic": (AGENT, LEAF),
    "agent.shelf": (AGENT, LEAF),
    "agent.outbox": (AGENT | {"agent.shelf"}, LEAF),
    "agent.deliveries": (AGENT | {"agent.outbox"}, LEAF),
    # Readings flow from the outbox through the window to the link, of which these are the halves.
    "agent.window": (AGENT | {"agent.outbox"}, LEAF),
    "agent.reports": (AGENT | {"agent.outbox", "agent.window"}, LEAF),
    "agent.inbox": (AGENT | {"agent.identity", "agent.reports"}, LEAF),
    "agent.link": (
        AGENT
        | {"agent.identity", "agent.outbox", "agent.window", "agent.reports", "agent.inbox", "agent.status"}
        | {"agent.traffic"},
        LEAF,
    ),
    "agent.about": (AGENT, LEAF),
    "agent.status": (AGENT, LEAF),
    "agent.alarm": (CONTRACT, LEAF),
    "agent.history": (AGENT | {"agent.checks"}, LEAF),
    "agent.vitals": (CONTRACT | {"agent.sensors.sysfs"}, LEAF),
    "agent.findings": (
        CONTRACT | {"agent.status", "agent.vitals"},
        "checks are pure: facts in, findings out",
    ),
    "agent.appchecks": (CONTRACT | {"agent.findings"}, "checks are pure: facts in, findings out"),
    "agent.usagechecks": (CONTRACT | {"agent.findings"}, "checks are pure: facts in, findings out"),
    "agent.checks": (
        CONTRACT | {"agent.appchecks", "agent.findings", "agent.usagechecks", "agent.vitals"},
        "checks are pure: facts in, findings out",
    ),
    "agent.health": (
        AGENT
        | {"agent.alarm", "agent.checks", "agent.history", "agent.identity", "agent.sensors", "agent.status"}
        | {"agent.vitals"},
        "it watches the other parts, so it sees them; app.py alone joins them",
    ),
    "agent.portrait": (
        AGENT
        | {"agent.about", "agent.health", "agent.identity", "agent.outbox", "agent.sensors", "agent.status"},
        "it shows the other parts, so it sees them; app.py alone joins them",
    ),
    "agent.sensors": (AGENT, LEAF),
    "agent.cgroups": (CONTRACT, LEAF),
    "agent.parents": (CONTRACT | {"agent.cgroups"}, LEAF),
    "agent.runs": (CONTRACT | {"agent.cgroups"}, LEAF),
    # What the kernel counts of a container is read by those who report it, and by those who bill it.
    "agent.containers": (AGENT | {"agent.cgroups", "agent.parents", "agent.runs"}, LEAF),
    "agent.usage": (AGENT | {"agent.cgroups", "agent.parents", "agent.runs"}, LEAF),
    # What of it speaks to the hub: with the board's certificate, and by its document.
    "agent.usage.sync": (AGENT | {"agent.identity", "agent.usage"}, LEAF),
    "agent.usage.usage": (AGENT | {"agent.identity", "agent.parents", "agent.runs", "agent.usage"}, LEAF),
    "agent.usage.agreement": (AGENT | {"agent.identity", "agent.usage"}, LEAF),
    "agent.usage.bulk": (AGENT | {"agent.identity", "agent.https"}, LEAF),
    "agent.doctor": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.commands": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.logbook": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.workbench": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.app": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.service": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.commandline": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "agent.__main__": ({"agent"}, "the agent runs on a board: it never imports the hub"),
    "hub.config": (CONTRACT, STACK),
    "hub.store": (CONTRACT, STACK),
    "hub.access": (HUB | {"hub.store"}, STACK),
    "hub.fleet": (HUB | {"hub.store", "hub.access"}, STACK),
    "hub.apps": (HUB | {"hub.store", "hub.access"}, STACK),
    "hub.ledger": (HUB | {"hub.store", "hub.access"}, STACK),
    "hub.web": (
        HUB | {"hub.store", "hub.access", "hub.fleet", "hub.apps", "hub.ledger", "hub.qr"},
        STACK,
    ),
    "hub.qr": (set(), "it draws text, whatever that says"),
    "hub.cli": (
        CONTRACT | {"hub.qr"},
        "the command line speaks only the HTTP API, and so proves that the API is enough",
    ),
    "hub.founding": (HUB | {"hub.store", "hub.access", "hub.fleet"}, STACK),
    "hub.rotation": (HUB | {"hub.store", "hub.access", "hub.fleet"}, STACK),
    "hub.backup": (HUB | {"hub.store", "hub.access", "hub.fleet"}, STACK),
    "hub.app": (HUB | {"hub"}, "of the agent the hub sees only the contract: wire and base"),
    "hub.__main__": (HUB | {"hub"}, "of the agent the hub sees only the contract: wire and base"),
    "hub.demo": (HUB | {"hub"}, "of the agent the hub sees only the contract: wire and base"),
}

# --- dependencies ------------------------------------------------------------------------------

MQTT = {"agent.base.mqtt", "agent.base.packets", "agent.base.reasons"}

# package: (the only places that import it, the reason)
CONFINED: dict[str, tuple[set[str], str]] = {
    "aiomqtt": (MQTT, "the broker is an edge: one real module and one fake"),
    "paho": (MQTT, "the broker is an edge: one real module and one fake"),
    "sqlite3": ({"agent.base.sqlite"}, "one writer thread, one way to commit, one way to fail"),
    "nacl": (
        {"agent.wire.note", "agent.wire.seal", "agent.identity", "hub.access"},
        "whoever touches a key is in a place that a reviewer reads twice",
    ),
    "podman": ({"agent.containers.podman"}, "Podman is an edge, and its import costs 10 MB"),
    "gpiozero": ({"agent.sensors.gpio"}, "its import costs 4 MB, so only a board with GPIO sensors pays"),
    "gpiod": ({"agent.sensors.gpio"}, "its import costs memory, so only a board with GPIO sensors pays"),
    "psutil": (
        {"agent.sensors", "agent.about", "agent.doctor"},
        "what the machine says of itself comes in by a sensor",
    ),
    "tomli_w": ({"agent", "hub"}, "files that people read and write are TOML"),
    "sqlalchemy": ({"hub.store"}, "all SQL is in the store: a function per question"),
    "alembic": ({"hub.store"}, "all SQL is in the store: a function per question"),
    "aiohttp": ({"hub.web", "hub.cli", "hub.app", "hub.__main__", "hub.demo"}, "HTTP is the pages' business"),
    "aiohttp_jinja2": ({"hub.web"}, "HTML is the pages' business"),
    "jinja2": ({"hub.web"}, "HTML is the pages' business"),
    "prometheus_client": ({"hub.web"}, "metrics are one of the hub's pages"),
    "jsonschema": (
        {"hub.web", "hub.apps.schema"},
        "the API describes itself in JSON Schema, compose is checked by it",
    ),
    "check_jsonschema": ({"hub.apps.schema"}, "it brings the schema of compose, as a file"),
    "ruamel": ({"hub.apps"}, "the hub reads compose; boards need no YAML"),
    "cryptography": ({"hub.fleet.authority", "hub.fleet.certificates"}, "certificates are made in one place"),
    "click": ({"hub.cli"}, "the daemons start without it"),
    "rich": ({"hub.cli"}, "the daemons start without it"),
    "segno": ({"hub.qr"}, "one place decides what a code looks like"),
    "hatchling": ({"hub.web.hatch_build"}, "it exists only while a wheel is built"),
}

# The contract is pure: bytes in, values out.
IMPURE = {
    "asyncio", "ctypes", "http", "logging", "multiprocessing", "os", "select", "shutil", "signal",
    "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip

SOURCE = modules("agent", "hub")
each_module = pytest.mark.parametrize("module", SOURCE, ids=lambda module: module.name)


def room_of(name: str) -> str | None:
    """The room that a module is in: the longest name in ROOMS that it stands below."""
    return max((room for room in ROOMS if is_within(name, room)), key=len, default=None)


@each_module
def test_a_room_imports_only_what_it_may(module: Module) -> None:
    if module.name in ("agent", "hub"):
        return  # one docstring each
    room = room_of(module.name)
    assert room, f"{module.name} is in no room: say in ROOMS what it may import, and why"
    allowed, reason = ROOMS[room]
    for name, node in imports(module):
        if not is_within(name, "agent") and not is_within(name, "hub"):
            continue
        if name in ("agent", "agent.__version__") and is_within(module.name, "agent"):
            continue  # the package itself says its version
        if is_within(name, room) or any(is_within(name, other) for other in allowed):
            continue
        pytest.fail(f"{module.at(node)} imports {name}: {reason}")


@each_module
def test_a_dependency_is_imported_only_where_it_belongs(module: Module) -> None:
    for name, node in imports(module):
        package = name.partition(".")[0]
        if package in ("agent", "hub") or (package in sys.stdlib_module_names and package not in CONFINED):
            continue
        assert package in CONFINED, (
            f"{module.at(node)} imports {package}: say in CONFINED where it may, and why"
        )
        places, reason = CONFINED[package]
        if not any(is_within(module.name, place) for place in places):
            pytest.fail(f"{module.at(node)} imports {package}, which belongs to {sorted(places)}: {reason}")


@pytest.mark.parametrize("module", modules("agent/wire"), ids=lambda module: module.name)
def test_the_wire_does_no_input_or_output(module: Module) -> None:
    for name, node in imports(module):
        package = name.partition(".")[0]
        assert package not in IMPURE, (
            f"{module.at(node)} imports {package}: the contract is pure, so that vectors in files can test it"
        )
    for each in module.nodes:
        is_open = isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "open"
        assert not is_open, f"{module.at(each)} opens a file: the contract is pure"
        waits = isinstance(each, ast.AsyncFunctionDef | ast.Await)
        assert not waits, f"{module.at(each)} waits: the contract is pure"


@each_module
def test_a_room_stays_small(module: Module) -> None:
    assert module.lines <= MAX_MODULE_LINES, (
        f"{module.name} has {module.lines} lines, over {MAX_MODULE_LINES}: two nouns live here; split it"
    )
    if is_within(module.name, "hub.store.migrations.versions"):
        return  # a migration is one list of changes, and is never edited again
    for function in functions(module):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= MAX_FUNCTION_LINES, (
            f"{module.at(function)} {function.name} has {lines} lines, over {MAX_FUNCTION_LINES}:"
            " nobody holds that in the head at once"
        )


@each_module
def test_a_module_says_what_it_is(module: Module) -> None:
    assert ast.get_docstring(module.tree), (
        f"{module.name} has no docstring: say what it owns, who calls it and what it never does"
    )
