"""From any state, with an agent that dies between any two steps, the plan ends in what it aims at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.containers.actual import Sight
from agent.containers.engine import Container
from agent.containers.names import container_name
from agent.containers.steps import Await
from agent.wire.order import App, Dependency, Mount, Network, Port, Restart, Service, Update
from support.appmodel import CHECK, Board, demo, image, say, web

NAMES = ("db", "web", "worker")


@st.composite
def services(draw: st.DrawFn, revision: int) -> tuple[Service, ...]:
    """Up to three services that may depend on those before them."""
    made: list[Service] = []
    for place, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))):
        behaviour = draw(st.sampled_from(["good", "good", "good", "bad", "crash"]))
        leaders = [each.name for each in made]
        depends = (
            tuple(
                Dependency(leader, draw(st.sampled_from(["started", "healthy"])), restart=draw(st.booleans()))
                for leader in draw(st.lists(st.sampled_from(leaders), unique=True, max_size=2))
            )
            if leaders
            else ()
        )
        made.append(
            web(
                name,
                behaviour,
                draw(st.integers(1, 2 + revision)),
                health=draw(st.sampled_from([CHECK, None])),
                replicas=draw(st.integers(0, 3)),
                restarted=draw(st.integers(0, 1)),
                depends_on=depends,
                ports=draw(st.sampled_from([(), (Port(80, 8000 + place),), (Port(80, 0),)])),
                mounts=draw(st.sampled_from([(), (Mount("volume", "/d", f"demo_{name}"),)])),
                update=Update(draw(st.sampled_from(["stop-first", "start-first"]))),
                restart=Restart(draw(st.sampled_from(["any", "on-failure"]))),
            )
        )
    return tuple(made)


@st.composite
def orders(draw: st.DrawFn) -> list[App | None]:
    """Revisions of one app as they come, among them that it is stopped, or goes."""
    found: list[App | None] = []
    for revision in range(1, draw(st.integers(2, 5))):
        kind = draw(st.sampled_from(["run", "run", "run", "stop", "go", "purge"]))
        if kind == "go":
            found.append(None)
            continue
        app = demo(revision, *draw(services(revision)), stopped=kind == "stop")
        app = replace(app, networks=(Network("demo_default", internal=draw(st.integers(0, 3)) == 0),))
        found.append(
            replace(app, services=(), networks=(), volumes=(), purge=True) if kind == "purge" else app
        )
    return found


@given(st.data(), orders())
def test_a_plan_ends_in_what_it_aims_at_whatever_happens_on_the_way(
    data: st.DataObject, wanted: list[App | None]
) -> None:
    board = Board()
    for ordered in wanted:
        board.ordered = ordered
        for _ in range(data.draw(st.integers(0, 12), "steps before the next order")):
            board.step()
            if data.draw(st.booleans(), "killed"):
                board.restart_agent()
        if data.draw(st.integers(0, 9), "power") == 0:
            board.reboot()
    settle(board)
    expect_reached(board)
    assert {"theirs"} <= board.networks.keys()
    assert {"theirs"} <= board.volumes.keys()


def settle(board: Board) -> None:
    """To the end, or until all that happens is that what crashes is started again."""
    done: list[str] = []
    for _ in range(2000):
        step = board.step()
        if step is None:
            return
        done.append(say(step))
        if board.aim.mode == "update":
            continue
        quiet = [each for each in done[-30:] if not each.startswith(("await", "start", "stop"))]
        if len(done) > 60 and not quiet:
            return
    raise AssertionError(f"no end: {done[-20:]}")


def expect_reached(board: Board) -> None:
    aim = board.aim
    if aim.mode == "stop":
        assert not board.running
        return
    names = {
        container_name(aim.app, service, slot, proxy=True)
        for service in aim.app.services
        for slot in range(service.replicas)
    }
    assert aim.mode in ("steady", "back", "remove", "clean"), f"still {aim.mode}: {board.plan()}"
    if aim.mode in ("remove", "clean"):
        assert not board.sights
        assert board.networks.keys() == {"theirs"}
    else:
        assert names <= board.sights.keys()
        others = set(board.running) - names
        assert not others, f"{others} still run"


@given(st.data())
def test_the_last_one_that_serves_goes_only_when_a_new_one_does(data: st.DataObject) -> None:
    more: dict[str, Any] = {
        "update": Update("start-first"),
        "ports": data.draw(st.sampled_from([(), (Port(80, 8080),)])),
        "replicas": data.draw(st.integers(1, 3)),
        "health": data.draw(st.sampled_from([CHECK, None])),
    }
    board = Board(demo(1, web(**more)))
    board.settle()
    for revision in range(2, data.draw(st.integers(3, 5))):
        more["replicas"] = data.draw(st.integers(1, 3))
        behaviour = data.draw(st.sampled_from(["good", "bad", "crash"]))
        board.ordered = demo(revision, web(behaviour=behaviour, version=revision, **more))
        for _ in range(data.draw(st.sampled_from([3, 8, 500]), "steps before the next order")):
            step = board.step()
            assert board.serving, f"nobody serves after {step}"
            if step is None:
                break
            if data.draw(st.booleans(), "killed"):
                board.restart_agent()


@given(st.data())
def test_whatever_lies_about_is_cleared_away(data: st.DataObject) -> None:
    """Containers of unknown versions, half made ones, images that lack a layer."""
    board = Board(demo(1, web(), web("db")))
    phases = st.sampled_from(["created", "running", "exited", "removing", "broken", "paused"])
    for number in range(data.draw(st.integers(0, 5))):
        labels = {
            "lichen.app": "demo",
            "lichen.service": data.draw(st.sampled_from(["web", "db", "gone", ""])),
            "lichen.slot": data.draw(st.sampled_from(["0", "1", "x"])),
        }
        name = f"demo_stray.{number}.00000000"
        board.sights[name] = Sight(Container(name, name, labels, data.draw(phases)))
    if data.draw(st.booleans()):
        board.images[image()] = data.draw(st.sampled_from(["whole", "broken"]))
    board.settle()
    assert sorted(board.sights) == board.running
    assert len(board.running) == 2
    assert board.past.good is board.ordered
    assert not [step for step in board.plan() if not isinstance(step, Await)]
