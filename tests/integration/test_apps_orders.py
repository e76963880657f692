"""Deploying over a broker in memory, with a real registry: what boards get, and what they say of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest

from agent.wire.errors import Busy, Refused
from agent.wire.words import SPACE
from hub.access.vault import Vault
from hub.apps.changes import Changes
from hub.apps.deploy import Deploy
from hub.apps.orders import Orders
from hub.store.apps import list_revisions, read_differences
from hub.store.database import Tx
from hub.store.placements import placements_of, results_of
from support.apps import AppsHub, failed, push_image, recipe, running, updating
from support.registry import Registry, registry


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def image(shop: Registry) -> str:
    return push_image(shop, "demo", "1", "arm64", "amd64")


@pytest.fixture
async def hub(tmp_path: Path, shop: Registry) -> AsyncIterator[AppsHub]:
    async with AppsHub.open(tmp_path, shop) as hub:
        yield hub


# --- what a board gets ---------------------------------------------------------------------------


async def test_a_board_gets_a_whole_signed_order(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    made = await hub.deploy(files=recipe(image), boards=["pump"], message="first try")
    assert (made.revision, made.generated) == (1, ("password",))
    app = await pump.app(1)
    [web] = app.services
    assert web.image.startswith(f"{hub.registry.address}/demo@sha256:")
    assert (web.written, app.revision, app.version) == (image, 1, "1.2")
    password = pump.unsealed(app)["password"]
    assert len(password) == 20
    assert set(password) <= set("0123456789abcdef")
    configs = {each.name: each for each in app.configs}
    assert configs["plain"].content == "nothing to hide\n"
    assert configs["private"].content == ""
    assert pump.unsealed(app)["private"] == f"password={password} for hello\n"
    assert all(password.encode() not in text for text in pump.notes)
    database = (hub.folder / "hub.db").read_bytes() + (hub.folder / "hub.db-wal").read_bytes()
    assert password.encode() not in database
    assert "app-deploy ada: deployed demo 1.2 on pump (revision 1): first try" in await hub.events()


async def test_each_board_gets_the_build_for_its_machine(hub: AppsHub, image: str) -> None:
    arm, intel = await hub.add_board("arm"), await hub.add_board("intel", arch="x86_64")
    await hub.deploy(files=recipe(image), boards=["arm", "intel"])
    [first], [second] = (await arm.app(1)).services, (await intel.app(1)).services
    assert first.image != second.image
    # A board that has it not yet can tell whether there is room, also when no registry is asked any more.
    assert min(first.image_bytes, second.image_bytes) > 1000
    await arm.report(running("demo", 1))
    await intel.report(running("demo", 1))
    await hub.desk.deploy.restart("demo", "ada")
    [again] = (await arm.app(2)).services
    assert (again.image, again.image_bytes) == (first.image, first.image_bytes)
    # Each could read its own box only, and both have the same secret.
    assert arm.unsealed(await arm.app(1)) == intel.unsealed(await intel.app(1))


async def test_secrets_keep_their_version_until_they_change(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    await hub.deploy(set={"GREETING": "hi"})
    first, second = await pump.app(1), await pump.app(2)
    assert first.secrets[0].version == second.secrets[0].version
    assert first.secrets[0].box != second.secrets[0].box
    versions = [{each.name: each.version for each in app.configs} for app in (first, second)]
    assert versions[0]["plain"] == versions[1]["plain"]
    assert versions[0]["private"] != versions[1]["private"], "the greeting in it has changed"
    await pump.report(running("demo", 2))
    await hub.desk.secrets.set("demo", "password", "v1", "of my choice", "ada")
    await hub.desk.deploy.restart("demo", "ada")
    third = await pump.app(3)
    assert pump.unsealed(third)["password"] == "of my choice"
    assert third.secrets[0].version != second.secrets[0].version


async def test_another_version_of_a_secret_is_another_secret(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    old = pump.unsealed(await pump.app(1))["password"]
    await pump.report(running("demo", 1))
    made = await hub.deploy(set={"SECRET_PASSWORD_VERSION": "v2"})
    assert made.generated == ("password",)
    assert pump.unsealed(await pump.app(2))["password"] != old
    await pump.report(running("demo", 2))
    await hub.desk.deploy.rollback("demo", "ada")
    assert pump.unsealed(await pump.app(3))["password"] == old


async def test_a_secret_that_is_not_to_be_made_up_is_asked_for(hub: AppsHub, image: str) -> None:
    await hub.add_board("pump")
    sample = "GREETING=hello\nSECRET_PASSWORD_VERSION=v1  # generate=false\n"
    files = recipe(image, **{".env.sample": sample})
    with pytest.raises(Refused, match=r"demo needs a value for password \(v1\)"):
        await hub.deploy(files=files, boards=["pump"])
    async with hub.store.read() as tx:
        assert await list_revisions(tx, "demo") == []
    await hub.desk.secrets.set("demo", "password", "v1", "s3cret", "ada")
    assert (await hub.deploy(files=files, boards=["pump"])).generated == ()


async def test_a_new_password_at_a_registry_reaches_the_boards_that_pull_there(
    hub: AppsHub, image: str
) -> None:
    pump, roof = await hub.add_board("pump"), await hub.add_board("roof")
    await hub.deploy(files=recipe(image), boards=["pump"])
    assert (await pump.app(1)).logins == ()
    for generation, password in ((2, "first"), (3, "second")):
        await hub.desk.logins.set(hub.registry.address, "me", password, "ada")
        [login] = (await pump.app(generation)).logins
        assert (login.registry, login.user) == (hub.registry.address, "me")
        assert pump.key.unseal(login.box).decode() == password
    await hub.desk.logins.set("elsewhere.example", "me", "x", "ada")
    await hub.desk.logins.remove(hub.registry.address, "ada")
    assert (await pump.app(4)).logins == ()
    assert roof.notes == []


async def test_all_apps_of_a_board_are_in_its_order(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy("one", recipe(image), boards=["pump"])
    await hub.deploy(
        "two", recipe(image).copy() | {"compose.yml": recipe(image)["compose.yml"]}, boards=["pump"]
    )
    assert [app.name for app in (await pump.order(2)).apps] == ["one", "two"]
    await pump.report(running("one", 1), running("two", 1))
    await hub.desk.deploy.undeploy("one", "ada")
    assert [app.name for app in (await pump.order(3)).apps] == ["two"]


# --- refused before anything is touched ------------------------------------------------------------


async def test_what_is_in_the_way_is_named_and_nothing_is_touched(hub: AppsHub, image: str) -> None:
    await hub.add_board("pump")
    await hub.add_board("old", arch="armv7l")
    await hub.add_board("odd", arch="sparc64", online=False)
    await hub.add_board("mute", arch="", online=False)
    files = recipe(image)
    with pytest.raises(Refused, match=r"has no build for old \(armv7l\); there are: amd64, arm64"):
        await hub.deploy(files=files, boards=["pump", "old"])
    with pytest.raises(Refused, match="'sparc64'"):
        await hub.deploy(files=files, boards=["odd"])
    with pytest.raises(Refused, match="mute has not said yet what it is"):
        await hub.deploy(files=files, boards=["mute"])
    with pytest.raises(Refused, match="on which board"):
        await hub.deploy(files=files)
    placed = files["compose.yml"] + "x-lichen:\n  placement: {site: north}\n"
    with pytest.raises(Refused, match="pump has no label site, and the recipe asks for site=north"):
        await hub.deploy(files=files | {"compose.yml": placed}, boards=["pump"])
    hungry = files["compose.yml"].replace(
        "    deploy:\n", "    deploy:\n      resources: {reservations: {memory: 3G}}\n"
    )
    with pytest.raises(Refused, match=r"pump has 2\.00.GB of memory, and the app reserves"):
        await hub.deploy(files=files | {"compose.yml": hungry}, boards=["pump"])
    async with hub.store.read() as tx:
        assert await list_revisions(tx, "demo") == []


async def test_boards_are_chosen_by_labels(hub: AppsHub, image: str) -> None:
    for name, site in (("a", "north"), ("b", "south"), ("c", "north")):
        await hub.add_board(name, labels={"site": site})
    await hub.deploy(files=recipe(image), labels={"site": "north"})
    assert list(await hub.states()) == ["a", "c"]
    with pytest.raises(Refused, match="no board has the labels site=west"):
        await hub.deploy("other", recipe(image), labels={"site": "west"})


async def test_an_order_that_would_be_too_large_is_refused(hub: AppsHub, image: str) -> None:
    await hub.add_board("pump")
    with pytest.raises(Refused, match=r"the order of pump has .* bytes with this, and may have 262,144"):
        await hub.deploy(files=recipe(image, **{"plain.txt": "x" * 300_000}), boards=["pump"])
    async with hub.store.read() as tx:
        assert await list_revisions(tx, "demo") == []


# --- what boards say -------------------------------------------------------------------------------


async def test_a_change_is_over_when_every_board_has_said_how_it_ended(hub: AppsHub, image: str) -> None:
    a, b = await hub.add_board("a"), await hub.add_board("b")
    await hub.deploy(files=recipe(image), boards=["a", "b"])
    await a.order(1), await b.order(1)
    assert await hub.states() == {"a": "sent", "b": "sent"}
    await a.report(updating("demo", 1))
    assert (await hub.states())["a"] == "updating"
    await a.report(running("demo", 1))
    picture = await hub.picture()
    assert (picture.is_over, picture.state) == (False, "sent")
    await b.report(failed("demo", 1))
    picture = await hub.picture()
    assert (picture.is_over, picture.has_failed, picture.state) == (True, True, "failed")
    assert "b: web never got healthy; nothing of it runs" in picture.sentence
    said = [line for line in await hub.events() if " board: revision 1 of demo" in line]
    assert said == [
        "app-running board: revision 1 of demo runs",
        "app-failed board: revision 1 of demo failed: web never got healthy; nothing of it runs",
    ]
    await b.report(failed("demo", 1))
    assert len([line for line in await hub.events() if " board: revision 1 of " in line]) == 2, "said once"


async def test_a_board_that_refuses_its_order_says_why(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(generation=0, refused=1, reason="the registry is not allowed", hint="ask its owner")
    [place] = (await hub.picture()).boards
    assert (place.state, place.sentence, place.hint) == (
        "refused",
        "the registry is not allowed",
        "ask its owner",
    )
    # It may change its mind: its owner has changed the policy.
    await pump.report(running("demo", 1), generation=1)
    assert await hub.states() == {"pump": "running"}


async def test_the_next_change_starts_from_what_did_not_fail(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    await hub.deploy(set={"GREETING": "broken"})
    await pump.order(2)
    await pump.report(failed("demo", 2, back_to=1))
    picture = await hub.picture()
    assert (picture.state, picture.boards[0].running) == ("failed", 1)
    assert "rolled back to revision 1, which runs" in picture.sentence
    await hub.desk.deploy.scale("demo", {"web": 0}, "bob")
    [web] = (await pump.app(3)).services
    assert (web.environment["GREETING"], web.replicas) == ("hello", 0)
    await pump.report(running("demo", 3))
    await hub.desk.deploy.restart("demo", "bob", services=["web"])
    [web] = (await pump.app(4)).services
    assert (web.replicas, web.restarted) == (0, 1)


async def test_what_has_failed_is_tried_again_only_when_somebody_says_so(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    await hub.deploy(set={"GREETING": "hi"})
    wanted = await pump.app(2)
    await pump.report(failed("demo", 2, back_to=1, reason="the registry wants another login"))
    # A new login is in the next order, which asks for nothing that failed: a board leaves that alone.
    await hub.desk.logins.set(hub.registry.address, "me", "right", "ada")
    assert (await pump.app(3)).revision == 2
    assert (await hub.picture()).has_failed
    await hub.deploy(set={"GREETING": "hi"})  # the same words
    again = await pump.app(4)
    assert (again.revision, again.services) == (3, wanted.services)
    assert [login.registry for login in again.logins] == [hub.registry.address]
    await pump.report(failed("demo", 3, back_to=1))
    await hub.desk.deploy.rollback("demo", "ada", to=3)  # they are forgotten
    again = await pump.app(5)
    assert (again.revision, again.services) == (4, wanted.services)


async def test_stop_start_and_their_history(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    with pytest.raises(Refused, match="demo is started already"):
        await hub.desk.deploy.start("demo", "ada")
    await hub.desk.deploy.stop("demo", "ada", message="for the winter")
    assert (await pump.app(2)).stopped
    await pump.report(running("demo", 2, running=0, state="stopped"))
    assert await hub.states() == {"pump": "stopped"}
    await hub.desk.deploy.start("demo", "bob")
    assert not (await pump.app(3)).stopped
    async with hub.store.read() as tx:
        rows = await list_revisions(tx, "demo")
        new = await read_differences(tx, "demo", [1, 3])
    assert [(row.number, row.author, row.action, row.message) for row in rows] == [
        (3, "bob", "start", ""),
        (2, "ada", "stop", "for the winter"),
        (1, "ada", "deploy", ""),
    ]
    assert new[3] == ("- stopped=yes",)
    assert "+ GREETING=hello" in new[1]
    assert "+ board pump" in new[1]


async def test_scaling_what_is_not_there_and_what_cannot_be(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    udp = recipe(image)["compose.yml"].replace('"8080:80"', '"5353:53/udp"')
    await hub.deploy(files=recipe(image) | {"compose.yml": udp}, boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    with pytest.raises(Refused, match="demo has no service 'wob'"):
        await hub.desk.deploy.scale("demo", {"wob": 2}, "ada")
    with pytest.raises(Refused, match="0 to 64"):
        await hub.desk.deploy.scale("demo", {"web": 65}, "ada")
    with pytest.raises(Refused, match="web publishes 5353/udp"):
        await hub.desk.deploy.scale("demo", {"web": 2}, "ada")


# --- going -----------------------------------------------------------------------------------------


async def test_an_app_goes_and_its_volumes_stay_unless_somebody_says_so(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    await hub.desk.deploy.undeploy("demo", "ada")
    assert (await pump.order(2)).apps == ()
    assert await hub.states() == {"pump": "sent"}
    await pump.report(running("demo", 1, state="removing"))
    assert await hub.states() == {"pump": "removing"}
    await pump.report()
    picture = await hub.picture()
    assert (picture.state, picture.is_over) == ("gone", True)
    with pytest.raises(Refused, match="demo is on no board"):
        await hub.desk.deploy.undeploy("demo", "ada")
    # Afterwards, too.
    await hub.desk.deploy.undeploy("demo", "ada", volumes=True)
    app = await pump.app(3)
    assert (app.purge, app.services) == (True, ())
    await pump.report()
    assert (await pump.order(4)).apps == (), "it leaves the order when the board has done it"
    # And one of that name may come again, with a number that no board has seen.
    assert (await hub.deploy(files=recipe(image), boards=["pump"])).revision == 4
    assert (await pump.app(5)).revision == 4


class Full(Orders):
    """Orders with no room for anything more."""

    async def renew(self, tx: Tx, ids: Collection[str]) -> None:
        raise Refused("the order has too many bytes with this", code="too-large")


async def nobody_waits() -> None:
    """Nobody has to be told of keys."""


async def test_volumes_of_an_app_that_is_gone_are_asked_for_wholly_or_not_at_all(
    hub: AppsHub, image: str
) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    await hub.desk.deploy.undeploy("demo", "ada")
    await pump.order(2)
    await pump.report()

    desk, vault = hub.desk, Vault(bytes(32))
    full = Full(hub.store, hub.keys, vault, hub.now_ms, announced=nobody_waits)
    manifests = desk.changes.manifests
    changes = Changes(hub.store, manifests, desk.secrets, full, desk.reports, vault, hub.now_ms)
    with pytest.raises(Refused, match="too many bytes"):
        await Deploy(hub.store, changes).undeploy("demo", "ada", volumes=True)
    async with hub.store.read() as tx:
        assert await placements_of(tx) == []
    assert (await hub.picture()).state == "gone"
    await hub.desk.deploy.undeploy("demo", "ada", volumes=True)
    assert (await pump.app(3)).purge


async def test_what_was_to_be_purged_still_is(hub: AppsHub, image: str) -> None:
    a, b = await hub.add_board("a"), await hub.add_board("b")
    await hub.deploy(files=recipe(image), boards=["a", "b"])
    for board in (a, b):
        await board.order(1)
        await board.report(running("demo", 1))
    await b.go()
    await hub.desk.deploy.undeploy("demo", "ada", volumes=True)
    await a.order(2)
    await a.report()
    assert await hub.states() == {"a": "gone", "b": "waiting"}
    await hub.deploy(boards=["a"])
    await b.come()
    assert (await b.app(3)).purge
    await b.report()
    assert (await b.order(4)).apps == ()


async def test_a_board_that_is_left_out_loses_the_app(hub: AppsHub, image: str) -> None:
    a, b = await hub.add_board("a"), await hub.add_board("b")
    await hub.deploy(files=recipe(image), boards=["a", "b"])
    for board in (a, b):
        await board.order(1)
        await board.report(running("demo", 1))
    await hub.deploy(boards=["b"])
    assert (await a.order(2)).apps == ()
    assert "app-deploy ada: removed demo from a (revision 2)" in await hub.events()


# --- one at a time -----------------------------------------------------------------------------------


async def test_a_second_change_is_refused_with_who_and_since_when(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    hub.skew_ms += 180_000
    with pytest.raises(Busy) as caught:
        await hub.deploy(set={"GREETING": "hi"}, author="bob")
    said = f"ada has been changing demo for 3{SPACE}min (deploy, revision 1): pump is not done yet"
    assert str(caught.value) == said
    assert caught.value.hint == "wait for it, or cancel it: lichen app cancel demo"
    await pump.order(1)
    await pump.report(updating("demo", 1))
    with pytest.raises(Busy):
        await hub.desk.deploy.restart("demo", "bob")
    await pump.report(running("demo", 1))
    await hub.desk.deploy.restart("demo", "bob")


async def test_two_at_once_make_one(hub: AppsHub, image: str) -> None:
    await hub.add_board("pump")
    done = []

    async def deploy(author: str) -> None:
        try:
            done.append((await hub.deploy(files=recipe(image), boards=["pump"], author=author)).revision)
        except Busy as error:
            done.append(str(error))

    async with asyncio.TaskGroup() as group:
        group.create_task(deploy("ada"))
        group.create_task(deploy("bob"))
    assert done[1] == 1
    assert "ada has been changing demo" in str(done[0])


async def test_what_a_board_that_is_away_has_not_begun_is_replaced(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await pump.go()
    await hub.deploy(files=recipe(image), boards=["pump"])
    hub.skew_ms += 3_600_000
    picture = await hub.picture()
    assert (picture.state, picture.is_over) == ("waiting", True)
    assert "it takes revision 1 when it is back" in picture.sentence
    assert picture.boards[0].since_ms is not None
    await hub.deploy(set={"GREETING": "hi"}, author="bob")
    await pump.come()
    app = await pump.app(2)
    assert (app.revision, app.services[0].environment["GREETING"]) == (2, "hi")
    await pump.report(running("demo", 2))
    async with hub.store.read() as tx:
        [first] = await results_of(tx, "demo", [1])
    assert (first.outcome, first.reason) == ("dropped", "revision 2 took its place")


async def test_a_board_that_waits_for_its_hour_is_no_reason_to_wait(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1, running=0, state="waiting", step="for its window, 02:00-04:00"))
    picture = await hub.picture()
    assert (picture.state, picture.is_over) == ("waiting", True)
    assert "02:00" in picture.sentence
    await hub.deploy(set={"GREETING": "hi"})


async def test_a_stuck_change_is_cancelled(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await pump.report(running("demo", 1))
    with pytest.raises(Refused, match="no change of demo is under way"):
        await hub.desk.deploy.cancel("demo", "bob")
    await hub.deploy(set={"GREETING": "hi"})
    await pump.order(2)
    await pump.report(updating("demo", 2, 1))
    await hub.desk.deploy.cancel("demo", "bob")
    app = await pump.app(3)
    assert (app.revision, app.services[0].environment["GREETING"]) == (3, "hello")
    async with hub.store.read() as tx:
        rows = await list_revisions(tx, "demo")
    assert [bool(row.cancelled_ms) for row in rows] == [False, True, False]
    assert rows[0].message == "revision 2 is given up, back to 1"
    await pump.report(running("demo", 3))
    # What was cancelled is nobody's base.
    with pytest.raises(Refused, match="no earlier version"):
        await hub.desk.deploy.rollback("demo", "bob")


async def test_cancelling_the_first_takes_it_away(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    await hub.desk.deploy.cancel("demo", "bob")
    assert (await pump.order(2)).apps == ()
    await pump.report()
    assert (await hub.picture()).state == "gone"


# --- back --------------------------------------------------------------------------------------------


async def test_rolling_back_asks_for_what_ran(hub: AppsHub, image: str, shop: Registry) -> None:
    pump = await hub.add_board("pump")
    tag = push_image(shop, "moving", "latest", "arm64", "amd64")
    await hub.deploy(files=recipe(tag), boards=["pump"])
    [first] = (await pump.app(1)).services
    await pump.report(running("demo", 1))
    shop.push_list(
        "moving",
        {
            each: shop.push("moving", architecture=each, environment={"TAG": "new"})
            for each in ("arm64", "amd64")
        },
        tag="latest",
    )
    await hub.desk.deploy.restart("demo", "ada")
    [same] = (await pump.app(2)).services
    assert same.image == first.image, "only a deployment looks tags up again"
    await pump.report(running("demo", 2))
    await hub.deploy()
    [moved] = (await pump.app(3)).services
    assert moved.image != first.image
    await pump.report(running("demo", 3))
    await hub.desk.deploy.rollback("demo", "ada")
    [back] = (await pump.app(4)).services
    assert back.image == first.image
    await pump.report(running("demo", 4))
    await hub.desk.deploy.rollback("demo", "ada", to=3)
    assert (await pump.app(5)).services[0].image == moved.image
    await pump.report(running("demo", 5))
    with pytest.raises(Refused, match="demo has no revision 77"):
        await hub.desk.deploy.rollback("demo", "ada", to=77)


async def test_a_new_recipe_brings_its_new_variables_and_keeps_what_was_set(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"], set={"GREETING": "moin"})
    await pump.order(1)
    await pump.report(running("demo", 1))
    sample = recipe(image)[".env.sample"] + "COLOUR=green\n"
    await hub.deploy(files=recipe(image, **{".env.sample": sample}))
    assert {"GREETING": "moin", "COLOUR": "green"}.items() <= (await hub.picture()).env.items()
    await pump.order(2)
    await pump.report(running("demo", 2))
    await hub.deploy(set={"COLOUR": None})
    await pump.order(3)
    await pump.report(running("demo", 3))
    await hub.deploy(files=recipe(image, **{".env.sample": sample}))
    assert "COLOUR" not in (await hub.picture()).env
