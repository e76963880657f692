"""Every field of a service in the specification that Podman gets, and what the digest is made of."""

from __future__ import annotations

import doctest
from dataclasses import fields, replace
from typing import Any

import pytest

from agent.containers import names, policy, spec
from agent.containers.names import container_name, digest, secret_name
from agent.containers.spec import body
from agent.wire.errors import Refused
from agent.wire.order import (
    App,
    Attachment,
    Config,
    Dependency,
    Device,
    Given,
    Health,
    Limits,
    Mount,
    Port,
    Restart,
    Secret,
    Service,
    Ulimit,
    Update,
)
from support.appmodel import image

PLAIN = Service("web", image())
START = Update(order="start-first")


def app(service: Service, *others: Service, **more: Any) -> App:
    return App("demo", 3, services=(service, *others), **more)


def made(service: Service, **more: Any) -> dict[str, Any]:
    options = {key: more.pop(key) for key in ("slot", "proxy", "bare") if key in more}
    return body(app(service, **more), service, options.pop("slot", 0), **{"proxy": True, **options})


FIELDS: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "image", image()),
    ({}, "restart_policy", "no"),
    ({"entrypoint": ("a", "b")}, "entrypoint", ["a", "b"]),
    ({"entrypoint": ()}, "entrypoint", [""]),
    ({"command": ("c",)}, "command", ["c"]),
    ({"environment": {"A": "1"}}, "env", {"A": "1"}),
    ({"annotations": {"x": "y"}}, "annotations", {"x": "y"}),
    ({"user": "1000:1000"}, "user", "1000:1000"),
    ({"working_dir": "/srv"}, "work_dir", "/srv"),
    ({"hostname": "box"}, "hostname", "box"),
    ({"group_add": ("dialout",)}, "groups", ["dialout"]),
    ({"stop_signal": "SIGQUIT"}, "stop_signal", 3),
    ({"stop_grace_ms": 1_500}, "stop_timeout", 2),
    ({"init": True}, "init", True),
    ({"tty": True}, "terminal", True),
    ({"open_stdin": True}, "stdin", True),
    ({"read_only": True}, "read_only_filesystem", True),
    ({"sysctls": {"net.core.somaxconn": "1"}}, "sysctl", {"net.core.somaxconn": "1"}),
    ({"oom_score_adj": 0}, "oom_score_adj", 0),
    ({"extra_hosts": ("a:1.2.3.4",)}, "hostadd", ["a:1.2.3.4"]),
    ({"dns": ("1.1.1.1",)}, "dns_server", ["1.1.1.1"]),
    ({"dns_search": ("lan",)}, "dns_search", ["lan"]),
    ({"dns_options": ("ndots:1",)}, "dns_option", ["ndots:1"]),
    ({"network_mode": "none"}, "netns", {"nsmode": "none"}),
    ({"network_mode": "host"}, "netns", {"nsmode": "host"}),
    ({"pid": "host"}, "pidns", {"nsmode": "host"}),
    ({"devices": (Device("/dev/a", "/dev/b", "rw"),)}, "devices", [{"path": "/dev/a:/dev/b:rw"}]),
    ({"ulimits": (Ulimit("nofile", 1, -1),)}, "r_limits", [{"type": "nofile", "soft": 1, "hard": 2**64 - 1}]),
    ({"limits": Limits(shm_bytes=5)}, "shm_size", 5),
    ({"limits": Limits(memory_bytes=5, reserve_memory_bytes=4, cpu_milli=1500, pids=9)}, "resource_limits",
     {"memory": {"limit": 5, "reservation": 4}, "cpu": {"quota": 150_000, "period": 100_000},
      "pids": {"limit": 9}}),
    ({"health": Health(("CMD", "x"), timeout_ms=5, start_period_ms=7, retries=2)}, "healthconfig",
     {"Test": ["CMD", "x"], "Interval": 0, "Timeout": 5_000_000, "StartPeriod": 7_000_000, "Retries": 2}),
    ({"no_health": True}, "healthconfig", {"Test": ["NONE"]}),
    ({"log_max_bytes": 9000}, "log_configuration", {"driver": "k8s-file", "size": 9000}),
    ({"log_driver": "none"}, "log_configuration", {"driver": "none"}),
    ({"ports": (Port(80, 8080, host_ip="127.0.0.1"),)}, "portmappings",
     [{"container_port": 80, "host_port": 8080, "host_ip": "127.0.0.1", "protocol": "tcp"}]),
    ({"mounts": (Mount("volume", "/d", "demo_d", read_only=True, no_copy=True),)}, "volumes",
     [{"Name": "demo_d", "Dest": "/d", "Options": ["ro", "nocopy"]}]),
    ({"mounts": (Mount("bind", "/d", "/srv", options=("rshared",)),)}, "mounts",
     [{"type": "bind", "source": "/srv", "destination": "/d", "options": ["rbind", "rw", "rshared"]}]),
    ({"mounts": (Mount("tmpfs", "/t", size_bytes=64, mode=0o1777),)}, "mounts",
     [{"type": "tmpfs", "source": "tmpfs", "destination": "/t",
       "options": ["rw", "nosuid", "nodev", "size=64", "mode=1777"]}]),
    ({}, "no_new_privileges", True),
    ({}, "cap_drop", list(spec.DROPPED)),
    ({"cap_add": ("CAP_NET_RAW",)}, "cap_add", ["NET_RAW"]),
    ({"cap_add": ("NET_RAW",)}, "cap_drop", [each for each in spec.DROPPED if each != "NET_RAW"]),
    ({"cap_drop": ("chown",)}, "cap_drop", ["CHOWN", *spec.DROPPED]),
    ({"privileged": True}, "privileged", True),
    ({"security_opt": ("no-new-privileges:false",)}, "no_new_privileges", False),
    ({"security_opt": ("seccomp=unconfined",)}, "seccomp_profile_path", "unconfined"),
    ({"security_opt": ("apparmor:mine",)}, "apparmor_profile", "mine"),
    ({"security_opt": ("label=disable",)}, "selinux_opts", ["disable"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "key", "expected"), FIELDS, ids=lambda value: str(value)[:40])
