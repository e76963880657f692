"""What happens while a step is done: another order, a full disk, a Podman that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.containers.memory import Memory
from agent.wire.errors import Refused
from agent.wire.order import App, Attachment, Limits, Port, Service
from fakes.podman import Behaviour
from support.apphouse import House
from support.appmodel import CHECK, demo
from support.virtual import virtual


def web(house: House, behaviour: Behaviour | None = None, tag: str = "1", **more: Any) -> Service:
    """A web service whose image is in the registry."""
    image = house.podman.publish("registry.example/web", behaviour, tag=tag)
    return Service("web", image, **{"health": CHECK, "networks": (Attachment("demo_default"),), **more})


def full(memory: Memory | None) -> Callable[[], None]:
    """Let nothing be written down any more; returns what makes room again."""
    assert memory is not None
    database = memory._database
    real = database.run

    async def run(*_: object, **__: object) -> None:
        raise Refused("apps.db cannot grow: the disk is full", code="disk-full")

    database.run = run  # type: ignore[method-assign,assignment]

    def make_room() -> None:
        database.run = real  # type: ignore[method-assign]

    return make_room


# --- another order -------------------------------------------------------------------------------


@virtual
async def test_an_order_that_comes_in_a_pull_is_looked_at_before_it_begins(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.policy.write_text("memory_bytes = 1000000\n")
        await house.order(demo(1, web(house, limits=Limits(memory_bytes=500_000))))
        await house.until_running(1)
        old = house.running_names
        house.podman.pull_s = 10
        new = web(house, tag="2", limits=Limits(memory_bytes=500_000))
        await house.order(demo(2, new))
        await house.until(lambda: house.podman.pulling)
        await house.order(demo(3, replace(new, limits=Limits(memory_bytes=900_000_000))))
        await house.until(lambda: house.state().failure is not None)
        await asyncio.sleep(60)
        failure = house.state().failure
        assert failure is not None
        assert (failure.revision, failure.code, house.state().running) == (3, "policy", 1)
        assert house.running_names == old


@virtual
async def test_the_fault_of_a_revision_is_not_that_of_the_next(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        house.podman.call_s = 0.5
        house.podman.taken.add(("tcp", 8080))
        await house.order(demo(2, web(house, tag="2", ports=(Port(80, 8080),))))
        await house.until(lambda: house.state().step.startswith("starting"))
        await house.order(demo(3, web(house, tag="2")))
        await house.until_running(3)
        assert house.state().failure is None


# --- nothing can be written, or asked --------------------------------------------------------------


@virtual
async def test_a_failure_that_cannot_be_written_down_is_told_and_written_later(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        house.podman.pull_s, house.podman.pull_error = 5, "manifest unknown"
        await house.order(demo(2, web(house, tag="2")))
        await house.until(lambda: house.podman.pulling)
        make_room = full(house.memory)
        await house.until(lambda: "the disk is full" in house.state().step)
        calls = len(house.podman.calls)
        await asyncio.sleep(120)
        assert len(house.podman.calls) - calls < 20
        assert house.state().running == 1
        make_room()
        await house.until_running(2)


@virtual
async def test_a_verdict_that_cannot_be_written_down_is_not_given_over_and_over(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        await house.order(demo(2, web(house, Behaviour(healthy_after=None), tag="2"), timeout_ms=20_000))
        await house.until(lambda: "healthy" in house.state().step)
        make_room = full(house.memory)
        await house.until(lambda: "the disk is full" in house.state().step)
        looks = 0
        real = house.podman.logs

        async def logs(*given: Any, **options: Any) -> Any:
            nonlocal looks
            looks += 1
            return await real(*given, **options)

        house.podman.logs = logs  # type: ignore[method-assign]
        await asyncio.sleep(600)
        assert looks < 20
        make_room()
        await house.until(lambda: house.state().failure is not None)
        await house.until_running(1)


@pytest.mark.parametrize("fault", ["podman goes", "it has no room even to look"])
@virtual
async def test_a_board_without_room_that_cannot_prune_goes_on_later(tmp_path: Path, fault: str) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        assert house.memory is not None
        await house.memory.pulled("registry.example/old@sha256:" + "0" * 64)
        real = house.podman.find_image

        async def find_image(reference: str) -> Any:
            if "old" in reference and fault == "podman goes":
                house.podman.down = True
            elif "old" in reference:
                raise Refused("inspecting an image: no space left on device", code="no-space")
            return await real(reference)

        house.podman.find_image = find_image  # type: ignore[method-assign]
        room, house.podman.free_bytes = house.podman.free_bytes, 0
        await house.order(demo(2, web(house, tag="2")))
        await asyncio.sleep(30)
        assert house.state().running == 1
        house.podman.find_image = real  # type: ignore[method-assign]
        house.podman.down, house.podman.free_bytes = False, room
        await house.order(demo(3, web(house, tag="2")))
        await house.until_running(3)
        assert house.memory.images == {web(house, tag="2").image}


# --- nobody has looked -----------------------------------------------------------------------------


@virtual
async def test_nothing_is_gone_before_somebody_has_looked(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.running():
        await house.order(demo(1, web(house)))
        await house.until_running(1)
    house.podman.down = True
    async with house.running() as reconciler:
        await house.order()
        await asyncio.sleep(30)
        assert not reconciler.has_looked
        assert house.state().state == "removing"
        house.podman.down = False
        await house.until(lambda: not house.is_known())
        assert not house.podman.by_name


@virtual
async def test_what_is_to_stop_is_not_stopped_while_podman_is_down(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        house.podman.down = True
        await house.order(demo(2, web(house), stopped=True))
        await asyncio.sleep(120)
        assert house.running_names
        assert (house.state().revision, house.state().state) == (2, "updating")
        house.podman.down = False
        await house.until(lambda: house.state().state == "stopped")
        assert not house.running_names


# --- a clock that is set ---------------------------------------------------------------------------


def shared(house: House) -> App:
    lead = web(house, health=None)
    return demo(1, lead, replace(lead, name="side", networks=(), network_mode="service:web"))


@virtual
async def test_a_clock_that_is_set_back_restarts_nobody_who_shares_a_namespace(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        real = house.podman._now_ms
        house.podman._now_ms = lambda: real() + 3_600_000  # type: ignore[method-assign]
        await house.order(shared(house))
        await house.until_running(1)
        house.podman._now_ms = real  # type: ignore[method-assign]
        [name] = [name for name in house.podman.by_name if "side" in name]
        house.podman.end(name, 1)
        await asyncio.sleep(60)
        assert house.podman.by_name[name].starts == 2
        assert house.state().state == "running"


@virtual
async def test_a_clock_that_is_set_back_hides_no_namespace_that_was_lost(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(shared(house))
        await house.until_running(1)
        real = house.podman._now_ms
        house.podman._now_ms = lambda: real() - 3_600_000  # type: ignore[method-assign]
        [side] = [name for name in house.podman.by_name if "side" in name]
        [lead] = [name for name in house.podman.by_name if "side" not in name]
        house.podman.end(lead, 1)
        await asyncio.sleep(60)
        assert (house.podman.by_name[lead].starts, house.podman.by_name[side].starts) == (2, 2)


# --- images of others -------------------------------------------------------------------------------


@virtual
async def test_a_broken_image_that_the_agent_did_not_pull_is_left_to_its_owner(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        theirs = web(house).image
        house.podman.store(theirs)
        house.podman.break_image(theirs)
        await house.order(demo(1, web(house)))
        await house.until(lambda: house.is_known() and house.state().failure is not None)
        failure = house.state().failure
        assert failure is not None
        assert failure.code == "image"
        assert "podman rmi" in failure.hint
        assert not [call for call in house.podman.calls if call.startswith("remove_image")]
