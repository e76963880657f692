"""What a person is told of an app: nothing that has not happened yet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.containers import report
from agent.wire.apps import Apps, AppState, Failure
from agent.wire.order import Service
from fakes.podman import Behaviour
from support.apphouse import House
from support.appmodel import CHECK, demo
from support.virtual import virtual

FAILED = AppState("demo", 2, 1, "updating", failure=Failure(2, 1, "waiting", "it ended", rolled_back_to=1))


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (FAILED, "it ended; it goes back to revision 1."),
        (replace(FAILED, state="running"), "it ended; revision 1 runs."),
        (replace(FAILED, state="degraded"), "it ended; revision 1 is back, and not all of it runs."),
    ],
)
def test_a_problem_says_how_far_going_back_is(app: AppState, words: str) -> None:
    [(code, name, sentence)] = report.troubles(Apps(3, (app,)), None)
    assert (code, name) == ("app-failed", "demo")
    assert sentence.endswith(words)


@virtual
async def test_an_app_goes_back_until_what_it_goes_back_to_is_ready(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        slow = Behaviour(healthy_after=4)
        one = Service("web", house.podman.publish("registry.example/web", slow), health=CHECK)
        two = Service("web", house.podman.publish("registry.example/web", Behaviour(exits=3), tag="2"))
        await house.order(demo(1, one))
        await house.until_running(1)
        await house.order(demo(2, two))
        await house.until(lambda: house.state().failure is not None)
        while house.state().state != "running":
            assert house.state().state == "updating"
            await asyncio.sleep(0.05)
        assert house.state().containers[0].health == "healthy"
        assert house.state().running == 1


@virtual
async def test_of_a_stopped_app_no_revision_runs(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        one = Service("web", house.podman.publish("registry.example/web"), health=CHECK)
        await house.order(demo(1, one))
        await house.until_running(1)
        await house.order(demo(2, one, stopped=True))
        await house.until(lambda: house.state().state == "stopped")
        assert house.state().running == 0
