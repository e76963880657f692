"""Plans as tables: an app, what is there, and the steps that follow, to the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.containers.actual import Seen
from agent.containers.engine import LABEL_APP
from agent.containers.plan import plan
from agent.containers.scene import notes
from agent.containers.steps import Await
from agent.wire.apps import Failure
from agent.wire.order import (
    Config,
    Dependency,
    Device,
    Given,
    Mount,
    Network,
    Port,
    Restart,
    Secret,
    Update,
    Volume,
)
from support.appmodel import Board, demo, image, start_first, web

DATA = (Mount("volume", "/data", "demo_data"),)


def deployed(*services: Any, **more: Any) -> Board:
    """A board on which the first revision has come up."""
    board = Board(demo(1, *services, **more))
    board.settle()
    assert board.past.good is board.ordered
    return board


def updated(board: Board, *services: Any, **more: Any) -> list[str]:
    """What is done for the second revision."""
    board.ordered = demo(2, *services, **more)
    return board.settle()


# --- the first time ------------------------------------------------------------------------------


def test_a_first_deployment_makes_what_is_needed_in_order() -> None:
    secret, config = Secret("key", "v1", "b"), Config("conf", "c1", "x")
    service = web(mounts=DATA, secrets=(Given("key", "/k"),), configs=(Given("conf", "/c"),))
    board = Board(demo(1, service, secrets=(secret,), configs=(config,)))
    assert board.settle() == [
        "pull good",
        "network demo_default",
        "volume demo_data",
        "secret demo.key.v1",
        "secret demo.conf.c1",
        "create web.0",
        "start web.0",
        "accept 1",
    ]
    assert board.serving == ["web"]


def test_what_is_as_it_should_be_needs_nothing() -> None:
    assert deployed(web()).plan() == []


def test_supplies_that_are_there_are_not_made_again() -> None:
    board = Board(demo(1, web(mounts=DATA)))
    board.images[image()] = "whole"
    board.volumes["demo_data"] = {}  # somebody's own, without a label
    board.networks["demo_default"] = {}
    assert board.settle() == ["create web.0", "start web.0", "accept 1"]


def test_services_start_in_the_order_of_their_dependencies() -> None:
    first = web("web", depends_on=(Dependency("db", "healthy"), Dependency("init", "completed")))
    job = web("init", "job", health=None, depends_on=(Dependency("db"),), restart=Restart("none"))
    board = Board(demo(1, first, web("db"), job))
    made = [each for each in board.settle() if each.startswith("start")]
    assert made == ["start db.0", "start init.0", "start web.0"]
    assert board.serving == ["db", "web"]


def test_a_dependency_that_is_not_required_is_waited_for_only_while_it_is_well() -> None:
    board = Board(
        demo(
            1,
            web("web", depends_on=(Dependency("cache", "healthy", required=False),)),
            web("cache", "crash", update=Update(on_failure="continue")),
        )
    )
    for _ in range(10):
        board.step()
    assert board.serving == ["web"]


def test_a_broken_image_is_pulled_again() -> None:
    board = Board(demo(1, web()))
    board.images[image()] = "broken"
    assert board.settle()[:2] == ["removeimage good", "pull good"]


def test_replicas_of_a_new_service_start_together() -> None:
    board = Board(demo(1, web(replicas=3, ports=(Port(80, 8080),))))
    done = board.settle()
    assert [each for each in done if each.startswith(("create", "start"))] == [
        f"{verb} web.{slot}" for slot in range(3) for verb in ("create", "start")
    ]


# --- updates -------------------------------------------------------------------------------------


def test_stop_first_stops_the_old_one_when_everything_for_the_new_one_is_there() -> None:
    assert updated(deployed(web()), web(version=2)) == [
        "pull good",
        "stop web.0",
        "create web.0",
        "start web.0",
        "accept 2",
        "remove web.0",
    ]


def test_start_first_stops_the_old_one_when_the_new_one_serves() -> None:
    assert updated(deployed(web(**start_first())), web(version=2, **start_first())) == [
        "pull good",
        "create web.0 bare",
        "start web.0",
        "switch web.0",
        "drain web.0",
        "accept 2",
        "remove web.0",
    ]


def test_an_old_one_that_others_may_ask_for_gives_up_its_names_first() -> None:
    board = deployed(web(**start_first()), web("db"))
    assert updated(board, web(version=2, **start_first()), web("db")) == [
        "pull good",
        "create web.0 bare",
        "start web.0",
        "switch web.0",
        "drain web.0 leaving",
        "accept 2",
        "remove web.0",
    ]
    # What only one container serves has nobody to leave it to.
    board.ordered = demo(3, web(version=2, **start_first()), web("db", version=2))
    assert "stop db.0" in board.settle()
    board.ordered = None
    assert board.settle()[:1] == ["stop db.0 + drain web.0"]


def test_one_that_has_left_starts_without_names_when_it_is_gone_back_to() -> None:
    board = deployed(web(**start_first()), web("db"))
    old = next(name for name in board.running if "_web." in name)
    done = updated(board, web(version=2, **start_first()), web("db", "bad", version=2))
    assert "drain web.0 leaving" in done
    back = done[done.index("give up: db is not healthy") + 1 :]
    assert back == [
        "start web.0",
        "stop db.0",
        "start db.0",
        "switch web.0",
        "drain web.0 leaving",
        "remove db.0",
        "remove web.0",
    ]
    assert board.sights[old].standing == "switched"


def test_replicas_are_replaced_one_after_the_other() -> None:
    ports = {"replicas": 2, "ports": (Port(80, 8080),)}
    assert updated(deployed(web(**ports)), web(version=2, **ports)) == [
        "pull good",
        "drain web.0",
        "create web.0 bare",
        "start web.0",
        "switch web.0",
        "drain web.1",
        "create web.1 bare",
        "start web.1",
        "switch web.1",
        "accept 2",
        "remove web.0",
        "remove web.1",
    ]


def test_what_has_not_changed_is_left_alone() -> None:
    board = deployed(web(), web("db"))
    assert updated(board, web(), web("db", version=2)) == [
        "pull good",
        "stop db.0",
        "create db.0",
        "start db.0",
        "accept 2",
        "remove db.0",
    ]


def test_a_restart_makes_new_containers_of_the_same_kind() -> None:
    board = deployed(web())
    assert updated(board, web(restarted=1)) == [
        "stop web.0",
        "create web.0-r1",
        "start web.0-r1",
        "accept 2",
        "remove web.0",
    ]


def test_dependents_follow_a_service_that_is_replaced() -> None:
    follower = web("web", depends_on=(Dependency("db", restart=True),))
    done = updated(deployed(follower, web("db")), follower, web("db", version=2))
    assert [each for each in done if each.startswith("start")] == ["start db.0", "start web.0"]


def test_whoever_shares_a_namespace_follows_too() -> None:
    vpn, app = web("vpn"), web("app", networks=(), network_mode="service:vpn")
    done = updated(deployed(vpn, app), replace(vpn, restarted=1), app)
    assert [each for each in done if each.startswith("start")] == ["start vpn.0-r1", "start app.0"]


def test_more_replicas_that_need_the_proxy_take_the_port_from_podman() -> None:
    ports = {"ports": (Port(80, 8080),)}
    assert updated(deployed(web(**ports)), web(replicas=2, **ports)) == [
        "stop web.0",
        "create web.0",
        "start web.0",
        "create web.1",
        "start web.1",
        "accept 2",
        "remove web.0",
    ]


def test_fewer_replicas_are_drained_and_removed() -> None:
    ports = start_first()
    board = deployed(web(replicas=3, **ports))
    assert updated(board, web(replicas=1, **ports)) == [
        "drain web.1 + drain web.2",
        "accept 2",
        "remove web.1",
        "remove web.2",
    ]


def test_no_replicas_are_no_containers() -> None:
    board = deployed(web())
    assert updated(board, web(replicas=0)) == ["stop web.0", "accept 2", "remove web.0"]


def test_a_service_that_takes_over_a_port_waits_for_it() -> None:
    ports = {"ports": (Port(80, 8080),)}
    done = updated(deployed(web("old", **ports)), web("new", **ports))
    assert done == ["stop old.0", "create new.0", "start new.0", "accept 2", "remove old.0"]


def test_what_is_not_needed_any_more_goes_and_volumes_stay() -> None:
    one, two = Secret("key", "v1", "b"), Secret("key", "v2", "b")
    board = Board(demo(1, web(mounts=DATA, secrets=(Given("key", "/k"),)), secrets=(one,)))
    board.settle()
    board.ordered = replace(
        demo(2, web(networks=(), secrets=(Given("key", "/k"),)), secrets=(two,)), networks=()
    )
    done = board.settle()
    assert done[-3:] == ["remove web.0", "remove demo.key.v1", "remove demo_default"]
    assert board.volumes.keys() == {"theirs", "demo_data"}


def test_a_shared_network_stays_while_another_app_is_on_it() -> None:
    board = Board(replace(demo(1, web()), networks=(Network("demo_default", shared=True),)))
    board.settle()
    board.ordered = None
    removal = plan(board.aim, replace(board.seen, containers=()), proxy=True)
    assert [step.words for step in removal] == ["removing the network demo_default"]
    used = replace(board.seen, containers=(), used=frozenset({"demo_default"}))
    assert plan(board.aim, used, proxy=True) == []


def test_a_network_that_is_to_be_another_one_is_made_anew_with_all_that_is_on_it() -> None:
    services = web(), web("db"), web("probe", networks=(), network_mode="service:db")
    board = deployed(*services)
    board.ordered = replace(
        demo(2, web(version=2), *services[1:]), networks=(Network("demo_default", internal=True),)
    )
    assert board.settle() == [
        "pull good",
        "stop probe.0 + stop web.0",
        "stop db.0",
        "remove probe.0",
        "remove db.0",
        "remove web.0",
        "remove demo_default",
        "network demo_default",
        *(f"{verb} {name}.0" for name in ("web", "db", "probe") for verb in ("create", "start")),
        "accept 2",
    ]
    # And back, when the next one does not come up.
    board.ordered = demo(3, web(behaviour="crash"), *services[1:])
    done = board.settle()
    back = done[done.index("give up: web ended with 1, 3 times") :]
    assert back.count("remove demo_default") == back.count("network demo_default") == 1
    assert board.serving == ["db", "probe", "web"]
    assert board.plan() == []


def test_a_network_that_others_use_and_volumes_stay_as_they_were_made() -> None:
    board = deployed(web(mounts=DATA))
    other = replace(
        demo(2, web(mounts=DATA)),
        networks=(Network("demo_default", subnet="10.9.8.0/24"),),
        volumes=(Volume("demo_data", driver_options={"type": "tmpfs"}),),
    )
    board.ordered = other
    used = replace(board.seen, used=frozenset({"demo_default"}))
    assert [step.words for step in plan(board.aim, used, proxy=True)] == ["accepting revision 2"]
    assert [note.partition(":")[0] for note in notes(other, used, proxy=True)] == [
        "the network demo_default stays as it was made, since other apps use it",
        "the volume demo_data stays as it was made, for what is in it",
    ]
    made_by_hand = replace(board.seen, networks={"demo_default": {}}, volumes={"demo_data": {}})
    assert notes(other, made_by_hand, proxy=True) == []


def test_what_ends_on_a_network_of_another_app_is_waited_for() -> None:
    board = Board(demo(1, web()))
    ending = replace(board.seen, ending=("other_web.0.12345678",), images={image(): "whole"},
        networks={"demo_default": {}})  # fmt: skip
    assert plan(board.aim, ending, proxy=True) == [
        Await("waiting for the end of other_web.0.12345678", board.now_ms + 100)
    ]


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("bad", "web is not healthy"), ("crash", "web ended with 1, 3 times")],
)
def test_a_version_that_does_not_come_up_is_gone_back_from(behaviour: str, reason: str) -> None:
    board = deployed(web())
    before = board.running
    done = updated(board, web(behaviour=behaviour, version=2))
    assert f"give up: {reason}" in done
    after = done[done.index(f"give up: {reason}") + 1 :]
    assert after[-2:] == ["start web.0", "remove web.0"]  # no pull, no create: it was still there
    assert board.running == before
    assert board.plan() == []  # and the bad one is not tried again
    board.ordered = demo(3, web(version=3))
    board.settle()
    assert board.past.good.revision == 3


def test_a_start_first_version_that_fails_never_touches_the_old_one() -> None:
    done = updated(deployed(web(**start_first())), web(behaviour="bad", version=2, **start_first()))
    assert done == [
        "pull bad",
        "create web.0 bare",
        "start web.0",
        "give up: web is not healthy",
        "stop web.0",
        "remove web.0",
    ]


def test_a_first_version_that_fails_leaves_only_its_volumes() -> None:
    board = Board(demo(1, web(behaviour="crash", mounts=DATA)))
    done = board.settle()
    assert done[-3:] == ["give up: web ended with 1, 3 times", "remove web.0", "remove demo_default"]
    assert not board.running
    assert board.networks.keys() == {"theirs"}
    assert board.volumes.keys() == {"theirs", "demo_data"}


def test_one_that_is_never_restarted_fails_at_its_first_end() -> None:
    board = Board(demo(1, web(behaviour="crash", restart=Restart("none"))))
    assert "give up: web ended with 1" in board.settle()


def test_time_is_up_at_last() -> None:
    slow = web(health=None, update=Update(monitor_ms=600_000))
    board = Board(demo(1, slow, timeout_ms=60_000))
    done = board.settle()
    assert "give up: web did not come up within 60 s" in done
    assert board.past.failure.reason == "web did not come up within 60 s"


def test_what_fails_and_may_is_kept() -> None:
    board = deployed(web())
    board.ordered = demo(2, web(version=2))
    failure = Failure(2, 0, "", "")
    board.past = replace(board.past, failure=failure, kept="pause")
    assert board.plan() == []
    board.past = replace(board.past, failure=failure, kept="continue")
    assert "accept 2" in board.settle()


# --- as time goes by -----------------------------------------------------------------------------


def test_one_that_ends_is_started_again_when_it_is_time() -> None:
    board = deployed(web())
    name = board.running[0]
    board._set(name, phase="exited", exit_code=1, ends=1, back_ms=board.now_ms + 5000)
    assert board.plan() == [Await("starting web again", board.now_ms + 5000)]
    assert board.settle() == ["start web.0"]


@pytest.mark.parametrize(
    ("restart", "code", "ends", "starts"),
    [
        (Restart("any"), 0, 1, True),
        (Restart("any"), 1, 1, True),
        (Restart("on-failure"), 0, 1, False),
        (Restart("on-failure"), 1, 1, True),
        (Restart("none"), 1, 1, False),
        (Restart("any", max_attempts=2), 1, 2, True),
        (Restart("any", max_attempts=2), 1, 3, False),
    ],
)
def test_restart_policies(restart: Restart, code: int, ends: int, starts: bool) -> None:
    board = deployed(web(restart=restart))
    board._set(board.running[0], phase="exited", exit_code=code, ends=ends)
    assert board.settle() == (["start web.0"] if starts else [])


def test_one_that_gets_ill_is_started_again() -> None:
    board = deployed(web())
    sight = replace(board.seen.containers[0], health="unhealthy")
    steps = plan(board.aim, replace(board.seen, containers=(sight,)), proxy=True)
    assert [(type(step).__name__, step.unwell) for step in steps] == [("Stop", True)]


def test_what_somebody_removed_comes_back() -> None:
    board = deployed(web())
    board.sights.clear()
    assert board.settle() == ["create web.0", "start web.0"]


def test_half_removed_containers_go_first() -> None:
    board = deployed(web())
    board._set(next(iter(board.sights)), phase="broken")
    assert board.settle() == ["remove web.0", "create web.0", "start web.0"]


def test_after_a_reboot_everything_starts_in_order_also_what_had_ended() -> None:
    first = web("web", depends_on=(Dependency("init", "completed"),))
    job = web("init", "job", health=None, restart=Restart("none"))
    board = deployed(first, job)
    board.reboot()
    assert board.settle() == ["start init.0", "start web.0"]


def test_whoever_shares_the_namespace_of_one_that_started_again_starts_again() -> None:
    board = deployed(web("vpn"), web("app", networks=(), network_mode="service:vpn"))
    vpn = board.running[1]
    board.now_ms += 60_000
    board._set(vpn, phase="exited", exit_code=1, ends=1)
    assert board.settle() == ["start vpn.0", "stop app.0", "start app.0"]


# --- stopping and going --------------------------------------------------------------------------


def test_a_stopped_app_keeps_everything_and_comes_back() -> None:
    board = deployed(web("web", depends_on=(Dependency("db"),)), web("db"))
    services = board.ordered.services
    board.ordered = demo(2, *services, stopped=True)
    assert board.settle() == ["stop web.0", "stop db.0"]
    board.ordered = demo(3, *services)
    assert board.settle() == ["start db.0", "start web.0", "accept 3"]


def test_what_needs_nobody_else_that_is_left_stops_at_the_same_time() -> None:
    services = (
        web("web", replicas=2, depends_on=(Dependency("api"),)),
        web("api", depends_on=(Dependency("db"),)),
        web("worker", depends_on=(Dependency("db"),)),
        web("db"),
        web("cache"),
        web("probe", networks=(), network_mode="service:cache"),
    )
    board = deployed(*services)
    board.ordered = demo(2, *services, stopped=True)
    assert board.settle() == [
        "stop probe.0 + stop web.0 + stop web.1 + stop worker.0",
        "stop api.0 + stop cache.0",
        "stop db.0",
    ]
    board.ordered = demo(3, *services)
    board.settle()
    api = next(name for name in board.running if "_api." in name)
    board._set(api, phase="exited", exit_code=1, ends=1)
    board.ordered = None
    # What is between them does not run, and db is needed by web all the same.
    assert board.settle()[:2] == [
        "stop probe.0 + stop web.0 + stop web.1 + stop worker.0",
        "stop cache.0 + stop db.0",
    ]


def test_services_that_go_stop_together() -> None:
    board = deployed(web(), web("one"), web("two", depends_on=(Dependency("one"),)), web("three"))
    assert updated(board, web())[:2] == ["stop three.0 + stop two.0", "stop one.0"]


def test_an_app_that_goes_leaves_its_volumes() -> None:
    board = deployed(web(mounts=DATA, secrets=(Given("key", "/k"),)), secrets=(Secret("key", "v1", "b"),))
    board.ordered = None
    done = board.settle()
    assert done == ["stop web.0", "remove web.0", "remove demo.key.v1", "remove demo_default"]
    assert board.volumes.keys() == {"theirs", "demo_data"}


def test_volumes_go_when_somebody_asks_for_it_and_only_those_of_the_app() -> None:
    board = deployed(web(mounts=DATA))
    board.volumes["another"] = {LABEL_APP: "another"}
    board.ordered = replace(demo(2), networks=(), purge=True)
    assert board.settle()[-1] == "remove demo_data"
    assert board.volumes.keys() == {"theirs", "another"}


def test_an_app_goes_in_the_middle_of_its_update() -> None:
    board = deployed(web(**start_first()))
    board.ordered = demo(2, web(version=2, **start_first()))
    for _ in range(4):
        board.step()
    assert len(board.running) == 2
    board.ordered = None
    board.settle()
    assert not board.sights


def test_nothing_changes_while_it_has_to_wait_and_what_ends_is_started_again() -> None:
    board = deployed(web())
    board.ordered = demo(2, web(version=2))
    board.hold = "waits"
    assert board.plan() == []
    board._set(board.running[0], phase="exited", exit_code=1, ends=1)
    assert board.settle() == ["start web.0"]
    board.ordered = None
    assert board.plan() == []
    board.hold = ""
    board.settle()
    assert not board.sights


def test_an_update_that_has_begun_goes_on() -> None:
    board = deployed(web())
    board.ordered = demo(2, web(version=2))
    board.step()
    board.hold = "waits"
    assert "accept 2" in board.settle()


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"mounts": DATA}, "a volume that it writes to"),
        ({"mounts": (Mount("bind", "/d", "/srv", read_only=True),)}, ""),
        ({"devices": (Device("/dev/a", "/dev/a"),)}, "a device"),
        ({"ports": (Port(53, 53, "udp"),)}, "a port that only one container can have"),
        ({"ports": (Port(80, 0),)}, ""),
        ({"network_mode": "host", "networks": ()}, "the board's own network"),
    ],
)
def test_why_a_service_is_not_updated_start_first_is_noted(more: dict[str, Any], why: str) -> None:
    app = demo(1, web(update=Update(order="start-first"), **more))
    expected = [f"web is updated stop-first, because it has {why}"] if why else []
    assert notes(app, Seen(0), proxy=True) == expected
    done = updated(deployed(*app.services), replace(app.services[0], restarted=1))
    assert ("create web.0-r1 bare" in done) == (not why)


def test_without_a_proxy_ports_are_podmans() -> None:
    board = Board(demo(1, web(**start_first())), proxy=False)
    board.settle()
    board.ordered = demo(2, web(version=2, **start_first()))
    assert board.settle()[1:3] == ["stop web.0", "create web.0"]


def test_nothing_starts_while_podman_still_takes_another_one_down() -> None:
    board = deployed(web(), web("db"))
    first, second = sorted(board.sights)
    board._set(first, phase="ending", exit_code=1)
    board._set(second, phase="exited", exit_code=1)
    assert board.plan() == [Await(f"waiting for the end of {first}", board.now_ms + 100)]
    board._set(first, phase="exited")
    assert board.settle() == ["start web.0", "start db.0"]
