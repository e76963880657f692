"""The hub's books: what it bills is what anybody finds who has the log, and what was issued stays."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from agent.wire.errors import Busy, ConfigError, Refused
from agent.wire.note import generate
from agent.wire.tlog import Checkpoint
from agent.wire.usage import Known, read
from hub.access.keys import Keyring
from hub.ledger.books import Books
from hub.ledger.leaves import read as leaves_of
from hub.ledger.period import DAY_MS, Period
from hub.ledger.rates import parse_card
from hub.ledger.statement import digest_of, encode
from hub.store import boards, events
from hub.store.billing import PART
from hub.store.database import Store
from support.bills import HUB, MINUTE, NOVEMBER, Log, container, counted, drawn, quantities, reckoned, sensor
from support.blank import new_store
from support.boardlog import BoardLog, began, hole
from support.witnessing import WitnessStand, at_work

KEYS = Keyring.generate()
PARTNER = "p" * 16
START, END = NOVEMBER.start_ms, NOVEMBER.end_ms
HOUR_US = 3_600_000_000
HOUSE = 'name = "house"\ncurrency = "EUR"\nvalid_from = "2026-01-01"\n[prices]\ncpu_hour = "0.02"\n'
FAR = """
name = "far"
currency = "CHF"
valid_from = "2026-11-10"
label = "site=south"
[prices]
reading = "1"
"""


class Office(WitnessStand):
    """A stand with books, on the second day of December."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, KEYS)
        self.now_ms = END + DAY_MS
        self.books = Books(store, HUB, "north", lambda: self.now_ms)

    async def board(self, *records: Known, labels: dict[str, str] | None = None) -> BoardLog:
        """A board of this hub whose log, received in full, has these records."""
        log = BoardLog(generate())
        await self.join(log)
        if labels:
            async with self.store.write() as tx:
                await boards.label_board(tx, log.board, labels)
        log.append(*records)
        if records:
            await self.send(log)
        return log

    async def more(self, log: BoardLog, *records: Known) -> None:
        """The board goes on."""
        size = log.size
        log.append(*records)
        await self.send(log, size)


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with new_store(tmp_path / "hub.db") as store:
        office = Office(store)
        async with at_work(office.witness):
            yield office


def known(log: BoardLog, size: int | None = None) -> Log:
    """What somebody finds who has nothing but the entries and a checkpoint."""
    size = log.size if size is None else size
    head = Checkpoint.parse(log.checkpoint(size).partition("\n\n")[0] + "\n")
    records = [cast("Known", read(entry)) for entry in log.entries]
    root = log.checkpoint(size).split("\n")[2]
    assert head.size == size
    return Log(log.origin, records, size, root)


def any_records(dice: random.Random, count: int) -> list[Known]:
    """Records of some boots, some of which knew the time always, later, or never."""
    made: list[Known] = [began()]
    boot, mono, wall, clock = "0" * 32, 0, START - 3 * DAY_MS, "synced"
    for seq in range(1, count):
        mono, wall = mono + 10 * MINUTE, wall + dice.choice([10 * MINUTE, 10 * MINUTE, 6 * 60 * MINUTE])
        if dice.random() < 0.05:
            boot, mono = f"{dice.randrange(2**128):032x}", 10 * MINUTE
            clock = dice.choice(["synced", "unsynced", "unsynced"])
        elif dice.random() < 0.05:
            clock = dice.choice(["synced", "hub", "unsynced"])
        claimed = wall if clock != "unsynced" else mono
        common = {
            "boot": boot, "clock": clock, "mono0_ms": mono - 10 * MINUTE, "mono1_ms": mono,
            "wall0_ms": claimed - 10 * MINUTE, "wall1_ms": claimed,
        }  # fmt: skip
        if dice.random() < 0.1:
            made.append(sensor(seq, claimed, dice.randrange(10_000), **common))
            continue
        counts = {name: dice.choice([None, dice.randrange(2**40)]) for name in ("cpu_us", "net_rx", "io_w")}
        whose = {"payer": dice.choice(["", HUB, PARTNER]), "app": dice.choice("ab"), "mem_byte_ms": 2**40}
        made.append(container(seq, claimed, **counts, **whose, **common))
    return made