def test_each_field_has_its_place(given: dict[str, Any], key: str, expected: Any) -> None:
    assert made(replace(PLAIN, **given))[key] == expected


def test_what_is_not_set_is_left_to_the_image() -> None:
    assert made(PLAIN).keys() == {
        "name", "image", "labels", "restart_policy", "stop_timeout", "log_configuration", "netns", "cap_drop",
        "no_new_privileges", "healthLogDestination", "healthMaxLogCount", "healthMaxLogSize",
    }  # fmt: skip


def test_every_field_is_looked_at() -> None:
    """A field that is added to the manifest must get a place here, or a reason."""
    shown = {key for given, _, _ in FIELDS for key in given}
    elsewhere = {
        "name", "image", "labels", "networks", "secrets", "configs",  # below
        "written", "replicas", "restarted", "pull", "depends_on", "restart", "update",  # not of the container
            "image_bytes",
    }  # fmt: skip
    assert {field.name for field in fields(Service)} == shown | elsewhere


def test_networks_have_aliases_by_which_others_find_a_service() -> None:
    service = replace(PLAIN, networks=(Attachment("demo_net", ("extra",)),))
    assert made(service)["Networks"] == {"demo_net": {"aliases": ["web", "demo_web", "extra"]}}
    assert made(service, bare=True)["Networks"] == {"demo_net": {}}
    assert made(service, bare=True)["labels"]["lichen.bare"] == "1"


def test_a_secret_has_a_name_that_podman_takes_and_no_other_has() -> None:
    names = [
        secret_name(*each)
        for each in (
            ("a", "b_c", "v1"),
            ("a_b", "c", "v1"),
            ("a", "b.c", "v1"),
            ("a", "b", "c.v1"),
            ("a" * 40, "b" * 128, "c" * 64),
            ("a" * 40, "b" * 127, "c" * 64),
        )
    ]
    assert names[0] == "a.b_c.v1"
    assert max(map(len, names)) <= 64
    assert len(set(names)) == len(names) - 1  # a version has no dot


def test_labels_tell_what_a_container_is() -> None:
    service = replace(
        PLAIN,
        labels={"a": "b", "lichen.app": "x", "lichen.proxied": ":22>8080"},
        restarted=2,
        ports=(Port(53, 53, "udp"), Port(80, 0)),
    )
    labels = made(service, slot=1)["labels"]
    assert labels.pop("lichen.spec") == digest(app(service), service, proxy=True)
    assert labels == {
        "a": "b",
        "lichen.app": "demo",
        "lichen.service": "web",
        "lichen.slot": "1",
        "lichen.revision": "3",
        "lichen.restarted": "2",
        "lichen.bare": "",
        "lichen.proxied": "",
        "lichen.direct": ":53/udp",
        "lichen.parent": "",
        "lichen.net": "own",
    }
    assert made(replace(service, network_mode="host"))["labels"]["lichen.net"] == ""


def test_a_cgroup_that_is_made_for_it_is_found_by_its_label() -> None:
    made = body(app(PLAIN), PLAIN, 0, proxy=True, parent="board_x")
    assert (made["cgroup_parent"], made["labels"]["lichen.parent"]) == ("/lichen/board_x", "board_x")
    assert "cgroup_parent" not in body(app(PLAIN), PLAIN, 0, proxy=True)


