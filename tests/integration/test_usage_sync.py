"""The usage log between a board and its hub: over any link, after any loss, and with one key used twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from agent.usage.segments import SEGMENT_ENTRIES
from agent.usage.sync import BULK
from agent.wire.errors import Refused
from agent.wire.package import Package
from agent.wire.usage import ContainerRecord, EpochRecord, HoleRecord, read
from hub.access.keys import Keyring
from hub.store import usage
from hub.store.database import Store, copy_database
from support.blank import new_store
from support.boardlog import BoardLog
from support.ledgers import DAY_MS
from support.syncing import Desk, Wire, agreed, entries_of, held_by
from support.witnessing import WitnessStand, at_work

KEYS = Keyring.generate()


@pytest_asyncio.fixture
async def stand(tmp_path: Path) -> AsyncIterator[WitnessStand]:
    async with new_store(tmp_path / "hub.db") as store:
        stand = WitnessStand(store, KEYS)
        async with at_work(stand.witness):
            yield stand


@pytest_asyncio.fixture
async def desk(tmp_path: Path, stand: WitnessStand) -> Desk:
    desk = Desk(tmp_path / "usage").plug(Wire(stand))
    await desk.join()
    return desk


async def back_up(stand: WitnessStand) -> None:
    """Keep what the hub holds now."""
    await copy_database(stand.store.path, stand.store.path.with_name("older.db"))


@asynccontextmanager
async def older(stand: WitnessStand) -> AsyncIterator[WitnessStand]:
    """The hub as it was at its last backup."""
    async with Store.open(stand.store.path.with_name("older.db")) as store:
        restored = WitnessStand(store, KEYS)
        restored.now_ms = stand.now_ms
        async with at_work(restored.witness):
            yield restored


def used(entries: Sequence[bytes | None]) -> list[int | None]:
    """What tells records of containers from each other, in order."""
    records = [read(entry) for entry in entries if entry]
    return [record.cpu_us for record in records if isinstance(record, ContainerRecord)]


# --- all is well -------------------------------------------------------------------------------------


async def test_what_is_appended_is_held_and_cosigned(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        for count in (1, 3, 300):
            await ledger.append(desk.records(count))
            await agreed(ledger, sync)
        assert await held_by(stand, ledger.origin) == await entries_of(ledger)
        assert ledger.signed == ledger.size
        assert desk.wire.bulk == 0
    assert stand.told.problems == {}
    assert stand.told.refusals == []


async def test_nothing_is_signed_before_the_hub_has_answered(desk: Desk) -> None:
    desk.wire.change = lambda package: None  # nothing comes through
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(5))
        async with asyncio.timeout(5):
            while desk.wire.cut_after == 2**60:
                await asyncio.sleep(0.002)
        assert (ledger.signed, ledger.state.hub_known) == (0, False)
        desk.wire.change = lambda package: package
        await agreed(ledger, sync)
        assert ledger.signed == ledger.size


async def test_the_broker_may_lose_and_repeat(desk: Desk, stand: WitnessStand) -> None:
    seen = 0

    def change(package: Package) -> Package | None:
        nonlocal seen
        seen += 1
        return None if seen % 3 == 1 else package

    desk.wire.change = change
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(700))
        await agreed(ledger, sync)
        assert await held_by(stand, ledger.origin) == await entries_of(ledger)
    assert stand.told.problems == {}


async def test_receipts_of_earlier_sessions_are_passed_over(desk: Desk) -> None:
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(3))
        await agreed(ledger, sync)
        sync.heard(b'{"origin":"%s","nonce":"old","size":1,"state":"conflict"}' % ledger.origin.encode())
        await ledger.append(desk.records(3))
        await agreed(ledger, sync)
        with pytest.raises(Refused):
            sync.heard(b"{}")


async def test_much_goes_over_https_and_the_tail_over_the_broker(desk: Desk, stand: WitnessStand) -> None:
    async with desk.open() as ledger:
        for _ in range(8):
            await ledger.append(desk.records(256))
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)
        assert 0 < desk.wire.bulk < desk.wire.packages
        assert desk.wire.bulk * 256 + BULK >= ledger.size
        assert await held_by(stand, ledger.origin) == await entries_of(ledger)


async def test_without_https_it_goes_over_the_broker(desk: Desk, stand: WitnessStand) -> None:
    desk.wire.has_https = False
    async with desk.open() as ledger:
        for _ in range(8):
            await ledger.append(desk.records(256))
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)
        assert await held_by(stand, ledger.origin) == await entries_of(ledger)


@pytest.mark.slow
async def test_a_month_offline_and_then_a_link_that_breaks_every_20_packages(
    desk: Desk, stand: WitnessStand
) -> None:
    """Each session goes on where the one before was cut, so nothing is sent twice but what was under way."""
    async with desk.open() as ledger:
        for _ in range(30):  # three apps, a day at a time
            await ledger.append(desk.records(432))
            desk.wait(DAY_MS)
    sessions = 0
    while True:
        desk.wire.cut_after, sessions = 20, sessions + 1
        async with desk.open() as ledger:
            sync = desk.sync(ledger)
            async with desk.session(sync):
                try:
                    async with asyncio.timeout(30):
                        while desk.wire.cut_after and (ledger.cosigned or (0,))[0] < ledger.size:
                            await asyncio.sleep(0.002)
                finally:
                    size = ledger.size
            if (ledger.cosigned or (0,))[0] == size:
                assert await held_by(stand, ledger.origin) == await entries_of(ledger)
                break
    packages = -(-size // 256)
    assert packages / 20 <= sessions <= packages / 18 + 2
    assert desk.wire.packages <= packages + 2 * sessions
    assert stand.told.problems == {}


async def test_where_each_byte_is_paid_new_records_wait_for_others(desk: Desk) -> None:
    async with desk.on(pace_s=0.3) as (ledger, sync):
        await agreed(ledger, sync)
        before = desk.wire.packages
        for _ in range(10):
            await ledger.append(desk.records(1))
            await asyncio.sleep(0.005)
        await agreed(ledger, sync)
        assert desk.wire.packages - before <= 2


async def test_a_package_that_was_damaged_is_sent_again(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)

        def change(package: Package) -> Package:
            desk.wire.change = lambda package: package
            entries = (*package.entries[:-1], package.entries[-1].replace(b'"io_r":null', b'"io_r":9999'))
            return replace(package, entries=entries)

        desk.wire.change = change
        await ledger.append(desk.records(4))
        await agreed(ledger, sync)
        assert await held_by(stand, ledger.origin) == await entries_of(ledger)
    assert stand.told.problems == {}


async def test_a_hub_that_does_not_take_a_package_is_not_asked_without_end(
    desk: Desk, stand: WitnessStand
) -> None:
    stand.witness = stand.another(bytes_per_day=4000)
    async with at_work(stand.witness), desk.on() as (ledger, _):
        await ledger.append(desk.records(400))
        async with asyncio.timeout(5):
            while desk.wire.packages < 4:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.3)
        assert desk.wire.packages < 20
    assert "usage-limit" in {code for _, code in stand.told.problems}


# --- a card that was set back --------------------------------------------------------------------------


async def test_a_restored_card_fetches_back_and_goes_on(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
    copy = desk.back_up("old")
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(700))
        await agreed(ledger, sync)
        origin, before = ledger.origin, await entries_of(ledger)
    desk.restore(copy)
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)
        assert (ledger.origin, await entries_of(ledger)) == (origin, before)
        await ledger.append(desk.records(5))
        await agreed(ledger, sync)
        assert await held_by(stand, origin) == await entries_of(ledger)
        assert used(await entries_of(ledger)) == list(range(1, 716))
    assert desk.wire.fetched
    assert stand.told.problems == {}


async def test_what_a_restored_card_wrote_before_it_knew_follows(desk: Desk, stand: WitnessStand) -> None:
    """It wrote for a while without a network, more than the hub has or less."""
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
    copy = desk.back_up("old")
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(30))
        await agreed(ledger, sync)
        before = await entries_of(ledger)
    for own in (5, 300):
        desk.restore(copy)
        first = desk.made
        async with desk.open() as ledger:
            await ledger.append(desk.records(own))
        async with desk.on() as (ledger, sync):
            await agreed(ledger, sync)
            after = await entries_of(ledger)
            assert after[: len(before)] == before
            assert used(after[len(before) :]) == list(range(first + 1, first + own + 1))
            assert await held_by(stand, ledger.origin) == after
            before = after
    async with stand.store.read() as tx:
        assert len(await usage.list_logs(tx)) == 1
    assert stand.told.problems == {}


async def test_a_restored_card_waits_until_it_can_fetch(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)
        copy = desk.back_up("old")
        await ledger.append(desk.records(20))
        await agreed(ledger, sync)
    desk.restore(copy)
    desk.wire.has_https = False
    async with desk.on() as (ledger, sync):
        async with asyncio.timeout(5):
            while sync.trouble is None:
                await asyncio.sleep(0.002)
        assert "cannot be fetched" in str(sync.trouble)
        assert not ledger.state.hub_known
        desk.wire.has_https = True
        await agreed(ledger, sync)
        assert ledger.size == 21


async def test_a_checkpoint_that_the_hub_saw_and_nobody_has_begins_an_epoch(
    desk: Desk, stand: WitnessStand
) -> None:
    """A package is under way when the card is lost: the hub has a part of what was signed."""
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
        copy = desk.back_up("old")
        await ledger.append(desk.records(20))
        await agreed(ledger, sync)
        log = BoardLog(desk.log_key, ledger.epoch)
        for entry in await entries_of(ledger):
            log.write(entry)
    desk.restore(copy)
    other = desk.wire.stand.store.path.with_name("part.db")
    async with Store.open(other) as store:
        part = WitnessStand(store, KEYS)
        async with at_work(part.witness):
            desk.plug(Wire(part))
            await desk.join()
            await part.take(log, log.package(0, 11))
            await part.take(log, log.package(11, 4, of=log.size))
            async with desk.on() as (ledger, sync):
                async with asyncio.timeout(5):
                    while ledger.origin == log.origin:
                        await asyncio.sleep(0.002)
                await agreed(ledger, sync)
                first = read((await ledger.entries(0, 1))[0])
                assert isinstance(first, EpochRecord)
                assert first.previous == log.checkpoint()
            assert part.told.problems == {}


# --- a hub that was set back -----------------------------------------------------------------------------


async def test_a_restored_hub_catches_up_from_the_board(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
    await back_up(stand)
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(600))
        await agreed(ledger, sync)
        before = await entries_of(ledger)
    async with older(stand) as restored:
        desk.plug(Wire(restored))
        async with desk.on() as (ledger, sync):
            async with asyncio.timeout(10):
                while len(await held_by(restored, ledger.origin)) < len(before):
                    await asyncio.sleep(0.01)
            assert await held_by(restored, ledger.origin) == before
            await ledger.append(desk.records(2))
            await agreed(ledger, sync)
        assert restored.told.problems == {}


@pytest.mark.slow
async def test_what_nobody_holds_becomes_a_signed_hole(desk: Desk, stand: WitnessStand) -> None:
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
    await back_up(stand)
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(SEGMENT_ENTRIES))
        await agreed(ledger, sync)
        await ledger.append(desk.records(5))
        await agreed(ledger, sync)
        desk.wait(40 * DAY_MS)
        stand.now_ms += 400 * DAY_MS
        assert await ledger.prune(stand.now_ms) > 0
        held_from, size = ledger.held_from, ledger.size
    async with older(stand) as restored:
        desk.plug(Wire(restored))
        for _ in range(2):  # and it is declared once, whatever happens
            async with desk.on() as (ledger, sync):
                async with asyncio.timeout(20):
                    while len(await held_by(restored, ledger.origin)) <= size:
                        await asyncio.sleep(0.01)
                await agreed(ledger, sync)
        held = await held_by(restored, ledger.origin)
        assert [entry is None for entry in held[:held_from]] == [False] * 11 + [True] * (held_from - 11)
        assert None not in held[held_from:]
        last = [read(entry) for entry in held[size:] if entry]
        assert [(each.first, each.count) for each in last if isinstance(each, HoleRecord)] == [
            (11, held_from - 11)
        ]
        assert "usage-hole" in {code for _, code in restored.told.problems}
        async with restored.store.read() as tx:
            log = await usage.get_log(tx, ledger.origin)
            assert [(each.first, each.count) for each in await usage.holes(tx, log.id)] == [
                (11, held_from - 11)
            ]


# --- two of one ------------------------------------------------------------------------------------------


async def test_two_boards_with_one_key(desk: Desk, stand: WitnessStand, tmp_path: Path) -> None:
    """A card was copied, and both are in use.  What each used is in the hub once, the fork on record."""
    async with desk.on() as (ledger, sync):
        await ledger.append(desk.records(10))
        await agreed(ledger, sync)
        origin = ledger.origin
    twin = Desk(tmp_path / "twin", boot="c" * 32, made=1000).plug(desk.wire)
    shutil.copytree(desk.folder, twin.folder)
    async with desk.on() as (ledger, sync), twin.on() as (other, other_sync):
        await agreed(ledger, sync)
        await agreed(other, other_sync)
        # Both know what the hub holds, and both sign what follows.
        await ledger.append(desk.records(5))
        await agreed(ledger, sync)
        await other.append(twin.records(7))
        await agreed(other, other_sync)
        await ledger.append(desk.records(5))
        await agreed(ledger, sync)
        assert {ledger.origin, other.origin} > {origin}
        assert used(await held_by(stand, ledger.origin)) == [*range(1, 21)]
        assert used(await held_by(stand, other.origin)) == [*range(1001, 1008)]
        first = read((await other.entries(0, 1))[0])
        assert isinstance(first, EpochRecord)
        assert first.previous.startswith(origin)
    assert {code for _, code in stand.told.problems} == {"usage-conflict"}
    async with stand.store.read() as tx:
        (evidence,) = await usage.conflicts(tx)
        assert evidence.kept.startswith(origin)
        assert evidence.shown.startswith(origin)
        assert evidence.kept != evidence.shown


async def test_two_boards_that_were_offline_before_they_met_the_hub(
    desk: Desk, stand: WitnessStand, tmp_path: Path
) -> None:
    """Neither has signed anything, so this looks like a card that was set back: one log has both."""
    async with desk.on() as (ledger, sync):
        await agreed(ledger, sync)
    twin = Desk(tmp_path / "twin", boot="c" * 32, made=1000).plug(desk.wire)
    shutil.copytree(desk.folder, twin.folder)
    for each in (desk, twin):
        async with each.open() as ledger:
            await ledger.append(each.records(20))
    for each in (desk, twin):
        async with each.on() as (ledger, sync):
            await agreed(ledger, sync)
    assert used(await held_by(stand, ledger.origin)) == [*range(1, 21), *range(1001, 1021)]
    assert stand.told.problems == {}