# --- the same everywhere -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_who_has_the_logs_finds_the_same_bytes(office: Office, seed: int) -> None:
    """Whatever the clocks did: the hub reads columns, the other the entries; all months, and all payers."""
    dice = random.Random(seed)
    logs = [await office.board(*any_records(dice, 200), labels={"site": site}) for site in ("north", "south")]
    texts = [HOUSE, FAR]
    for text in texts:
        await office.books.set_rate(text, "ada")
    cards = [parse_card(text) for text in texts]
    labels = {log.board: {"site": site} for log, site in zip(logs, ("north", "south"), strict=True)}
    statements = []
    for month in ("2026-09", "2026-10", "2026-11", "2026-12", "2027-01", "2027-02"):
        accounts = await office.books.accounts(Period.parse(month))
        theirs = reckoned([known(log) for log in logs], cards, month, labels)
        assert {HUB, *theirs.payers} == {account.payer for account in accounts}
        for account in accounts:
            assert encode(account.statement) == encode(theirs.statement(account.payer))
            statements.append(account.statement)
    fields = counted([cast("Known", read(entry)) for log in logs for entry in log.entries])
    assert quantities(statements) == {
        "cpu_hour": fields["cpu_us"],
        "memory_gib_hour": fields["mem_byte_ms"],
        "network_in_gb": fields["net_rx"],
        "io_write_gb": fields["io_w"],
        "reading": fields["readings"],
    }


@pytest.mark.slow
async def test_a_long_log_is_read_in_parts(office: Office) -> None:
    """Of one moment, so that only the index tells one record from the next."""
    count = PART + 300
    trusted = [container(seq, START + 1, cpu_us=seq) for seq in range(count)]
    doubted = [container(seq, START + 1, cpu_us=seq, clock="unsynced") for seq in range(count, 2 * count)]
    log = await office.board(*trusted, *doubted)
    statement = await office.books.draft(NOVEMBER, HUB)
    assert [leaf for line in statement.lines for leaf in leaves_of(line.leaves)] == list(range(2 * count))
    assert encode(statement) == encode(drawn([known(log)]))


async def test_only_what_is_under_a_countersigned_checkpoint_is_billed(office: Office) -> None:
    log = await office.board(container(0, START + MINUTE, cpu_us=1))
    log.append(container(1, START + MINUTE, cpu_us=2))
    assert quantities([await office.books.draft(NOVEMBER, HUB)]) == {"cpu_hour": 1}
    await office.send(log, 1)
    assert quantities([await office.books.draft(NOVEMBER, HUB)]) == {"cpu_hour": 3}


async def test_a_board_without_a_log_changes_nothing(office: Office) -> None:
    await office.board()
    statement = await office.books.draft(NOVEMBER, HUB)
    assert (statement.lines, statement.logs, statement.totals) == ((), (), ())


async def test_a_hole_is_in_the_statement(office: Office) -> None:
    log = await office.board(container(0, START + MINUTE, cpu_us=1))
    log.append(container(1, START + MINUTE, cpu_us=2), hole(1, 1, "pruned before it was sent"))
    await office.take(log, log.package(1, 2, lost=1))
    statement = await office.books.draft(NOVEMBER, HUB)
    assert quantities([statement]) == {"cpu_hour": 1}
    [lost] = statement.holes
    assert (lost.origin, lost.first, lost.count, lost.reason) == (
        log.origin,
        1,
        1,
        "pruned before it was sent",
    )


# --- rate cards --------------------------------------------------------------------------------------


async def test_a_card_is_set_and_set_again_and_removed(office: Office) -> None:
    await office.board(container(0, START + MINUTE, cpu_us=HOUR_US))
    set_ = await office.books.set_rate(HOUSE, "ada")
    assert (set_.card.id, set_.text, set_.author, set_.is_in_force) == (
        "house@2026-01-01",
        HOUSE,
        "ada",
        True,
    )
    assert (await office.books.draft(NOVEMBER, HUB)).totals[0].amount == 20_000
    await office.books.set_rate(HOUSE.replace("0.02", "0.03"), "bob")
    [kept] = await office.books.cards()
    assert (kept.author, kept.card.price("cpu_hour")) == ("bob", 30_000)
    assert (await office.books.draft(NOVEMBER, HUB)).totals[0].amount == 30_000
    await office.books.remove_rate(kept.card.id, "ada")
    assert await office.books.cards() == []
    assert (await office.books.draft(NOVEMBER, HUB)).totals == ()
    with pytest.raises(Refused, match="there is no rate card"):
        await office.books.remove_rate(kept.card.id, "ada")
    async with office.store.read() as tx:
        said = [event.text for event in await events.list_events(tx) if event.kind == "rate"]
    assert said[::-1] == ["rate card house@2026-01-01 set"] * 2 + ["rate card house@2026-01-01 removed"]


async def test_a_card_that_is_over_or_to_come_is_kept_and_not_in_force(office: Office) -> None:
    for name, since, until in (("over", "2026-01-01", "2026-11-30"), ("coming", "2027-01-01", "2027-12-31")):
        text = HOUSE.replace("house", name).replace("2026-01-01", since)
        await office.books.set_rate(f'valid_until = "{until}"\n{text}', "ada")
    assert [kept.is_in_force for kept in await office.books.cards()] == [False, False]


async def test_a_card_with_a_mistake_changes_nothing(office: Office) -> None:
    with pytest.raises(ConfigError, match=r"prices\.cpu_hour"):
        await office.books.set_rate(HOUSE.replace('"0.02"', "0.02"), "ada")
    assert await office.books.cards() == []