def test_ports_of_several_containers_are_the_proxys() -> None:
    service = replace(PLAIN, ports=(Port(80, 8080), Port(53, 53, "udp"), Port(9, 0)), update=START)
    assert [each["host_port"] for each in made(service)["portmappings"]] == [53, 0]
    assert made(service)["labels"]["lichen.proxied"] == ":8080>80"
    assert len(made(service, proxy=False)["portmappings"]) == 3
    assert "portmappings" not in made(replace(service, network_mode="host"))


def test_secrets_and_configs_are_files_of_their_version() -> None:
    service = replace(PLAIN, secrets=(Given("key", "/k", 1, 2, 0o400),), configs=(Given("conf", "/c"),))
    manifest = {"secrets": (Secret("key", "v2", "b"),), "configs": (Config("conf", "c1"),)}
    assert made(service, **manifest)["secrets"] == [
        {"Source": "demo.key.v2", "Target": "/k", "UID": 1, "GID": 2, "Mode": 0o400},
        {"Source": "demo.conf.c1", "Target": "/c", "UID": 0, "GID": 0, "Mode": 0o444},
    ]


def test_a_namespace_is_joined_by_the_name_of_the_container() -> None:
    vpn = Service("vpn", image())
    service = replace(PLAIN, network_mode="service:vpn", pid="service:vpn")
    whole = app(service, vpn)
    leader = container_name(whole, vpn, 0, proxy=True)
    wanted = {"nsmode": "container", "value": leader}
    assert (body(whole, service, 0, proxy=True)["netns"], body(whole, service, 0, proxy=True)["pidns"]) == (
        wanted,
        wanted,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop_signal": "SIGNONE"},
        {"security_opt": ("unknown=1",)},
        {"secrets": (Given("none", "/k"),)},
        {"network_mode": "service:none"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        made(replace(PLAIN, **wrong))


# --- the digest ----------------------------------------------------------------------------------


def of(service: Service, **more: Any) -> str:
    return digest(app(service, **more), service, proxy=True)


@pytest.mark.parametrize(
    "same",
    [
        {"replicas": 0},
        {"restarted": 5},
        {"written": "web:1"},
        {"image_bytes": 5},
        {"pull": "always"},
        {"depends_on": (Dependency("db"),)},
        {"restart": Restart("none")},
        {"update": START},
    ],
)
def test_what_can_change_while_it_runs_is_not_in_the_digest(same: dict[str, Any]) -> None:
    assert of(replace(PLAIN, **same)) == of(PLAIN)


@pytest.mark.parametrize(
    "given", [given for given, _, _ in FIELDS if given], ids=lambda given: str(given)[:40]
)
def test_everything_else_is(given: dict[str, Any]) -> None:
    assert of(replace(PLAIN, **given)) != of(PLAIN)


def test_versions_of_what_is_used_and_the_way_of_its_ports_are_in_the_digest() -> None:
    service = replace(PLAIN, secrets=(Given("key", "/k"),), ports=(Port(80, 8080),))
    one, two, other = Secret("key", "v1", "b"), Secret("key", "v2", "b"), Secret("other", "v9", "b")
    assert of(service, secrets=(one,)) != of(service, secrets=(two,))
    assert of(service, secrets=(one, other)) == of(service, secrets=(replace(one, box="sealed again"),))
    assert of(service) != of(replace(service, replicas=2))
    assert of(replace(service, replicas=2)) == of(replace(service, replicas=3))
    assert of(replace(PLAIN, environment={"A": "1", "B": "2"})) == of(
        replace(PLAIN, environment={"B": "2", "A": "1"})
    )


def test_followers_have_their_leader_in_the_digest_and_no_circles() -> None:
    leader, follower = Service("db", image()), replace(PLAIN, depends_on=(Dependency("db", restart=True),))
    before = digest(app(follower, leader), follower, proxy=True)
    after = digest(app(follower, replace(leader, restarted=1)), follower, proxy=True)
    assert before != after
    circle = replace(leader, depends_on=(Dependency("web", restart=True),))
    with pytest.raises(Refused, match="circle"):
        digest(app(follower, circle), follower, proxy=True)


def test_the_digest_is_not_made_of_defaults() -> None:
    """Else an agent that knows one more key would make every container anew."""
    assert names._told(PLAIN) == {"name": "web", "image": image()}


@pytest.mark.parametrize("module", [names, policy, spec], ids=lambda module: module.__name__)
def test_examples_are_right(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
