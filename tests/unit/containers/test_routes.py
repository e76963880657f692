"""Slots, the configuration's text, and the commands that bring a running haproxy there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.routes import (
    NOWHERE,
    SPARE,
    Backend,
    Route,
    Server,
    Slot,
    Slots,
    assign,
    changes,
    check,
    parse,
    render,
)
from agent.wire.errors import Refused

WEB = Route("", 8080, "demo", "web", 80)
ONE, TWO, THREE = (Backend(f"10.89.0.{number}", 80) for number in (2, 3, 4))


def names(slots: Slots) -> dict[int, str]:
    return {index: slot.name for index, slot in enumerate(slots) if slot is not None}


# --- slots -------------------------------------------------------------------------------------


def test_there_are_more_slots_than_containers() -> None:
    assert len(assign((), {"one": ONE})) == SPARE
    assert names(assign((), {})) == {}


def test_who_has_a_slot_keeps_it_and_a_newcomer_gets_one_that_was_free() -> None:
    slots = assign((), {"one": ONE, "two": TWO})
    assert names(slots) == {0: "one", 1: "two"}
    slots = assign(slots, {"three": THREE, "two": TWO})
    assert names(slots) == {1: "two", 2: "three"}  # the slot of "one" may still have connections
    assert names(assign(slots, {"one": ONE, "two": TWO, "three": THREE})) == {0: "one", 1: "two", 2: "three"}


def test_to_drain_is_no_move_and_another_address_is() -> None:
    slots = assign((), {"one": ONE})
    assert assign(slots, {"one": replace(ONE, drain=True)})[0] == Slot("one", replace(ONE, drain=True))
    assert names(assign(slots, {"one": TWO})) == {1: "one"}


def test_slots_grow_and_never_shrink() -> None:
    crowd = {f"web.{number}": Backend("10.89.0.2", 1000 + number) for number in range(SPARE)}
    full = assign((), crowd)
    assert len(full) == SPARE
    fresh = {name: Backend("10.89.0.3", backend.port) for name, backend in crowd.items()}
    grown = assign(full, fresh)
    assert sorted(names(grown)) == list(range(SPARE, 2 * SPARE))
    assert len(assign(grown, {"one": ONE})) == 2 * SPARE


# --- text --------------------------------------------------------------------------------------


def lines_of(route: Route, slots: Slots, *, ipv6: bool = True) -> list[str]:
    return [line.strip() for line in render({route: slots}, ipv6=ipv6).splitlines()]


def test_a_section_as_haproxy_reads_it() -> None:
    slots = assign((), {"demo_web.0.1a2b3c4d": ONE, "demo_web.1.1a2b3c4d": replace(TWO, drain=True)})
    lines = lines_of(WEB, slots)
    at = lines.index("listen any:8080")
    assert lines[at - 1 : at + 5] == [
        "# route demo web 80 on * 8080",
        "listen any:8080",
        "bind :::8080 v4v6",
        "server s0 10.89.0.2:80 # demo_web.0.1a2b3c4d",
        "server s1 10.89.0.3:80 disabled # demo_web.1.1a2b3c4d drains",
        f"server s2 {NOWHERE} disabled",
    ]


@pytest.mark.parametrize(
    ("host_ip", "ipv6", "bind"),
    [
        ("", True, ":::8080 v4v6"),
        ("", False, "0.0.0.0:8080"),
        ("127.0.0.1", True, "127.0.0.1:8080"),
        ("::1", True, "[::1]:8080 v6only"),
    ],
)
def test_where_it_listens(host_ip: str, ipv6: bool, bind: str) -> None:
    assert f"bind {bind}" in lines_of(replace(WEB, host_ip=host_ip), (), ipv6=ipv6)


def test_workers_become_another_user_only_where_one_is_named() -> None:
    assert "user" not in render({})
    assert "    user haproxy\n    group haproxy\n" in render({}, user="haproxy")


WORDS = st.text("aZ0_.-", max_size=9).map("x".__add__)
PORTS = st.integers(1, 65535)
ADDRESSES = (st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)).map(
    str
)
BACKENDS = st.builds(Backend, ADDRESSES, PORTS, st.booleans())
ROUTES = st.builds(Route, st.just("") | ADDRESSES, PORTS, WORDS, WORDS, PORTS)


@given(st.dictionaries(ROUTES, st.dictionaries(WORDS, BACKENDS, max_size=4), max_size=3))
def test_what_is_written_is_read_back(wanted: dict[Route, dict[str, Backend]]) -> None:
    check(wanted)
    table = {route: assign((), backends) for route, backends in wanted.items()}
    assert parse(render(table, user="haproxy")) == table


def test_what_we_did_not_write_has_no_routes() -> None:
    assert parse("") == {}
    assert parse("global\n    maxconn 5\nlisten web\n    server s0 10.0.0.1:80 # x\n") == {}


HOSTILE = "web\n    bind :22\n"


@pytest.mark.parametrize(
    ("route", "backends"),
    [
        (replace(WEB, app=HOSTILE), {}),
        (replace(WEB, service=HOSTILE), {}),
        (replace(WEB, service="two words"), {}),
        (replace(WEB, service=""), {}),
        (replace(WEB, host_ip="localhost"), {}),
        (replace(WEB, host_ip="*"), {}),
        (replace(WEB, host_ip="fe80::1%eth0"), {}),
        (replace(WEB, host_ip="fe80::1%\n    bind :22"), {}),
        (replace(WEB, host_ip="0:0::1"), {}),
        (replace(WEB, port=0), {}),
        (replace(WEB, port=65536), {}),
        (replace(WEB, target=-1), {}),
        (WEB, {HOSTILE: ONE}),
        (WEB, {"one # drains": ONE}),
        (WEB, {"one\n": ONE}),
        (WEB, {"one": Backend("10.0.0.1 weight 5", 80)}),
        (WEB, {"one": Backend("", 80)}),
        (WEB, {"one": Backend("10.0.0.1", 0)}),
    ],
)
def test_nothing_but_words_and_addresses_gets_in(route: Route, backends: dict[str, Backend]) -> None:
    with pytest.raises(Refused):
        check({route: backends})


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
    ],
)
def test_which_addresses_overlap(one: str, other: str, overlap: bool) -> None:
    here, there = replace(WEB, host_ip=one), replace(WEB, host_ip=other)
    assert here.overlaps(there) == there.overlaps(here) == overlap
    assert not here.overlaps(replace(there, port=8081))


# --- commands ----------------------------------------------------------------------------------

STOP = ["set server x state maint", "shutdown sessions server x"]
MOVE = "set server x addr 10.89.0.2 port 80"
READY = "set server x state ready"
DRAINS = Slot("one", replace(ONE, drain=True))


@pytest.mark.parametrize(
    ("now", "slot", "commands"),
    [
        (Server(NOWHERE, "off", 0), None, []),
        (Server(ONE.endpoint, "off", 0), None, []),
        (Server(ONE.endpoint, "up", 3), None, STOP),
        (Server(ONE.endpoint, "drain", 3), None, STOP),
        (Server(NOWHERE, "off", 0), Slot("one", ONE), [*STOP, MOVE, READY]),
        (Server(TWO.endpoint, "up", 0), Slot("one", ONE), [*STOP, MOVE, READY]),
        (Server(ONE.endpoint, "up", 0), Slot("one", ONE), []),
        (Server(ONE.endpoint, "off", 0), Slot("one", ONE), [READY]),
        (Server(ONE.endpoint, "drain", 0), Slot("one", ONE), [READY]),
        (Server(ONE.endpoint, "up", 3), DRAINS, ["set server x state drain"]),
        (Server(ONE.endpoint, "drain", 3), DRAINS, []),
        (Server(ONE.endpoint, "off", 0), DRAINS, []),
        (Server(TWO.endpoint, "up", 0), DRAINS, [*STOP, MOVE]),
    ],
)
def test_the_commands_of_a_switch(now: Server, slot: Slot | None, commands: list[str]) -> None:
    assert changes("x", now, slot) == commands
