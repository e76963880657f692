"""Healthchecks as time goes by, and where traffic goes."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.containers.actual import Sight
from agent.containers.aim import Aim
from agent.containers.engine import Check, Container
from agent.containers.health import Checks
from agent.containers.names import container_name
from agent.containers.publish import routes
from agent.containers.routes import Backend, Route
from agent.containers.spec import labels
from agent.wire.order import Health, Port, Update
from fakes.podman import Behaviour, FakePodman
from support.appmodel import demo, web
from support.virtual import virtual, virtual_clock

CHECK = Health(("CMD", "true"), interval_ms=30_000, retries=3, start_period_ms=60_000)


async def begin(podman: FakePodman, behaviour: Behaviour) -> None:
    """Let a container "x" run."""
    image = podman.publish("registry.example/x", behaviour)
    podman.store(image)
    body = {"name": "x", "image": image, "labels": {"lichen.app": "a"}, "healthconfig": {"Test": ["CMD"]}}
    await podman.create(body)
    await podman.start("x")


async def pulse(behaviour: Behaviour, check: Health, for_s: float) -> list[tuple[float, str]]:
    """How the state of a container changes, and when."""
    podman, clock, loop = FakePodman(), virtual_clock(), asyncio.get_running_loop()
    await begin(podman, behaviour)
    checks, states = Checks(podman, clock.mono_ms), [(0.0, "starting")]
    [container] = await podman.containers()
    checks.follow({"x": (container, check)}, ())
    while (due_ms := checks.next_ms()) is not None and due_ms < for_s * 1000:
        await asyncio.sleep((due_ms - clock.mono_ms()) / 1000)
        assert checks.due() == ["x"]
        if await checks.check("x"):
            states.append((round(loop.time(), 2), checks.state("x")))
        if states[-1][1] == "healthy" and len(states) == 2 and behaviour.healthy_after == 0:
            podman.by_name["x"].behaviour = Behaviour(healthy_after=None)
    return states


@virtual
async def test_one_that_is_well_soon_is_known_soon_and_ill_after_its_retries() -> None:
    assert await pulse(Behaviour(), CHECK, 200) == [(0, "starting"), (0.25, "healthy"), (90, "unhealthy")]


@virtual
async def test_a_start_has_its_period_and_then_as_many_tries() -> None:
    [(_, _), (at_s, state)] = await pulse(Behaviour(healthy_after=None), CHECK, 300)
    assert (state, 150 <= at_s <= 180) == ("unhealthy", True)


@virtual
async def test_a_check_that_hangs_has_failed() -> None:
    check = Health(("CMD",), interval_ms=1_000, timeout_ms=500, retries=1)
    states = await pulse(Behaviour(healthy_after=None, check_s=1000), check, 20)
    assert states[-1][1] == "unhealthy"


@virtual
async def test_time_in_a_queue_says_nothing_about_a_container() -> None:
    class Busy(FakePodman):
        """Checks of others hang before each of this one."""

        async def check(self, id: str) -> Check:
            await asyncio.sleep(600)
            return await super().check(id)

    podman, clock = Busy(), virtual_clock()
    await begin(podman, Behaviour())
    [container] = await podman.containers()
    checks = Checks(podman, clock.mono_ms)
    checks.follow({"x": (container, CHECK)}, {"x"})
    for _ in range(CHECK.retries + 1):
        await checks.check("x")
        assert (checks.state("x"), checks.output("x")) == ("healthy", "")


def sight(
    app: Any, slot: int, *, address: str, phase: Any = "running", bare: bool = False, **more: Any
) -> Sight:
    name = container_name(app, app.services[0], slot, proxy=True)
    made = labels(app, app.services[0], slot, proxy=True, bare=bare)
    return Sight(Container(name, name, made, phase, networks={"n": address}), **more)


def test_traffic_goes_to_whom_it_should() -> None:
    more: dict[str, Any] = {"update": Update("start-first"), "ports": (Port(80, 8080),), "replicas": 2}
    one, two = demo(1, web(**more)), demo(2, web(version=2, **more))
    old = [sight(one, slot, address=f"10.0.0.{slot + 1}", health="healthy") for slot in (0, 1)]
    new = sight(two, 0, address="10.0.0.9", bare=True, health="healthy")
    aim, route = Aim("update", two, one), Route("", 8080, "demo", "web", 80)

    def table(*sights: Sight) -> dict[str, Backend]:
        return dict(routes([(aim, sights)]).get(route, {}))

    assert table(*old, new) == {each.name: Backend(each.container.networks["n"], 80) for each in old}
    served = table(*old, Sight(new.container, "healthy", standing="switched"))
    assert {name: backend.drain for name, backend in served.items()} == {
        old[0].name: True, old[1].name: True, new.name: False
    }  # fmt: skip
    ill = Sight(old[0].container, "unhealthy")
    assert table(ill, old[1]).keys() == {old[1].name}
    assert table(ill).keys() == {ill.name}  # better than nobody
    assert routes([(Aim("stop", two, one), [sight(two, 0, address="", phase="exited")])]) == {}


def test_a_port_that_a_container_has_for_itself_is_not_the_proxys() -> None:
    ports = {"ports": (Port(80, 8080),)}
    one, two = demo(1, web(**ports)), demo(2, web(replicas=2, **ports))
    direct = sight(one, 0, address="10.0.0.1")
    waiting = sight(two, 0, address="", phase="created")
    assert routes([(Aim("update", two, one), [direct, waiting])]) == {}
