"""What is told before anything stops: whether an app can run on this board."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.containers.engine import Image, Info
from agent.containers.policy import Policy
from agent.containers.preflight import Facts, check_disk, examine
from agent.wire.errors import Refused
from agent.wire.order import App, Device, Limits, Mount, Network, Port, Service, Volume
from support.appmodel import image

MB = 1_000_000
INFO = Info("4.3.1", "arm64", "", "/var/lib/containers", 1000 * MB)
FINE = Facts(INFO, free_bytes=10_000 * MB, memory_free_bytes=500 * MB)


def app(**service: Any) -> App:
    return App("demo", 2, services=(Service("web", image(), **service),))


def stored(**changes: Any) -> dict[str, Image]:
    return {image(): Image("id", (image(),), 200 * MB, **changes)}


def taken(host_ip: str, port: int, protocol: str) -> Refused:
    return Refused(f"port {port} is taken by nginx", code="port-taken", hint="stop it")


OTHER = App(
    "other", 1, services=(Service("x", image("y"), limits=Limits(300 * 0, 300 * MB, 0, 0, 700 * MB)),)
)

CASES: list[tuple[str, App, Facts, Policy, str]] = [
    ("architecture", app(), replace(FINE, images=stored(architecture="amd64")), Policy(), "is for amd64"),
    ("image", app(pull="never"), FINE, Policy(), "never to be pulled"),
    (
        "device",
        app(devices=(Device("/dev/x", "/dev/x"),)),
        replace(FINE, exists=lambda path: False),
        Policy(),
        "/dev/x",
    ),
    (
        "path",
        app(mounts=(Mount("bind", "/d", "/srv"),)),
        replace(FINE, exists=lambda path: False),
        Policy(),
        "/srv",
    ),
    ("port-taken", app(replicas=2, ports=(Port(53, 53, "udp"),)), FINE, Policy(), "cannot share port 53/udp"),
    (
        "port-taken",
        app(ports=(Port(80, 80),)),
        replace(FINE, port_refusal=taken),
        Policy(),
        "web: port 80 is taken by nginx",
    ),
    (
        "port-taken",
        app(ports=(Port(80, 80),)),
        replace(FINE, labels=(("other", {"lichen.direct": ":80/tcp"}),)),
        Policy(),
        "by the app other",
    ),
    (
        "port-taken",
        app(ports=(Port(80, 80),)),
        replace(FINE, labels=(("other", {"lichen.proxied": "127.0.0.1:80>8"}),)),
        Policy(),
        "by the app other",
    ),
    (
        "memory-cgroup-off",
        app(limits=Limits(memory_bytes=1)),
        replace(FINE, info=replace(INFO, memory_limits=False)),
        Policy(),
        "does not keep any",
    ),
    (
        "volume",
        App("demo", 1, volumes=(Volume("theirs", external=True),)),
        FINE,
        Policy(),
        "no volume theirs",
    ),
    (
        "policy",
        App("demo", 1, volumes=(Volume("theirs", external=True),)),
        replace(FINE, volumes={"theirs": {}}),
        Policy(),
        "the volume theirs, which was not made for apps",
    ),
    (
        "policy",
        App("demo", 1, networks=(Network("podman", shared=True),)),
        replace(FINE, networks={"podman": {}}),
        Policy(external=("other",)),
        "the network podman, which was not made for apps",
    ),
    (
        "policy",
        app(mounts=(Mount("bind", "/d", "/srv/link"),)),
        replace(FINE, resolve=lambda path: path.replace("/srv/link", "/")),
        Policy(binds=("/srv",)),
        "the board's path /, to which /srv/link leads",
    ),
    ("no-space", app(), replace(FINE, free_bytes=100 * MB), Policy(), "has 100 MB free"),
    (
        "no-space",
        app(),
        replace(FINE, free_bytes=400 * MB, images={image(version=2): Image("i", (), 200 * MB)}),
        Policy(),
        "468 MB are needed",
    ),
    (
        "no-space",
        app(image_bytes=100 * MB),
        replace(FINE, free_bytes=400 * MB),
        Policy(),
        "has 400 MB free, and 568 MB are needed",
    ),
    (
        "policy",
        app(image_bytes=100 * MB),
        FINE,
        Policy(disk_bytes=250 * MB),
        "would take 300 MB, and this board's policy allows 250 MB",
    ),
    ("policy", app(), replace(FINE, images=stored()), Policy(disk_bytes=100 * MB), "would take 200 MB"),
    (
        "policy",
        app(limits=Limits(memory_bytes=200 * MB)),
        replace(FINE, others=(OTHER,)),
        Policy(memory_bytes=400 * MB),
        "500 MB together",
    ),
    (
        "no-memory",
        app(limits=Limits(reserve_memory_bytes=400 * MB)),
        replace(FINE, others=(OTHER,)),
        Policy(),
        "reserve 1100 MB",
    ),
]


@pytest.mark.parametrize(
    ("code", "manifest", "facts", "rules", "words"), CASES, ids=[case[4] for case in CASES]
)
def test_what_will_never_do_is_refused(
    code: str, manifest: App, facts: Facts, rules: Policy, words: str
) -> None:
    with pytest.raises(Refused) as refused:
        examine(manifest, None, rules, facts)
    assert refused.value.code == code
    assert words in str(refused.value)


def test_what_was_made_for_apps_or_is_named_by_the_policy_may_be_used() -> None:
    wanted = App(
        "demo",
        1,
        volumes=(Volume("ours", external=True), Volume("theirs", external=True)),
        networks=(Network("proxy", shared=True), Network("new")),
    )
    there = replace(
        FINE,
        volumes={"ours": {"lichen.app": "other"}, "theirs": {}},
        networks={"proxy": {"lichen.app": "other", "lichen.shared": "1"}},
    )
    assert examine(wanted, None, Policy(external=("theirs",)), there) == ""


def test_a_board_that_has_what_is_needed_says_nothing() -> None:
    wanted = app(
        ports=(Port(80, 80), Port(81, 0)),
        mounts=(Mount("bind", "/d", "/srv"),),
        limits=Limits(memory_bytes=100 * MB, reserve_memory_bytes=50 * MB),
    )
    assert examine(wanted, None, Policy(), FINE) == ""


def test_what_must_stay_free_is_free_after_a_pull_and_hinders_nobody_who_pulls_nothing() -> None:
    full = replace(FINE, free_bytes=100 * MB, images=stored())
    assert examine(app(image_bytes=1000 * MB), None, Policy(), full) == ""
    with pytest.raises(Refused, match="has 100 MB free, and 268 MB are needed"):
        check_disk(app(), None, Policy(), full, pulled=True)


def test_what_the_version_before_has_is_no_obstacle() -> None:
    facts = replace(FINE, labels=(("demo", {"lichen.direct": ":80/tcp"}),), port_refusal=taken)
    # Of an app that was stopped nothing runs yet, and the proxy listens already.
    served = replace(FINE, served=(("demo", "", 80),), port_refusal=taken)
    assert examine(app(ports=(Port(80, 80),)), None, Policy(), served) == ""
    assert examine(app(ports=(Port(80, 80),)), None, Policy(), facts) == ""


def test_memory_that_is_short_now_is_waited_for() -> None:
    limits = Limits(reserve_memory_bytes=600 * MB)
    assert "600 MB are reserved, 500 MB are free" in examine(app(limits=limits), None, Policy(), FINE)
    before = app(limits=Limits(reserve_memory_bytes=550 * MB))
    assert examine(app(limits=limits), before, Policy(), FINE) == ""


@pytest.mark.parametrize(
    ("have", "is_right"), [("arm64", True), ("aarch64", True), ("arm", True), ("", True), ("amd64", False)]
)
def test_architectures_that_run(have: str, is_right: bool) -> None:
    facts = replace(FINE, images=stored(architecture=have))
    if is_right:
        assert examine(app(), None, Policy(), facts) == ""
    else:
        with pytest.raises(Refused):
            examine(app(), None, Policy(), facts)
