"""The board's policy: what it refuses, when nothing may be touched, and files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.containers import policy
from agent.containers.policy import Policy
from agent.wire.errors import ConfigError
from agent.wire.order import App, Device, Limits, Mount, Network, Service, Volume
from support.appmodel import image

REFUSED: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"privileged": True}, "to be privileged", {"privileged": True}),
    ({"network_mode": "host"}, "the board's own network", {"host_network": True}),
    ({"pid": "host"}, "the board's processes", {"host_pid": True}),
    ({"devices": (Device("/dev/ttyUSB0", "/dev/tty"),)}, "/dev/ttyUSB0", {"devices": ("/dev/ttyUSB*",)}),
    ({"mounts": (Mount("bind", "/d", "/srv/data/x"),)}, "/srv/data/x", {"binds": ("/srv/data",)}),
    ({"cap_add": ("cap_net_admin",)}, "NET_ADMIN", {"capabilities": ("NET_ADMIN",)}),
    ({"oom_score_adj": -500}, "oom_score_adj -500", {"oom_score_adj": -500}),
    ({"cap_add": ("ALL",)}, "ALL", {"capabilities": ("ALL",)}),
    ({"security_opt": ("seccomp:unconfined",)}, "seccomp", {"security_opt": ("seccomp=unconfined",)}),
    (
        {"security_opt": ("no-new-privileges:false",)},
        "no-new",
        {"security_opt": ("no-new-privileges=false",)},
    ),
]


REACHING: list[dict[str, Any]] = [
    {"mounts": (Mount("volume", "/v", "demo_v", options=("O", "upperdir=/etc", "workdir=/w")),)},
    {"mounts": (Mount("volume", "/v", "demo_v", options=("rw,upperdir=/etc",)),)},
    {"mounts": (Mount("tmpfs", "/t", options=("bind",)),)},
    {"mounts": (Mount("tmpfs", "/t", options=("size=1m,bind",)),)},
    {"mounts": (Mount("bind", "/t", "/srv/data", options=("U",)),)},
    {"annotations": {"run.oci.mount_context_type": "x"}},
    {"annotations": {"io.podman.annotations.privileged": "TRUE"}},
    {"annotations": {"org.systemd.property.CPUWeight": "10000"}},
    {"annotations": {"io.containers.trace-syscall": "of:/etc/shadow"}},
    {"labels": {"lichen.proxied": ":22>8080"}},
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
        {"mounts": (Mount("volume", "/d", "demo_d", options=("Z", "rshared"), no_copy=True),)},
        {"mounts": (Mount("tmpfs", "/t", options=("noexec", "size=64m", "uid=1000")),)},
        {"annotations": {"a": "1", "org.example.owner": "ada"}, "labels": {"traefik.enable": "true"}},
        {"oom_score_adj": 500},
        {"mounts": (Mount("volume", "/d", "demo_d"), Mount("tmpfs", "/t"))},
        {"network_mode": "none"},
    ],
)
def test_usual_services_need_nobodys(service: dict[str, Any]) -> None:
    assert ask({}, **service) == ""


@pytest.mark.parametrize("service", REACHING, ids=str)
def test_what_reaches_around_a_policy_nobody_allows(service: dict[str, Any]) -> None:
    everything = {"binds": ("/",), "privileged": True, "capabilities": ("ALL",)}
    assert ask(everything, **service).startswith("no board allows web to")


@pytest.mark.parametrize(
    "options",
    [
        {"type": "overlay", "device": "overlay", "o": "lowerdir=/etc,upperdir=/u,workdir=/w"},
        {"type": "ext4", "device": "/dev/mmcblk0p2"},
        {"type": "nfs", "device": ":/export", "o": "addr=192.168.1.2"},
        {"type": "none", "o": "bind", "device": "etc"},
        {"type": "none", "o": "bind,upperdir=/etc", "device": "/srv/data"},
        {"type": "none", "device": "/srv/data"},
        {"type": "tmpfs", "device": "/etc", "o": "bind"},
        {"type": "tmpfs", "device": "tmpfs", "o": "bind"},
        {"Type": "none", "Device": "/etc", "O": "bind"},
        {"device": "/srv/data", "o": "bind"},
    ],
    ids=str,
)
def test_a_volume_is_a_place_of_its_own_memory_or_a_path(options: dict[str, str]) -> None:
    app = App("demo", 1, volumes=(Volume("demo_d", driver_options=options),))
    error = policy.refusal(Policy(binds=("/",)), app)
    assert str(error).startswith("no board allows the volume demo_d: ")


def test_volumes_in_memory_need_nobodys_word() -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=100m,uid=1000,mode=0700,nosuid"}
    assert policy.refusal(Policy(), App("demo", 1, volumes=(Volume("d", driver_options=options),))) is None


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (
            App("demo", 1, volumes=(Volume("d", labels={"lichen.app": "x"}),)),
            "the volume d to have the label",
        ),
        (App("demo", 1, networks=(Network("n", labels={"lichen.shared": ""}),)), "the network n to have the"),
    ],
)
def test_labels_of_ours_are_nobody_elses(app: App, words: str) -> None:
    assert words in str(policy.refusal(Policy(), app))


@pytest.mark.parametrize(
    ("subnets", "subnet", "allowed"),
    [
        ((), "10.9.0.0/24", False),
        (("10.9.0.0/16",), "10.9.0.0/24", True),
        (("10.9.0.0/24",), "10.9.0.0/24", True),
        (("10.9.0.0/24",), "10.9.0.0/16", False),
        (("10.9.0.0/24", "fd00::/8"), "fd01::/64", True),
        (("0.0.0.0/0",), "fd01::/64", False),
        (("0.0.0.0/0",), "10.9.0.1/24", False),
    ],
)
def test_subnets_are_chosen_only_where_the_owner_says(
    subnets: tuple[str, ...], subnet: str, allowed: bool
) -> None:
    app = App("demo", 1, networks=(Network("demo_n", subnet=subnet),))
    assert (policy.refusal(Policy(subnets=subnets), app) is None) is allowed


@pytest.mark.parametrize("host", ["/dev/ttyUSB/../mem", "/dev/mem:/dev/ttyUSB0"])
def test_devices_are_what_they_are_written_as(host: str) -> None:
    assert ask({"devices": ("/dev/ttyUSB*", "/dev/*USB0")}, devices=(Device(host, "/dev/tty"),))


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    data, disk = tmp_path / "data", tmp_path / "disk"
    disk.mkdir()
    data.symlink_to(disk)
    (disk / "fine").mkdir()
    (disk / "out").symlink_to("/etc")
    rules = Policy(binds=(str(data),))
    service = Service("web", image(), mounts=(Mount("volume", "/v", "v"),))
    for name, words in (("fine", ""), ("out", "to see the board's path /etc, to which")):
        options = {"type": "none", "o": "bind", "device": str(data / name)}
        app = App("demo", 1, services=(service,), volumes=(Volume("v", driver_options=options),))
        assert policy.refusal(rules, app) is None
        error = policy.link_refusal(rules, app, service, os.path.realpath)
        assert words in str(error)
        assert (error is None) is (not words)


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
        ('subnets = ["10.9.0.1/24"]', "subnets"),
        ("#" * 65_536 + "\nprivileged = true", "over 64 KiB"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            policy.load(path)
