"""Orders on their way: reconnects, a broker that forgot, restores, new keys, boards that go."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.base.broker import Address, Message
from agent.wire import note, topics
from agent.wire.apps import LogLine, LogLines
from agent.wire.errors import ConfigError, Corrupt, LinkDown, Refused
from agent.wire.messages import Reply, read_text
from agent.wire.order import Order
from agent.wire.seal import generate
from hub.access import vault as vaults
from hub.apps.desk import open_vault
from hub.fleet.lines import MOST_LINES, LineStream
from hub.fleet.replacement import hand_over, take_apps
from hub.store import boards, orders, placements
from hub.store.app_reports import find_reports
from support.apps import AppsHub, push_image, recipe, running, updating
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


async def kept(hub: AppsHub, board: str) -> list[bytes]:
    """The order that the broker keeps for a board."""
    found: list[bytes] = []
    async with hub.broker.connect(Address("looker", host="x", port=1, username="hub")) as session:
        await session.subscribe(topics.down(board, "order"))
        marker = Message(topics.down(board, "command"), b"end")
        await session.subscribe(marker.topic)
        await session.publish(marker)
        async for message in session.messages():
            if message.topic == marker.topic:
                return found
            found.append(message.payload)
    raise AssertionError("unreachable")


async def published(hub: AppsHub, board: str, generation: int) -> None:
    """Wait until the hub has noted that the broker has this order."""

    async def is_noted() -> bool:
        async with hub.store.read() as tx:
            row = await orders.find_order(tx, board)
        return row is not None and row.generation == row.published == generation

    await hub.until(is_noted)


# --- the broker ------------------------------------------------------------------------------------


async def test_an_order_is_published_once_and_kept_for_who_is_away(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump", online=False)
    await hub.deploy(files=recipe(image), boards=["pump"])
    await published(hub, pump.id, 1)
    assert [pump.read(payload).generation for payload in await kept(hub, pump.id)] == [1]
    await pump.come()
    await pump.order(1)
    await hub.disconnect()
    await hub.deploy("other", recipe(image), boards=["pump"])
    await hub.connect()
    await published(hub, pump.id, 2)
    await hub.disconnect()
    await hub.connect()  # nothing is new
    await hub.deploy("third", recipe(image), boards=["pump"])
    await pump.order(3)
    assert [order.generation for order in pump.orders] == [1, 2, 3]


async def test_what_could_not_be_published_is_on_the_next_connection(
    tmp_path: Path, shop: Registry, image: str
) -> None:
    async with AppsHub.open(tmp_path, shop) as hub:
        pump = await hub.add_board("pump")
        hub.may_publish.clear()
        await hub.deploy(files=recipe(image), boards=["pump"])
        keys, key = hub.keys, pump.key
    async with AppsHub.open(tmp_path, shop, keys=keys) as hub:
        await published(hub, pump.id, 1)
        [payload] = await kept(hub, pump.id)
    order = read_text("order", Order, note.open_note(payload, keys.order.verifier))
    assert key.unseal(order.apps[0].secrets[0].box)


async def test_a_board_that_missed_its_order_gets_it_again(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await published(hub, pump.id, 1)
    await pump.order(1)
    pump.notes.clear()
    await pump.report(generation=0)
    await hub.until(lambda: len(pump.notes) == 1)
    await published(hub, pump.id, 1)
    await pump.report(generation=0)
    await pump.report(running("demo", 1), generation=1)
    assert len(pump.notes) == 1, "once on a connection"


# --- what boards say is held to limits ---------------------------------------------------------------


async def test_reports_that_are_none_and_boards_that_make_numbers_up(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    assert pump.session is not None
    for payload in (b"{}", b'{"generation":-1}', b"no json", b'{"generation":1,"apps":[{"name":"UP"}]}'):
        await pump.session.publish(Message(topics.up(pump.id, "apps"), payload))
    await hub.until(lambda: hub.ingest.counters().offenders.get(pump.id, 0) == 4)
    await pump.report(generation=2**53)
    async with hub.store.read() as tx:
        row = await orders.find_order(tx, pump.id)
        said = await find_reports(tx, [pump.id])
    assert row is not None
    assert (row.generation, row.reported, row.stale) == (1, 0, False)
    assert said[pump.id].apps.generation == 2**53
    hub.commands.streamed(pump.id, "nobody-asked", LogLines(1))


async def test_an_app_that_nobody_asked_for_changes_nothing(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await pump.report(running("mine", 4), generation=7)
    async with hub.store.read() as tx:
        assert await placements.placements_of(tx) == []
        assert await orders.find_order(tx, pump.id) is None
    # Its order is higher than any that this hub knows of.
    await hub.deploy(files=recipe(image), boards=["pump"])
    assert (await pump.order(8)).apps[0].name == "demo"


# --- restore -----------------------------------------------------------------------------------------


async def test_after_a_restore_the_orders_are_higher_than_what_boards_have_seen(
    tmp_path: Path, shop: Registry, image: str
) -> None:
    old, folder = tmp_path / "old", tmp_path / "hub"
    folder.mkdir()
    async with AppsHub.open(folder, shop) as hub:
        pump = await hub.add_board("pump")
        await hub.deploy(files=recipe(image), boards=["pump"])
        await pump.order(1)
        await pump.report(running("demo", 1))
        keys = hub.keys
    shutil.copytree(folder, old)
    async with AppsHub.open(folder, shop, keys=keys) as hub:
        for number in range(2, 4):
            await hub.deploy(set={"GREETING": f"hi {number}"})
            async with hub.store.write() as tx:
                await placements.supersede(tx, "demo", number + 1, 0)
    async with AppsHub.open(old, shop, keys=keys) as hub:
        pump = await hub.adopt(pump)
        await pump.report(running("demo", 3), generation=3)
        order = await pump.order(4)
        assert order.apps[0].services[0].environment["GREETING"] == "hello"
        assert pump.unsealed(order.apps[0])["password"]
        # The next revision is one that the board has not seen, either.
        await pump.report(running("demo", 3), generation=4)
        async with hub.store.write() as tx:
            await placements.supersede(tx, "demo", 2, 0)
        assert (await hub.deploy(set={"GREETING": "again"})).revision == 4


async def test_a_vault_whose_key_is_lost_stops_the_hub(hub: AppsHub, image: str, tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.mkdir()
    await open_vault(hub.store, empty)
    assert (empty / "vault.key").stat().st_mode & 0o777 == 0o600
    await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    (empty / "vault.key").unlink()
    with pytest.raises(ConfigError, match=r"vault\.key cannot be read"):
        await open_vault(hub.store, empty)


# --- keys ----------------------------------------------------------------------------------------------


async def test_new_keys_sign_the_same_again_when_boards_know_them(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    before = (await pump.order(1)).apps[0]
    await pump.report(running("demo", 1))
    hub.may_publish.clear()
    hub.keys.adopt(hub.keys.renewed(["order"]))
    hub.desk.orders.wake()

    async def is_made() -> bool:
        async with hub.store.read() as tx:
            row = await orders.find_order(tx, pump.id)
        return row is not None and row.generation == 2

    await hub.until(is_made)
    assert len(pump.orders) == 1, "the document with the new key goes first"
    hub.may_publish.set()
    after = (await pump.order(2)).apps[0]
    assert pump.unsealed(after) == pump.unsealed(before)
    stripped = [replace(app, secrets=(), configs=()) for app in (before, after)]
    assert stripped[0] == stripped[1]
    assert [each.version for each in after.secrets] == [each.version for each in before.secrets]
    assert await hub.states() == {"pump": "running"}


async def test_a_board_with_another_key_gets_its_secrets_sealed_anew(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    password = pump.unsealed((await pump.order(1)).apps[0])["password"]
    pump.key = generate()
    async with hub.store.write() as tx:
        await boards.rekey_board(tx, pump.id, pump.key.public)
        assert await orders.mark_stale_if_any(tx, pump.id)
    hub.desk.orders.wake()
    assert pump.unsealed((await pump.order(2)).apps[0])["password"] == password


async def test_one_board_with_a_key_that_is_none_keeps_nobody_else_waiting(hub: AppsHub, image: str) -> None:
    pump, roof = await hub.add_board("pump"), await hub.add_board("roof")
    await hub.deploy(files=recipe(image), boards=["pump", "roof"])
    await roof.order(1)
    async with hub.store.write() as tx:
        await boards.rekey_board(tx, pump.id, "nonsense")
        await orders.mark_stale(tx, [pump.id, roof.id])
    hub.desk.orders.wake()
    await roof.order(2)


# --- boards that go --------------------------------------------------------------------------------------


async def test_a_board_that_is_put_out_has_no_order_and_nobody_waits_for_it(hub: AppsHub, image: str) -> None:
    a, b = await hub.add_board("a"), await hub.add_board("b")
    await hub.deploy(files=recipe(image), boards=["a", "b"])
    for board in (a, b):
        await board.order(1)
    await b.report(running("demo", 1))
    assert not (await hub.picture()).is_over
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, a.id, 5)
        await placements.drop_board(tx, a.id, 5)
    assert (await hub.picture()).is_over
    assert await hub.states() == {"b": "running"}
    await hub.desk.deploy.restart("demo", "ada")
    await b.order(2)
    assert [order.generation for order in a.orders] == [1]
    with pytest.raises(Refused, match="the board a was put out of this fleet"):
        await hub.deploy(boards=["a"])


async def test_an_order_that_crosses_a_revocation_is_taken_back(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump", online=False)
    hub.may_publish.clear()
    await hub.deploy(files=recipe(image), boards=["pump"])
    await hub.until(lambda: not hub.desk.orders._bell.is_set())  # the rows are read, and wait
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, pump.id, 5)
        await placements.drop_board(tx, pump.id, 5)
    hub.may_publish.set()

    async def is_empty() -> bool:
        return await kept(hub, pump.id) == []

    await hub.until(is_empty)


async def test_apps_move_to_the_board_that_takes_another_ones_place(hub: AppsHub, image: str) -> None:
    old = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    password = old.unsealed((await old.order(1)).apps[0])["password"]
    await old.report(running("demo", 1))
    new = await hub.add_board("fresh")
    async with hub.store.write() as tx:
        row = await boards.get_board(tx, old.id)
        await hand_over(tx, row, new.id, 5)
        await take_apps(tx, row, new.id, 5)
    hub.desk.orders.wake()
    order = await new.order(1)
    assert new.unsealed(order.apps[0])["password"] == password
    with pytest.raises(Corrupt):
        old.unsealed(order.apps[0])
    assert await hub.states() == {"fresh": "sent"}
    await new.report(running("demo", 1))
    assert await hub.states() == {"fresh": "running"}
    assert f"apps-moved hub: takes over demo from {old.id}" in await hub.events()
    # What is asked for next goes there, too, also by the number of the old one.
    await hub.desk.deploy.restart("demo", "ada")
    await new.order(2)


# --- logs ------------------------------------------------------------------------------------------------


def lines(seq: int, count: int = 1, *, end: bool = False) -> LogLines:
    line = LogLine("demo_web.0.aa", 5, "stdout", f"line {seq}")
    return LogLines(seq, (line,) * count, end=end)


async def test_lines_come_as_a_board_sends_them(hub: AppsHub) -> None:
    pump = await hub.add_board("pump")
    async with hub.commands.follow(pump.id, "logs", {"app": "demo"}) as read:
        await hub.until(lambda: bool(pump.commands))
        [command] = pump.commands
        assert (command.name, command.args) == ("logs", {"app": "demo"})
        await pump.say("stream", lines(1), command.id)
        assert (await anext(read)).lines[0].text == "line 1"
        await pump.say("stream", lines(2, end=True), command.id)
        assert [each.seq async for each in read] == [2]
    await pump.say("stream", lines(3), command.id)
    async with hub.commands.follow(pump.id, "logs", {"app": "no"}) as read:
        await hub.until(lambda: len(pump.commands) == 2)
        refused = Reply(pump.commands[1].id, "refused", error="there is no app 'no' here")
        await pump.say("reply", refused, refused.id)
        with pytest.raises(Refused, match="there is no app 'no' here"):
            await anext(read)


async def test_a_board_that_says_nothing_or_is_not_there(hub: AppsHub) -> None:
    pump = await hub.add_board("pump")
    async with hub.commands.follow(pump.id, "logs", timeout_s=0.05) as read:
        with pytest.raises(LinkDown, match="has not gone on with 'logs'"):
            await anext(read)
    await pump.go()
    with pytest.raises(Refused, match="is offline"):
        async with hub.commands.follow(pump.id, "logs"):
            pass


async def test_a_slow_reader_is_told_how_much_it_has_missed() -> None:
    stream = LineStream("a" * 16, "logs")
    for seq in range(1, 30):
        stream.push(lines(seq, 1000))
    stream.push(replace(lines(30, 7, end=True), dropped=2))
    came = [each async for each in stream.read(first_s=1, whole_s=1)]
    assert sum(len(each.lines) for each in came) == MOST_LINES
    assert sum(each.dropped for each in came) == 29_000 - MOST_LINES + 7 + 2
    assert came[-1].end


async def test_updates_are_told_to_who_watches(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    with hub.desk.reports.watch("demo") as watch, hub.desk.reports.watch("other") as other:
        watch.boards = frozenset({pump.id})
        await pump.report(updating("demo", 1))
        assert watch.bell.is_set()
        assert not other.bell.is_set()
        watch.bell.clear()
        await pump.go()
        assert watch.bell.is_set(), "that it went is news, too"


def test_vaults_are_told_apart(tmp_path: Path) -> None:
    one, two = vaults.generate(), vaults.generate()
    sealed = one.seal(b"secret", "x")
    for vault, purpose in ((two, "x"), (one, "y")):
        with pytest.raises(Corrupt, match="does not open"):
            vault.open(sealed, purpose)
    with pytest.raises(Corrupt):
        one.open("no base64", "x")
    with pytest.raises(Corrupt):
        one.open("", "x")
    assert "key" not in repr(one)
    vaults.save(tmp_path, one)
    assert vaults.load(tmp_path, is_needed=True) == one
    (tmp_path / "vault.key").write_text("short")
    with pytest.raises(ConfigError, match="cannot be read"):
        vaults.load(tmp_path, is_needed=False)


async def test_an_order_that_cannot_be_made_says_why(hub: AppsHub, image: str) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    await pump.order(1)
    async with hub.store.write() as tx:
        await boards.rekey_board(tx, pump.id, "nonsense")
        assert await orders.mark_stale_if_any(tx, pump.id)
    hub.desk.orders.wake()

    async def has_failed() -> bool:
        return (await hub.states())["pump"] == "failed"

    await hub.until(has_failed)
    assert "no order could be made: the sealing key" in (await hub.picture()).sentence
    async with hub.store.write() as tx:
        await boards.rekey_board(tx, pump.id, pump.key.public)
    hub.desk.orders.wake()
    await pump.order(2)
    assert await hub.states() == {"pump": "sent"}


async def test_an_app_whose_boards_are_all_out_is_not_taken_away_by_a_restart(
    hub: AppsHub, image: str
) -> None:
    pump = await hub.add_board("pump")
    await hub.deploy(files=recipe(image), boards=["pump"])
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, pump.id, 5)
        await placements.drop_board(tx, pump.id, 5)
    with pytest.raises(Refused, match="all boards of demo were put out of the fleet"):
        await hub.desk.deploy.restart("demo", "ada")
