"""What the largest manifests that are legal cost: thinking is done in the loop of the agent, in each turn."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from agent.base.sqlite import Database
from agent.containers.actual import Seen, Sight
from agent.containers.aim import Aim
from agent.containers.apps import FILE
from agent.containers.engine import LABEL_APP, Container
from agent.containers.look import Look
from agent.containers.memory import SCHEMA, VERSION, Memory
from agent.containers.meters import Meters
from agent.containers.names import LABEL_SERVICE, digests, named
from agent.containers.observer import Observer
from agent.containers.orders import check
from agent.containers.plan import plan
from agent.containers.publish import routes
from agent.containers.roster import Rosters
from agent.containers.scene import waves
from agent.wire.order import App, Dependency, Order, Service
from fakes.podman import FakePodman
from support.appmodel import demo, web

MOST_MS = 100
MOST = 64


def connected(revision: int = 1, version: int = 1) -> App:
    """Each service is made anew with every one before it."""
    return demo(
        revision,
        *(
            web(
                f"s{number}",
                version=version,
                depends_on=tuple(Dependency(f"s{leader}", restart=True) for leader in range(number)),
            )
            for number in range(MOST)
        ),
    )


def containers(app: App, phase: str) -> tuple[Container, ...]:
    specs = digests(app, proxy=True)
    return tuple(
        Container(name, name, {LABEL_APP: app.name, LABEL_SERVICE: service.name}, phase)  # type: ignore[arg-type]
        for service in app.services
        for name in (named(app, service, 0, specs[service.name]),)
    )


async def turn_ms(sighting: Observer, look: Look, aim: Aim) -> float:
    """How long the processor is busy with all that is thought in one turn."""
    began_s = time.process_time()
    seen = (await sighting.see(look, {"demo": aim}, set()))["demo"]
    plan(aim, seen, proxy=True, rosters=sighting.rosters)
    routes([(aim, seen.containers)], sighting.rosters)
    return (time.process_time() - began_s) * 1000


async def test_a_turn_is_short_with_services_that_all_follow_each_other(tmp_path: Path) -> None:
    one, two = connected(), connected(2, version=2)
    check(Order("board", 1, 0, (two,)))
    async with Database.open(tmp_path / FILE, SCHEMA, version=VERSION) as database:
        memory = await Memory.load(database, "boot")
        for phase in ("running", "exited", "created"):
            look = Look((*containers(one, phase), *containers(two, phase)))
            for aim in (Aim("update", two, one), Aim("steady", two, two), Aim("stop", two, one)):
                sighting = Observer(
                    FakePodman(), memory, lambda: 60_000, proxy=True, meters=Meters(lambda: 0, lambda: None)
                )
                times = [await turn_ms(sighting, look, aim) for _ in range(3)]
                assert min(times) < MOST_MS, f"{phase}, {aim.mode}: {times}"


def test_a_manifest_is_thought_through_once() -> None:
    app = connected()
    rosters = Rosters()
    known = rosters.of(app, proxy=True)
    assert rosters.of(app, proxy=True) is known
    assert rosters.of(app, proxy=False) is not known
    rosters.keep([app])
    assert rosters.of(app, proxy=True) is known
    rosters.keep([replace(app)])
    assert rosters.of(app, proxy=True) is not known


def test_containers_that_need_nobody_who_is_left_stop_together() -> None:
    services = (
        Service("db", "image"),
        Service("cache", "image"),
        Service("api", "image", depends_on=(Dependency("db"), Dependency("cache"))),
        Service("web", "image", depends_on=(Dependency("api"), Dependency("lost", required=False))),
    )
    app = App("demo", 1, services=services)

    def stopped(*names: str) -> list[list[str]]:
        sights = [Sight(Container(name, name, {LABEL_SERVICE: name}, "running")) for name in names]
        return [[sight.name for sight in wave] for wave in waves(app, sights)]

    assert stopped("db", "web", "api", "cache") == [["web"], ["api"], ["cache", "db"]]
    assert stopped("db", "web") == [["web"], ["db"]]  # also where what is between them has gone
    assert stopped("lost", "stray", "web") == [["stray", "web"], ["lost"]]
    assert stopped() == []


def test_services_in_a_circle_are_stopped_all_the_same() -> None:
    circle = [Service(f"s{n}", "image", depends_on=(Dependency(f"s{(n + 1) % 3}"),)) for n in range(3)]
    sights = [Sight(Container(s.name, s.name, {LABEL_SERVICE: s.name}, "running")) for s in circle]
    found = [sight for wave in waves(App("demo", 1, services=tuple(circle)), sights) for sight in wave]
    assert sorted(sight.name for sight in found) == ["s0", "s1", "s2"]


def test_a_plan_for_the_largest_app_is_short_when_nothing_is_there() -> None:
    app = connected()
    began_s = time.process_time()
    assert plan(Aim("update", app), Seen(0, images={}), proxy=True)
    assert (time.process_time() - began_s) * 1000 < MOST_MS