# --- issuing -----------------------------------------------------------------------------------------


async def test_a_statement_is_issued_once_and_then_only_what_has_changed(office: Office) -> None:
    await office.books.set_rate(HOUSE, "ada")
    log = await office.board(container(0, START + MINUTE, cpu_us=HOUR_US))
    first = await office.books.issue(NOVEMBER, HUB, "ada")
    assert (first.number, first.issued_ms, first.totals[0].amount) == (1, office.now_ms, 20_000)
    with pytest.raises(Refused, match="statement 1 of 2026-11 says it all") as caught:
        await office.books.issue(NOVEMBER, HUB, "ada")
    assert caught.value.code == "unchanged"

    await office.more(log, container(1, END + MINUTE, cpu_us=HOUR_US))
    [account] = await office.books.accounts(NOVEMBER)
    assert not account.is_behind
    await office.more(log, container(2, END, cpu_us=HOUR_US))
    [account] = await office.books.accounts(NOVEMBER)
    assert account.is_behind

    second = await office.books.issue(NOVEMBER, HUB, "bob")
    assert (second.number, second.previous) == (2, digest_of(first))
    assert [line.charges[0].amount for line in second.lines] == [-20_000, 40_000]
    assert await office.books.issued(NOVEMBER, HUB) == (first, second)
    rows = await office.books.list_issued()
    assert [(row.number, row.author, row.digest) for row in rows] == [
        (1, "ada", digest_of(first)),
        (2, "bob", digest_of(second)),
    ]


async def test_a_month_that_goes_on_is_not_issued(office: Office) -> None:
    with pytest.raises(Refused, match="2026-12 has not ended yet") as caught:
        await office.books.issue(Period.parse("2026-12"), HUB, "ada")
    assert caught.value.code == "too-early"
    office.now_ms = END
    with pytest.raises(Refused, match="has not ended"):
        await office.books.issue(NOVEMBER, HUB, "ada")


async def test_each_payer_is_told_what_is_theirs(office: Office) -> None:
    await office.board(
        container(0, START + MINUTE, cpu_us=1), container(1, START + MINUTE, cpu_us=2, payer=PARTNER)
    )
    theirs = await office.books.issue(NOVEMBER, PARTNER, "ada")
    assert quantities([theirs]) == {"cpu_hour": 2}
    accounts = {account.payer: account for account in await office.books.accounts(NOVEMBER)}
    assert [len(accounts[payer].issued) for payer in (HUB, PARTNER)] == [0, 1]
    assert accounts[HUB].is_behind
    assert not accounts[PARTNER].is_behind


async def test_labels_of_then_count_for_what_comes_later(office: Office) -> None:
    """A board moves, and gets another label: what was issued with the old one stays right."""
    await office.books.set_rate(f'label = "site=north"\n{HOUSE}', "ada")
    log = await office.board(container(0, START + MINUTE, cpu_us=HOUR_US), labels={"site": "north"})
    await office.books.issue(NOVEMBER, HUB, "ada")
    async with office.store.write() as tx:
        await boards.label_board(tx, log.board, {"site": "south"})
    [account] = await office.books.accounts(NOVEMBER)
    assert not account.is_behind
    assert account.statement == await office.books.draft(NOVEMBER, HUB)
    await office.more(log, container(1, START + MINUTE, cpu_us=HOUR_US))
    second = await office.books.issue(NOVEMBER, HUB, "ada")
    assert [line.charges[0].amount for line in second.lines] == [-20_000, 40_000]


async def test_two_who_issue_at_once_issue_one(office: Office) -> None:
    await office.board(container(0, START + MINUTE, cpu_us=1))
    statement = await office.books.issue(NOVEMBER, HUB, "ada")
    with pytest.raises(Busy, match="was issued by ada just now"):
        await office.books._keep(replace(statement, issued_ms=0), 0, "bob")
    assert await office.books.issued(NOVEMBER, HUB) == (statement,)


async def test_what_nobody_could_read_is_not_issued(office: Office) -> None:
    """An amount that readers of JSON would round: refused when it is to be issued."""
    await office.books.set_rate(HOUSE.replace("0.02", "999999999"), "ada")
    await office.board(container(0, START + MINUTE, cpu_us=HOUR_US * 1000))
    with pytest.raises(Refused, match="is not within"):
        await office.books.issue(NOVEMBER, HUB, "ada")
    assert await office.books.list_issued() == []


async def test_another_epoch_of_a_board_is_billed_beside_the_first(office: Office) -> None:
    log = await office.board(container(0, START + MINUTE, cpu_us=1))
    again = BoardLog(log.key)
    again.append(began(previous=log.checkpoint()), container(1, START + MINUTE, cpu_us=2))
    await office.send(again)
    statement = await office.books.draft(NOVEMBER, HUB)
    assert {line.origin for line in statement.lines} == {log.origin, again.origin}
    assert quantities([statement]) == {"cpu_hour": 3}
