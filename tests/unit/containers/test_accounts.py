"""Who counts what containers use is told of all of them; each has a cgroup of its own where that can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.wire.order import Service
from support.apphouse import BOARD, House
from support.appmodel import demo
from support.virtual import virtual


def web(house: House, tag: str = "1") -> Service:
    return Service("web", house.podman.publish("registry.example/web", tag=tag))


@virtual
async def test_each_look_tells_what_is_there(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        [run] = house.accounts[-1]
        assert (run.app, run.service, run.state, run.order) == ("demo", "web", "alive", 1)
        assert run.image == web(house).image
        await house.order()
        await house.until(lambda: not house.is_known())
        assert house.accounts[-1] == []


@pytest.mark.parametrize(("manager", "has_parent"), [("cgroupfs", True), ("systemd", False), ("", False)])
@virtual
async def test_a_container_gets_a_cgroup_of_its_own_above_unless_systemd_would_keep_it(
    tmp_path: Path, manager: str, has_parent: bool
) -> None:
    async with House.open(tmp_path) as house:
        house.podman.cgroup_manager = manager
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        [first] = house.accounts[-1]
        body = next(iter(house.podman.by_name.values())).body
        assert body.get("cgroup_parent", "") == (f"/lichen/{first.parent}" if has_parent else "")
        assert first.parent.startswith(f"{BOARD}_") == has_parent
        await house.order(demo(2, web(house, "2")))
        await house.until_running(2)
        [second] = house.accounts[-1]
        assert (second.parent != first.parent) == has_parent, "another container has another one"
