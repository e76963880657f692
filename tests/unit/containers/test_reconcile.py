"""The reconciler over an engine in memory, in virtual time: what an operator sees, and what is done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.containers.engine import LABEL_APP, Login
from agent.wire import seal
from agent.wire.errors import Refused
from agent.wire.order import (
    App,
    Attachment,
    Config,
    Dependency,
    Given,
    Health,
    Limits,
    Mount,
    Network,
    Port,
    Restart,
    Secret,
    Service,
    Update,
)
from agent.wire.order import Login as WireLogin
from fakes.podman import Behaviour
from support.apphouse import SEAL, House
from support.appmodel import CHECK, demo
from support.virtual import virtual

START_FIRST: dict[str, Any] = {"update": Update(order="start-first"), "ports": (Port(80, 8080),)}
DATA = (Mount("volume", "/data", "demo_data"),)


def web(house: House, behaviour: Behaviour | None = None, tag: str = "1", **more: Any) -> Service:
    """A web service whose image is in the registry."""
    image = house.podman.publish("registry.example/web", behaviour, tag=tag)
    more = {"health": CHECK, "networks": (Attachment("demo_default"),), **more}
    return Service(more.pop("name", "web"), image, **more)


def sealed(text: bytes) -> str:
    return seal.seal(SEAL.public, text)


# --- coming up -----------------------------------------------------------------------------------


@virtual
async def test_an_app_comes_up_and_says_so(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        assert house.report.apps == ()
        await house.order(demo(1, web(house)))
        assert await house.until_running(1) < 2
        state = house.state()
        assert (state.revision, state.failure, len(state.containers)) == (1, None, 1)
        assert (state.containers[0].health, state.containers[0].revision) == ("healthy", 1)
        assert state.containers[0].image == web(house).image
        assert (house.report.generation, house.report.engine) == (1, "4.3.1")


@virtual
async def test_secrets_and_configs_arrive_in_the_container_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with House.open(tmp_path) as house:
        given = {
            "secrets": (Given("key", "/run/secrets/key", mode=0o400),),
            "configs": (Given("conf", "/etc/conf"), Given("mixed", "/etc/mixed")),
        }
        await house.order(
            demo(
                1,
                web(house, **given),
                secrets=(Secret("key", "v1", sealed(b"swordfish")),),
                configs=(Config("conf", "c1", "plain"), Config("mixed", "m1", box=sealed(b"half secret"))),
            )
        )
        await house.until_running(1)
        (container,) = house.podman.by_name.values()
        assert container.files == {
            "/run/secrets/key": b"swordfish",
            "/etc/conf": b"plain",
            "/etc/mixed": b"half secret",
        }
        assert "swordfish" not in caplog.text + str(house.report) + str(house.podman.calls)


@virtual
async def test_a_secret_for_another_board_is_the_failure_of_the_revision(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        box = seal.seal(seal.generate().public, b"x")
        app = demo(1, web(house, secrets=(Given("key", "/k"),)), secrets=(Secret("key", "v1", box),))
        await house.order(app)
        failure = await failed(house, 1)
        assert failure.code == "secret"
        assert not house.podman.by_name


@virtual
async def test_private_images_are_pulled_with_the_login_of_their_registry(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        image = house.podman.publish("registry.example/private", login=Login("me", "pass"))
        login = WireLogin("registry.example", "me", sealed(b"pass"))
        await house.order(demo(1, Service("web", image), logins=(login,)))
        await house.until_running(1)
        await house.order(demo(2, Service("web", image + "", restarted=1)))
        await house.until_running(2)  # it is there already


@virtual
async def test_two_apps_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.pull_s = 300
        slow = App("slow", 1, services=(Service("web", house.podman.publish("registry.example/big")),))
        await house.order(slow)
        await house.until(lambda: house.is_known("slow") and house.state("slow").progress)
        quick = house.podman.publish("registry.example/small")
        house.podman.store(quick)
        await house.order(slow, App("quick", 1, services=(Service("web", quick),)))
        assert await house.until_running(1, "quick") < 10
        assert house.state("slow").state == "updating"
        assert house.state("slow").step == "pulling the image of web"
        assert house.state("slow").progress.unit == "layers"


# --- updates -------------------------------------------------------------------------------------


@virtual
async def test_start_first_moves_traffic_before_the_old_one_stops(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, **START_FIRST)))
        await house.until_running(1)
        (old,) = house.running_names
        house.traffic.connections[old] = 2
        await house.order(demo(2, web(house, tag="2", **START_FIRST)))
        await house.until(lambda: house.traffic.log[-1:] and len(house.traffic.served_names) == 2)
        new = next(name for name in house.running_names if name != old)
        backends = next(iter(house.traffic.served.values()))
        assert (backends[old].drain, backends[new].drain) == (True, False)
        assert house.podman.resolve("demo_default", "web") == sorted(
            house.podman.by_name[name].addresses["demo_default"] for name in (old, new)
        )
        await asyncio.sleep(3)
        assert old in house.running_names  # its connections go on
        house.traffic.connections.clear()
        await house.until_running(2)
        assert house.running_names == [new]
        assert house.traffic.served_names == {new}
        assert all(backends for table in house.traffic.log[1:] for backends in table.values())


@virtual
async def test_who_stays_hears_from_the_board_whenever_one_comes_or_goes(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, **START_FIRST)))
        await house.until_running(1)
        (old,) = [each.addresses["demo_default"] for each in house.podman.by_name.values()]
        assert {old} in house.podman.greeted
        house.podman.greeted.clear()
        await house.order(demo(2, web(house, tag="2", **START_FIRST)))
        await house.until_running(2)
        (new,) = [each.addresses["demo_default"] for each in house.podman.by_name.values()]
        assert {old, new} in house.podman.greeted
        assert house.podman.greeted[-1] == {new}
        house.podman.greeted.clear()
        await asyncio.sleep(300)
        assert not house.podman.greeted


@virtual
async def test_nobody_finds_an_old_one_that_is_about_to_stop(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        other = web(house, name="ask")
        await house.order(demo(1, web(house, **START_FIRST), other))
        await house.until_running(1)
        old = next(name for name in house.running_names if "_web." in name)
        address = house.podman.by_name[old].addresses["demo_default"]
        house.traffic.connections[old] = 1
        await house.order(demo(2, web(house, tag="2", **START_FIRST), other))
        await house.until(lambda: f"leave demo_default {old}" in house.podman.calls)
        found = house.podman.resolve("demo_default", "web")
        assert len(found) == 1
        assert address not in found
        await asyncio.sleep(3)
        assert old in house.running_names  # who is connected stays so
        assert next(iter(house.traffic.served.values()))[old].drain
        house.traffic.connections.clear()
        await house.until_running(2)
        assert house.podman.calls.index(f"leave demo_default {old}") < house.podman.calls.index(f"stop {old}")


@virtual
async def test_an_agent_that_dies_while_one_leaves_has_it_serve_again_when_it_goes_back(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    async with house.running():
        await house.order(demo(1, web(house, **START_FIRST), web(house, name="db")))
        await house.until_running(1)
        old = next(name for name in house.running_names if "_web." in name)
        bad = web(house, Behaviour(healthy_after=None), tag="bad", name="db")
        await house.order(demo(2, web(house, tag="2", **START_FIRST), bad))
        await house.until(lambda: f"leave demo_default {old}" in house.podman.calls)
    await house.podman.disconnect("demo_default", old)  # as far as it had come
    async with house.running():
        await failed(house, 2)
        await house.until(lambda: house.state().state == "running" and not house.state().step)
        container = house.podman.by_name[old]
        assert house.podman.resolve("demo_default", "web") == [container.addresses["demo_default"]]
        assert house.traffic.served_names == {old}


@virtual
async def test_connections_that_never_end_are_cut_after_the_grace(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, stop_grace_ms=20_000, **START_FIRST)))
        await house.until_running(1)
        house.traffic.connections[house.running_names[0]] = 1
        await house.order(demo(2, web(house, tag="2", **START_FIRST)))
        assert 20 <= await house.until_running(2) < 25


@virtual
async def test_the_old_image_goes_once_the_new_one_is_good_and_nobodys_elses(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        theirs = house.podman.publish("registry.example/theirs")
        house.podman.store(theirs)
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        await house.order(demo(2, web(house, tag="2")))
        await house.until_running(2)
        await asyncio.sleep(1)
        names = {name for image in await house.podman.images() for name in image.names}
        assert names == {theirs, web(house, tag="2").image}


@virtual
async def test_two_orders_within_a_second_end_in_the_second(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.pull_s = 60
        await house.order(demo(1, web(house)))
        await asyncio.sleep(0.3)
        await house.order(demo(2, web(house, tag="2")))
        assert await house.until_running(2) < 70  # the first pull was not waited for
        assert all(name.startswith("demo_web.0") for name in house.running_names)
        assert len(house.podman.by_name) == 1


@virtual
async def test_an_app_that_goes_while_it_is_updated_leaves_nothing(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, **START_FIRST, mounts=()), secrets=()))
        await house.until_running(1)
        await house.order(demo(2, web(house, Behaviour(healthy_after=1000), tag="2", **START_FIRST)))
        await house.until(lambda: len(house.running_names) == 2)
        await house.order()
        await house.until(lambda: not house.is_known())
        await expect_nothing(house)


# --- failures ------------------------------------------------------------------------------------


async def failed(house: House, revision: int) -> Any:
    await house.until(lambda: house.is_known() and house.state().failure is not None)
    failure = house.state().failure
    assert failure.revision == revision
    return failure


@virtual
async def test_one_that_crashes_is_gone_back_from_with_its_code_and_its_last_words(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        good = house.running_names
        await house.order(demo(2, web(house, Behaviour(exits=3, says=("no such table",)), tag="2")))
        failure = await failed(house, 2)
        assert (failure.reason, failure.exit_code, failure.service) == ("web ended with 3, 3 times", 3, "web")
        assert failure.log.splitlines()[-1] == "no such table"
        assert (failure.code, failure.rolled_back_to) == ("exited", 1)
        await house.until(lambda: house.state().state == "running" and not house.state().step)
        assert (house.running_names, house.state().running, house.state().revision) == (good, 1, 2)
        calls = len(house.podman.calls)
        await asyncio.sleep(3600)
        assert not [c for c in house.podman.calls[calls:] if not c.startswith("remove_image")]
        await house.order(demo(3, web(house, tag="3")))
        await house.until_running(3)
        assert house.state().failure is None


@virtual
async def test_one_that_never_gets_healthy_is_gone_back_from(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, **START_FIRST)))
        await house.until_running(1)
        (old,) = house.running_names
        await house.order(demo(2, web(house, Behaviour(healthy_after=None), tag="2", **START_FIRST)))
        failure = await failed(house, 2)
        assert (failure.code, failure.reason) == ("unhealthy", "web is not healthy: not yet")
        await house.until(lambda: house.state().state == "running" and house.running_names == [old])
        assert all(old in backends for table in house.traffic.log[1:] for backends in table.values())


@virtual
async def test_a_first_version_that_fails_leaves_only_its_volumes(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, Behaviour(exits=1), mounts=DATA)))
        failure = await failed(house, 1)
        assert failure.rolled_back_to == 0
        await house.until(lambda: not house.podman.by_name and not house.state().step)
        assert (house.state().state, house.state().running) == ("failed", 0)
        assert [each.name for each in await house.podman.volumes()] == ["demo_data"]
        assert not await house.podman.networks()


@virtual
async def test_one_that_needs_too_much_memory_is_told_so(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, Behaviour(oom=True), limits=Limits(memory_bytes=1 << 20))))
        failure = await failed(house, 1)
        assert failure.code == "out-of-memory"
        assert "more memory than it may" in failure.reason


@virtual
async def test_an_end_that_podman_notices_late_is_known_soon_after(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, restart=Restart("none"))))
        await house.until_running(1)
        await asyncio.sleep(65)
        house.podman.unaware_s = 3
        house.podman.end(house.running_names[0], 3)
        passed_s = await house.until(lambda: house.state().containers[0].state == "ended")
        assert 3 <= passed_s < 6.5


@virtual
async def test_the_report_says_of_each_end_whether_it_was_for_memory(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, restart=Restart("none"))))
        await house.until_running(1)
        [name] = house.running_names
        for oom, code in ((True, 137), (False, 3)):
            house.podman.end(name, 3, oom=oom)
            await house.until(lambda: house.state().containers[0].state == "ended")
            [container] = house.state().containers
            assert (container.exit_code, container.oom) == (code, oom)
            await house.podman.start(name)
            house.reconciler.bell.set()
            await house.until_running(1)
            assert not house.state().containers[0].oom


@virtual
async def test_a_registry_that_is_down_is_asked_until_time_is_up(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.registry = "down"
        await house.order(demo(1, web(house)))
        await house.until(lambda: house.is_known() and "trying again" in house.state().step)
        assert "connection refused" in house.state().step
        failure = await failed(house, 1)
        assert failure.code == "timeout"
        assert "connection refused" in failure.reason


@virtual
async def test_a_registry_that_comes_back_in_time_is_enough(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.registry = "hangs"
        await house.order(demo(1, web(house)))
        await asyncio.sleep(150)
        house.podman.registry = "up"
        await house.until_running(1)
        assert house.state().failure is None


@virtual
async def test_a_pull_that_is_refused_is_the_failure(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.pull_error = "manifest unknown"
        await house.order(demo(1, web(house)))
        failure = await failed(house, 1)
        assert (failure.code, failure.step) == ("image", "pulling the image of web")
        assert "manifest unknown" in failure.reason


@virtual
async def test_a_pull_that_is_cut_is_begun_again(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.pull_error = "unexpected EOF"
        await house.order(demo(1, web(house)))
        await house.until(lambda: house.is_known() and house.state().step.startswith("trying again"))
        await house.until_running(1)


@virtual
async def test_a_disk_that_is_full_is_pruned_once_and_then_told(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        house.podman.free_bytes = 5
        await house.order(demo(2, web(house, tag="2")))
        failure = await failed(house, 2)
        assert failure.code == "no-space"
        await house.until(lambda: house.state().state == "running")


@virtual
async def test_an_image_that_is_larger_than_it_seemed_is_refused_when_it_is_there(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.policy.write_text("disk_bytes = 15_000_000\n")
        image = house.podman.publish("registry.example/web", size_bytes=20_000_000)
        await house.order(demo(1, Service("web", image, image_bytes=1_000_000)))
        failure = await failed(house, 1)
        assert (failure.code, failure.step) == ("policy", "pulling the image of web")
        assert "would take 20 MB" in failure.reason
        assert not [call for call in house.podman.calls if call.startswith("create")]


@virtual
async def test_an_image_for_another_machine_is_refused_before_anything_stops(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        other = house.podman.publish("registry.example/web", tag="amd", architecture="amd64")
        await house.order(demo(2, Service("web", other, networks=(Attachment("demo_default"),))))
        failure = await failed(house, 2)
        assert (failure.code, "amd64" in failure.reason) == ("architecture", True)
        assert not [call for call in house.podman.calls if call.startswith("stop")]


@virtual
async def test_a_port_that_another_app_has_is_refused_before_anything_stops(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        one = demo(1, web(house, ports=(Port(80, 58080),)))
        await house.order(one)
        await house.until_running(1)
        two = App("two", 1, services=(Service("web", web(house).image, ports=(Port(80, 58080),)),))
        await house.order(one, two)
        await house.until(lambda: house.is_known("two") and house.state("two").failure)
        assert house.state("two").failure.reason == "web: port 58080 is taken by the app demo"
        assert house.state("two").failure.step == "looking whether it can run here"


@virtual
async def test_a_start_that_is_refused_is_the_failure(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.taken.add(("tcp", 58081))
        await house.order(demo(1, web(house, ports=(Port(80, 58081),))))
        failure = await failed(house, 1)
        assert (failure.code, failure.service) == ("port-taken", "web")


@virtual
async def test_ports_that_cannot_be_published_are_the_failure(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.traffic.refusal = Refused("haproxy is not installed", code="haproxy-missing")
        await house.order(demo(1, web(house, **START_FIRST)))
        failure = await failed(house, 1)
        assert (failure.code, failure.step) == ("haproxy-missing", "publishing its ports")


@virtual
async def test_a_version_that_may_fail_is_kept(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        update = Update(on_failure="pause")
        await house.order(demo(1, web(house, update=update)))
        await house.until_running(1)
        await house.order(demo(2, web(house, Behaviour(exits=1), tag="2", update=update)))
        assert (await failed(house, 2)).rolled_back_to == 0
        await asyncio.sleep(600)
        assert (house.state().state, house.running_names) == ("failed", [])


# --- keeping it running --------------------------------------------------------------------------


@virtual
async def test_one_that_ends_is_started_again_ever_later(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        name = house.running_names[0]
        pauses = []
        for _ in range(4):
            house.podman.end(name, 1)
            await house.until(lambda: house.state().state == "degraded")
            assert house.state().step == "starting web again"
            assert house.state().containers[0].next_restart_ms
            pauses.append(round(await house.until(lambda: house.running_names == [name])))
        assert pauses == [5, 10, 20, 40]
        await house.until(lambda: house.state().state == "running")
        await asyncio.sleep(400)  # well for a while
        house.podman.end(name, 1)
        await asyncio.sleep(0.1)
        assert 4 < await house.until(lambda: house.running_names == [name]) < 6


@virtual
async def test_the_policy_says_how_long_one_must_run_to_count_as_up(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, restart=Restart(window_ms=60_000))))
        await house.until_running(1)
        name = house.running_names[0]

        async def end() -> int:
            house.podman.end(name, 1)
            return round(await house.until(lambda: house.running_names == [name]))

        assert [await end(), await end(), await end()] == [5, 10, 20]
        await asyncio.sleep(50)
        assert house.state().containers[0].restarts == 3
        await asyncio.sleep(70)
        assert house.state().containers[0].restarts == 0
        assert [await end(), await end()] == [5, 10]


@virtual
async def test_one_that_gets_ill_is_started_again(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        (container,) = house.podman.by_name.values()
        starts = container.starts
        container.checks, container.behaviour = 0, Behaviour(healthy_after=4)
        await house.until(lambda: house.state().state == "degraded")
        await house.until(lambda: container.starts == starts + 1 and house.state().state == "running")
        assert house.state().containers[0].restarts == 1


@virtual
async def test_dependencies_hold_at_each_start(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        slow = web(house, Behaviour(healthy_after=4), tag="db", name="db")
        job = web(house, Behaviour(exits=0, after_s=2), tag="job", name="init", health=None)
        first = web(house, depends_on=(Dependency("db", "healthy"), Dependency("init", "completed")))
        await house.order(demo(1, first, job, slow))
        await house.until_running(1)
        starts = [call.split(".")[0] for call in house.podman.calls if call.startswith("start")]
        assert starts[-1] == "start demo_web"
        assert {each.service: each.state for each in house.state().containers} == {
            "db": "running",
            "init": "ended",
            "web": "running",
        }


@virtual
async def test_after_a_reboot_without_a_network_everything_starts_from_the_stored_order(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    async with house.running():
        first = web(house, depends_on=(Dependency("db", "healthy"),), restart=Restart("none"))
        await house.order(demo(1, first, web(house, tag="db", name="db")))
        await house.until_running(1)
    house.podman.cut_power()
    house.boot = "c" * 32
    house.podman.registry = "down"
    house.podman.calls.clear()
    async with house.running():
        await house.until(lambda: len(house.running_names) == 2)
        await house.until(lambda: house.state().state == "running")
    calls = [call.split(".")[0] for call in house.podman.calls]
    assert calls == ["init demo_db", "start demo_db", "init demo_web", "start demo_web"]


@virtual
async def test_an_agent_that_starts_again_adopts_what_runs(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.running():
        await house.order(demo(1, web(house, **START_FIRST)))
        await house.until_running(1)
    house.podman.calls.clear()
    tables = len(house.traffic.log)
    async with house.running():
        await house.until(lambda: house.is_known() and house.state().containers)
        assert (house.state().state, house.state().containers[0].health) == ("running", "healthy")
        await asyncio.sleep(120)
    assert house.podman.calls == []
    assert len(house.traffic.log) == tables


@virtual
async def test_what_was_ordered_while_the_database_was_lost_is_recognised(tmp_path: Path) -> None:
    house = House(tmp_path)
    app = demo(1, web(house))
    async with house.running():
        await house.order(app)
        await house.until_running(1)
    (tmp_path / "apps.db").unlink()
    house.podman.calls.clear()
    async with house.running():
        await asyncio.sleep(60)
        assert house.podman.calls == []  # nobody has said that anything should go
        await house.order(app)
        await house.until_running(1)
    assert house.podman.calls == []


@virtual
async def test_half_removed_containers_and_torn_images_are_mended(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        name = house.running_names[0]
        house.podman.break_container(name)
        house.podman.break_image(house.podman.by_name[name].body["image"])
        house.reconciler.bell.set()
        await house.until(lambda: house.running_names == [name] and house.state().state == "running")
        assert any(call.startswith("pull") for call in house.podman.calls[-8:])


@virtual
async def test_podman_that_goes_away_in_mid_call_is_asked_again(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.drops = 6
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        house.podman.down = True
        await asyncio.sleep(120)
        assert (house.reconciler.fault.code, house.report.engine) == ("podman-down", "")
        house.podman.down = False
        await house.until(lambda: house.report.engine)
        assert house.reconciler.fault is None


@virtual
async def test_podman_that_is_not_installed_is_told_and_looked_for(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.missing = True
        await house.order(demo(1, web(house)))
        await house.until(lambda: house.reconciler.fault)
        assert house.reconciler.fault.code == "podman-missing"
        assert house.report.generation == 1
        house.podman.missing = False
        assert await house.until_running(1) < 65


@virtual
async def test_checks_that_take_their_time_are_run_in_time_all_the_same(tmp_path: Path) -> None:
    check = Health(("CMD", "healthy"), interval_ms=10_000)
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, Behaviour(healthy_after=3, check_s=0.1), health=check)))
        assert await house.until_running(1) < 6
        (container,) = house.podman.by_name.values()
        before = container.checks
        await asyncio.sleep(300)
        assert container.checks - before == 30


@virtual
async def test_a_quiet_board_is_quiet(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house, health=CHECK)))
        await house.until_running(1)
        await asyncio.sleep(300)
        loop: Any = asyncio.get_running_loop()
        wakeups = loop.wakeups
        await asyncio.sleep(3600)
        assert loop.wakeups - wakeups <= 60 + 120 + 1  # a look each minute, a check each half


# --- stopping and going --------------------------------------------------------------------------


async def expect_nothing(house: House) -> None:
    assert not house.podman.by_name
    assert not await house.podman.networks()
    assert not await house.podman.secrets()
    assert not house.traffic.served
    await asyncio.sleep(1)
    assert not await house.podman.images()


@virtual
async def test_an_app_that_goes_leaves_nothing_but_its_volumes(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        secret = Secret("key", "v1", sealed(b"x"))
        more = {**START_FIRST, "secrets": (Given("key", "/k"),), "mounts": DATA}
        await house.order(demo(1, web(house, **more), secrets=(secret,)))
        await house.until_running(1)
        await house.order()
        await house.until(lambda: not house.is_known())
        await expect_nothing(house)
        assert [each.name for each in await house.podman.volumes()] == ["demo_data"]
        assert house.memory.apps == []


@virtual
async def test_an_app_of_three_that_take_their_time_goes_in_that_time(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        slow = Behaviour(ignores_stop=True)
        services = [web(house, slow, name=name) for name in ("one", "two", "three")]
        await house.order(demo(1, *services))
        await house.until_running(1)
        await house.order()
        await house.until(lambda: house.state().step.count(",") == 2)
        assert await house.until(lambda: not house.is_known()) < 12
        await expect_nothing(house)


@virtual
async def test_one_that_does_not_stop_keeps_no_other_running(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        services = [web(house, name=name) for name in ("one", "two")]
        await house.order(demo(1, *services))
        await house.until_running(1)
        names = house.running_names

        def strike(call: str) -> None:
            if call == f"stop {names[0]}":
                house.podman.after_call = None
                raise Refused("Podman says no", code="engine")

        house.podman.after_call = strike
        await house.order()
        await house.until(lambda: house.is_known() and "Podman says no" in house.state().step)
        assert house.podman.calls[-2:] == [f"stop {name}" for name in names]
        assert house.running_names == []
        await house.until(lambda: not house.is_known())
        await expect_nothing(house)


@virtual
async def test_volumes_go_only_by_a_clock_that_is_right(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.running():
        await house.order(demo(1, web(house, mounts=DATA)))
        await house.until_running(1)
    house.clock_state = "unsynced"
    async with house.running():
        await house.order(App("demo", 2, purge=True))
        await house.until(lambda: house.is_known() and "clock" in house.state().step)
        assert (house.state().state, house.podman.by_name) == ("removing", {})
        assert len(await house.podman.volumes()) == 1
        house.clock_state = "synced"
        await house.until(lambda: not house.is_known())
        assert not await house.podman.volumes()


@virtual
async def test_a_stopped_app_stays_stopped_and_starts_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.running():
        services = web(house), web(house, name="db")
        await house.order(demo(1, *services))
        await house.until_running(1)
        await house.order(demo(2, *services, stopped=True))
        await house.until(lambda: house.state().state == "stopped")
        assert [each.state for each in house.state().containers] == ["stopped", "stopped"]
    async with house.running():
        await asyncio.sleep(120)
        assert house.running_names == []
        await house.order(demo(3, *services))
        await house.until_running(3)


@virtual
async def test_a_shared_network_goes_with_the_last_app_on_it(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:

        def on_it(name: str) -> App:
            shared = (Network("proxy", shared=True),)
            service = Service("web", web(house).image, networks=(Attachment("proxy"),))
            return App(name, 1, services=(service,), networks=shared)

        await house.order(on_it("one"), on_it("two"))
        await house.until_running(1, "one")
        await house.until_running(1, "two")
        await house.order(on_it("two"))
        await house.until(lambda: not house.is_known("one"))
        assert [each.name for each in await house.podman.networks()] == ["proxy"]
        await house.order()
        await house.until(lambda: not house.is_known("two"))
        assert not await house.podman.networks()


@virtual
async def test_nothing_starts_on_a_network_that_podman_still_takes_another_app_off(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        shared = (Network("proxy", shared=True),)

        def on_it(name: str, revision: int = 1, network: str = "proxy") -> App:
            service = Service("web", web(house).image, networks=(Attachment(network),), restarted=revision)
            mine = shared if network == "proxy" else (Network(network),)
            return App(name, revision, services=(service,), networks=mine)

        apps = on_it("one"), on_it("two"), on_it("far", network="far")
        await house.order(*apps)
        for app in apps:
            await house.until_running(1, app.name)
        house.podman.ending_s = 3
        house.podman.end(next(name for name in house.running_names if name.startswith("one")), 1)
        await house.order(apps[0], on_it("two", 2), on_it("far", 2, "far"))
        await house.until(lambda: "waiting for the end of one_web" in house.state("two").step)
        await house.until(lambda: any(call.startswith("stop far") for call in house.podman.calls))
        assert not any(call.startswith("stop two") for call in house.podman.calls)
        for app in apps[1:]:
            await house.until_running(2, app.name)


@virtual
async def test_what_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        theirs = house.podman.publish("registry.example/theirs")
        house.podman.store(theirs)
        await house.podman.create_network("demo_default", {})
        await house.podman.create_volume("demo_data", {})
        await house.podman.create({"name": "theirs", "image": theirs, "labels": {}})
        await house.order(demo(1, web(house, mounts=DATA)))
        failure = await failed(house, 1)
        assert (failure.code, "`external`" in failure.hint) == ("policy", True)
        house.policy.write_text('external = ["demo_data", "demo_default"]')
        await house.order(demo(2, web(house, mounts=DATA)))
        await house.until_running(2)
        await house.order(App("demo", 3, purge=True))
        await house.until(lambda: not house.is_known())
        assert list(house.podman.by_name) == ["theirs"]
        assert [each.name for each in await house.podman.networks()] == ["demo_default"]
        assert [each.name for each in await house.podman.volumes()] == ["demo_data"]
        assert LABEL_APP not in house.podman.by_name["theirs"].labels


@virtual
async def test_secrets_of_two_apps_never_share_a_name(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        apps = [
            App(
                name,
                1,
                services=(web(house, networks=(), secrets=(Given(secret, "/key"),)),),
                secrets=(Secret(secret, "v1", sealed(name.encode())),),
            )
            for name, secret in (("a", "b_c"), ("a_b", "c"))
        ]
        await house.order(*apps)
        await house.until(lambda: [each.state for each in house.report.apps] == ["running"] * 2)
        assert sorted(each.files["/key"] for each in house.podman.by_name.values()) == [b"a", b"a_b"]


@virtual
async def test_a_secret_of_somebody_else_is_neither_used_nor_asked_for_without_end(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.podman.create_secret("demo.key.v1", b"theirs", {})
        service = web(house, secrets=(Given("key", "/key"),))
        await house.order(demo(1, service, secrets=(Secret("key", "v1", sealed(b"ours")),)))
        failure = await failed(house, 1)
        assert (failure.code, failure.step) == ("name-taken", "making key")
        assert house.podman.calls.count("create_secret demo.key.v1") <= 2


@virtual
async def test_a_link_that_an_app_makes_on_the_board_leads_it_nowhere(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shown = data / "shown"
    shown.mkdir(parents=True)
    async with House.open(tmp_path) as house:
        house.policy.write_text(f'binds = ["{data}"]')
        mounts = (Mount("bind", "/d", str(shown)),)
        await house.order(demo(1, web(house, mounts=mounts)))
        await house.until_running(1)
        shown.rmdir()
        shown.symlink_to("/")
        await house.order(demo(2, web(house, tag="2", mounts=mounts)))
        failure = await failed(house, 2)
        assert (failure.code, failure.step) == ("policy", "looking whether it can run here")
        assert f"the board's path /, to which {shown} leads" in failure.reason
        # It is not started again with it either, and comes up when the link leads to where it may.
        house.podman.end(house.running_names[0], 1)
        await house.until(lambda: "to which" in house.state().step)
        assert house.running_names == []
        shown.unlink()
        (data / "real").mkdir()
        shown.symlink_to(data / "real")
        await house.until(lambda: len(house.running_names) == 1)


@virtual
async def test_a_policy_that_is_too_long_lets_nothing_new_in(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        old = house.running_names
        house.policy.write_text("privileged = true\n" + "#" * 70_000 + "\nregistries = []\n")
        await house.order(demo(2, web(house, tag="2")))
        await house.until(lambda: house.state().state == "waiting")
        assert "policy.toml is over 64 KiB" in house.state().step
        assert house.running_names == old


@virtual
async def test_labels_that_somebody_wrote_by_hand_publish_nothing(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        theirs = house.podman.publish("registry.example/theirs")
        house.podman.store(theirs)
        labels = {LABEL_APP: "demo", "lichen.service": "web"}
        labels |= {"lichen.direct": "x", "lichen.proxied": "garbage"}
        await house.podman.create({"name": "theirs", "image": theirs, "labels": labels})
        await house.podman.start("theirs")
        await house.order(demo(1, web(house)))
        await house.until_running(1)


# --- what has to be waited for -------------------------------------------------------------------


@virtual
async def test_while_somebody_works_on_the_board_nothing_changes(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    async with House.open(tmp_path) as house:
        house.policy.write_text(f'lock_file = "{lock}"')
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        lock.touch()
        old = house.running_names
        await house.order(demo(2, web(house, tag="2")))
        await house.until(lambda: house.state().state == "waiting")
        assert house.state().step == f"waits until {lock} is removed"
        house.podman.end(old[0], 1)
        await house.until(lambda: house.running_names == old and house.state().containers[0].restarts)
        await house.order()
        await asyncio.sleep(120)
        assert house.running_names == old
        lock.unlink()
        await house.until(lambda: not house.is_known())


@virtual
async def test_what_the_policy_refuses_is_told_and_changes_nothing_until_it_allows_it(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        calls = list(house.podman.calls)
        await house.order(demo(2, web(house, cap_add=("NET_ADMIN",))))
        failure = await failed(house, 2)
        assert failure.reason == "this board's policy does not allow web to have the capability NET_ADMIN"
        assert (failure.code, failure.rolled_back_to, house.state().state) == ("policy", 1, "running")
        await asyncio.sleep(300)
        assert house.state().failure == failure
        assert house.podman.calls == calls
        house.policy.write_text('capabilities = ["NET_ADMIN"]')
        await house.until_running(2)


@virtual
async def test_a_policy_that_cannot_be_read_lets_nothing_in(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.policy.write_text("privileged = maybe")
        await house.order(demo(1, web(house)))
        await house.until(lambda: house.is_known() and house.state().state == "waiting")
        assert "policy" in house.state().step
        house.policy.unlink()
        await house.until_running(1)


@virtual
async def test_an_app_waits_for_the_memory_that_it_reserves(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.memory_bytes = 1 << 50
        limits = Limits(reserve_memory_bytes=1 << 45)
        await house.order(demo(1, web(house, limits=limits)))
        await house.until(lambda: house.is_known() and house.state().state == "waiting")
        assert house.state().step.startswith("waits for memory")
        await house.order(demo(2, web(house)))
        await house.until_running(2)


@virtual
async def test_an_engine_that_cannot_limit_memory_says_so_before_anything_stops(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        house.podman.memory_limits = False
        await house.order(demo(1, web(house, limits=Limits(memory_bytes=1 << 26))))
        failure = await failed(house, 1)
        assert failure.code == "memory-cgroup-off"
        assert "cgroup_enable=memory" in failure.hint


@virtual
async def test_changes_are_told_and_figures_only_each_minute(tmp_path: Path) -> None:
    async with House.open(tmp_path) as house:
        await house.order(demo(1, web(house)))
        await house.until_running(1)
        await asyncio.sleep(1)
        changed = house.told
        changed.clear()
        house.reconciler.bell.set()
        await asyncio.sleep(1)
        assert not changed.is_set()
        house.podman.end(house.running_names[0], 1)
        await asyncio.sleep(0.1)
        assert changed.is_set()
