"""The board's policy: what it refuses, when nothing may be touched, and files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.containers import policy
from agent.containers.policy import Policy
from agent.wire.errors import ConfigError
from agent.wire.order import App, Device, Limits, Mount, Service, Volume
from support.appmodel import image

REFUSED: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"privileged": True}, "to be privileged", {"privileged": True}),
    ({"network_mode": "host"}, "the board's own network", {"host_network": True}),
    ({"pid": "host"}, "the board's processes", {"host_pid": True}),
    ({"devices": (Device("/dev/ttyUSB0", "/dev/tty"),)}, "/dev/ttyUSB0", {"devices": ("/dev/ttyUSB*",)}),
    ({"mounts": (Mount("bind", "/d", "/srv/data/x"),)}, "/srv/data/x", {"binds": ("/srv/data",)}),
    ({"cap_add": ("cap_net_admin",)}, "NET_ADMIN", {"capabilities": ("NET_ADMIN",)}),
    ({"cap_add": ("ALL",)}, "ALL", {"capabilities": ("ALL",)}),
    ({"security_opt": ("seccomp:unconfined",)}, "seccomp", {"security_opt": ("seccomp=unconfined",)}),
    (
        {"security_opt": ("no-new-privileges:false",)},
        "no-new",
        {"security_opt": ("no-new-privileges=false",)},
    ),
]


def ask(rules: dict[str, Any], **service: Any) -> str:
    error = policy.refusal(Policy(**rules), App("demo", 1, services=(Service("web", image(), **service),)))
    return "" if error is None else str(error)


@pytest.mark.parametrize(("service", "words", "allowing"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_could_take_the_board_needs_its_owners_word(
    service: dict[str, Any], words: str, allowing: dict[str, Any]
) -> None:
    assert words in ask({}, **service)
    assert ask(allowing, **service) == ""


@pytest.mark.parametrize(
    "service",
    [
        {},
        {"cap_add": ("NET_RAW", "CAP_SYS_CHROOT")},
        {"security_opt": ("no-new-privileges", "no-new-privileges:true")},
        {"mounts": (Mount("volume", "/d", "demo_d"), Mount("tmpfs", "/t"))},
        {"network_mode": "none"},
    ],
)
def test_usual_services_need_nobodys(service: dict[str, Any]) -> None:
    assert ask({}, **service) == ""


@pytest.mark.parametrize("source", ["/srv/database", "/srv/data/../../etc", "/", "/srv"])
def test_paths_that_only_look_allowed_are_not(source: str) -> None:
    assert ask({"binds": ("/srv/data",)}, mounts=(Mount("bind", "/d", source),))


def test_a_volume_that_is_a_path_in_disguise_is_one() -> None:
    volume = Volume("demo_d", driver_options={"type": "none", "o": "bind", "device": "/etc"})
    app = App("demo", 1, volumes=(volume,))
    assert "/etc" in str(policy.refusal(Policy(), app))
    assert policy.refusal(Policy(binds=("/etc",)), app) is None


def test_registries_are_named_with_their_port() -> None:
    assert ask({"registries": ("docker.io",)}) == (
        "this board's policy does not allow web to have an image from registry.example"
    )
    assert ask({"registries": ("docker.io", "registry.example")}) == ""


def test_a_ceiling_needs_limits() -> None:
    assert "without a memory limit" in ask({"memory_bytes": 10})
    assert ask({"memory_bytes": 10}, limits=Limits(memory_bytes=5)) == ""


@pytest.mark.parametrize(
    ("minute", "locked", "rules", "windows", "words"),
    [
        (0, False, {}, (), ""),
        (0, True, {}, (), "is removed"),
        (9 * 60, False, {"do_not_touch": ("08:00-18:00",)}, (), "may not be touched"),
        (18 * 60, False, {"do_not_touch": ("08:00-18:00",)}, (), ""),
        (1, False, {"do_not_touch": ("23:00-01:00",)}, (), "may not be touched"),
        (12 * 60, False, {}, ("02:00-04:00",), "update window"),
        (3 * 60, False, {}, ("02:00-04:00", "12:00-13:00"), ""),
        (None, False, {}, ("02:00-04:00",), "a clock that is right"),
        (None, False, {}, (), ""),
    ],
)
def test_when_nothing_may_be_changed(
    minute: int | None, locked: bool, rules: dict[str, Any], windows: tuple[str, ...], words: str
) -> None:
    held = policy.hold(Policy(**rules), App("demo", 1, windows=windows), minute, locked=locked)
    assert words in held
    assert bool(held) == bool(words)


def test_a_file_is_read_strictly_and_its_absence_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert policy.load(path) == Policy()
    path.write_text('plain_http = ["127.0.0.1:5000"]\nlock_file = "/run/x"')
    assert policy.load(path).plain_http == ("127.0.0.1:5000",)
    for text, words in (
        ("privilege = true", "did you mean 'privileged'"),
        ("x =", "not TOML"),
        ('do_not_touch = ["8-18"]', "HH:MM"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            policy.load(path)
