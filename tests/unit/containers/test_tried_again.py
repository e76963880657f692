"""A revision that failed: what has it tried again, and what does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from agent.containers.engine import LABEL_APP, Login
from agent.wire import seal
from agent.wire.apps import Failure
from agent.wire.order import App, Mount, Service, Volume
from agent.wire.order import Login as WireLogin
from support.apphouse import SEAL, House
from support.appmodel import demo
from support.virtual import virtual


async def failure_of(house: House, revision: int) -> Failure:
    """Why a revision did not come up."""
    await house.until(lambda: house.is_known() and house.state().failure is not None)
    failure = house.state().failure
    assert failure is not None
    assert failure.revision == revision
    return failure


async def stays_failed(house: House, app: App) -> None:
    """The same revision in another order is not tried again."""
    calls = len(house.podman.calls)
    await house.order(app)
    await asyncio.sleep(600)
    assert house.report.generation == house.generation
    assert house.state().state == "failed"
    assert not [call for call in house.podman.calls[calls:] if call.startswith(("pull", "create"))]


@virtual
async def test_a_volume_that_was_missing_is_found_by_the_next_revision(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        image = house.podman.publish("registry.example/web")
        service = Service("web", image, mounts=(Mount("volume", "/data", "music"),))
        app = replace(demo(1, service), volumes=(Volume("music", external=True),))
        await house.order(app)
        failure = await failure_of(house, 1)
        assert failure.code == "volume"
        assert failure.hint.endswith("makes one; then deploy again")
        await house.podman.create_volume("music", {LABEL_APP: "demo"})
        await stays_failed(house, app)
        await house.order(replace(app, revision=2))
        await house.until_running(2)
        assert house.state().failure is None


@virtual
async def test_the_right_password_counts_from_the_next_revision(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        image = house.podman.publish("registry.example/web", login=Login("ada", "right"))

        def logins(password: str) -> tuple[WireLogin, ...]:
            box = seal.seal(SEAL.public, password.encode())
            return (WireLogin("registry.example", "ada", box),)

        app = demo(1, Service("web", image))
        await house.order(replace(app, logins=logins("wrong")))
        assert (await failure_of(house, 1)).code == "denied"
        await stays_failed(house, replace(app, logins=logins("right")))
        await house.order(replace(app, revision=2, logins=logins("right")))
        await house.until_running(2)
