"""Records to statements: nothing is lost, doubled or divided, and the same goes in as comes out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Corrupt, Refused
from agent.wire.usage import Known, encode, read
from hub.ledger.billing import FIELDS
from hub.ledger.leaves import read as leaves_of
from hub.ledger.meters import METERS
from hub.ledger.period import DAY_MS, Period, month_of
from hub.ledger.rates import Card
from hub.ledger.statement import Line, Statement, check, read_statement
from hub.ledger.statement import encode as bytes_of
from hub.ledger.times import Times, boots_of
from support.bills import (
    BOARD,
    BOOT,
    HUB,
    MINUTE,
    NOVEMBER,
    ORIGIN,
    Log,
    card,
    container,
    counted,
    drawn,
    quantities,
    reckoned,
    sensor,
    stamps_of,
)

PARTNER = "p" * 16
OTHER = f"{'c' * 16}/usage/{'e' * 16}"
HOUR_US = 3_600_000_000
START, END = NOVEMBER.start_ms, NOVEMBER.end_ms


def only(statement: Statement) -> Line:
    [line] = statement.lines
    return line


def charges(line: Line) -> dict[str, tuple[int, int]]:
    return {charge.meter: (int(charge.quantity), charge.amount) for charge in line.charges}


# --- what a statement says -------------------------------------------------------------------------


def test_a_line_is_the_sum_of_its_records_and_leads_back_to_them() -> None:
    records: list[Known] = [
        container(0, START + 10 * MINUTE, cpu_us=HOUR_US // 2, net_rx=5),
        container(1, START + 10 * MINUTE, app="shop", cpu_us=7),
        container(2, START + 20 * MINUTE, cpu_us=HOUR_US // 4, net_rx=6, io_r=0),
    ]
    prices = card(cpu_hour="0.02", network_in_gb="0.05", reading="1")
    statement = drawn([Log(ORIGIN, records)], [prices])
    blog, shop = statement.lines
    assert (blog.board, blog.origin, blog.workspace, blog.app, blog.service) == (
        BOARD,
        ORIGIN,
        "default",
        "blog",
        "web",
    )
    assert (blog.from_ms, blog.to_ms) == (START, START + 20 * MINUTE)
    assert (blog.leaves, shop.leaves) == ("0,2", "1")
    # What nobody counted is not there; what was counted and is 0 is, and what has no price is free.
    assert charges(blog) == {
        "cpu_hour": (HOUR_US * 3 // 4, 15_000),
        "network_in_gb": (11, 0),
        "io_read_gb": (0, 0),
    }
    assert [(each.price, each.currency, each.card) for each in blog.charges] == [
        (20_000, "EUR", "house@2026-01-01"),
        (50_000, "EUR", "house@2026-01-01"),
        (0, "", ""),
    ]
    assert [(log.origin, log.size) for log in statement.logs] == [(ORIGIN, 3)]
    assert statement.cards == (prices,)
    assert [(total.currency, total.amount) for total in statement.totals] == [("EUR", 15_000)]
    check(statement)


def test_rounding_is_once_and_at_the_line() -> None:
    """Thirty records that cost 0.4 micro-units each are 12, and not 0."""
    records = [container(seq, START + (seq + 1) * MINUTE, cpu_us=72_000) for seq in range(30)]
    line = only(drawn([Log(ORIGIN, records)], [card(cpu_hour="0.02")]))
    assert charges(line) == {"cpu_hour": (2_160_000, 12)}


def test_readings_are_the_hubs_own() -> None:
    line = only(drawn([Log(ORIGIN, [sensor(0, START + MINUTE, 1440)])], [card(reading="0.00001")]))
    assert (line.sensor, line.app, line.workspace) == ("room", "", "default")
    assert charges(line) == {"reading": (1440, 14_400)}


def test_each_payer_has_a_statement_of_its_own() -> None:
    records = [
        container(0, START + MINUTE, cpu_us=1),
        container(1, START + MINUTE, cpu_us=2, payer=PARTNER, workspace="lab"),
        container(2, START + MINUTE, cpu_us=4, payer=""),
        sensor(3, START + MINUTE, 8),
    ]
    found = reckoned([Log(ORIGIN, records)])
    assert found.payers == sorted([HUB, PARTNER])
    assert quantities([found.statement(HUB)]) == {"cpu_hour": 5, "reading": 8}
    assert quantities([found.statement(PARTNER)]) == {"cpu_hour": 2}
    assert found.statement("nobody").lines == ()


def test_two_boards_and_two_epochs_are_lines_of_their_own() -> None:
    again = f"{BOARD}/usage/{'f' * 16}"
    logs = [Log(origin, [container(0, START + MINUTE, cpu_us=1)]) for origin in (OTHER, again, ORIGIN)]
    statement = drawn(logs)
    assert [line.origin for line in statement.lines] == [ORIGIN, again, OTHER]
    assert [place.board for place in statement.boards] == [BOARD, "c" * 16]


def test_labels_choose_the_card_and_are_said() -> None:
    logs = [Log(origin, [container(0, START + MINUTE, cpu_us=HOUR_US)]) for origin in (ORIGIN, OTHER)]
    cards = [card("house", cpu_hour="0.02"), card("solar", cpu_hour="0.01", label="power=sun")]
    statement = drawn(logs, cards, labels={BOARD: {"power": "sun", "floor": "2"}})
    assert [line.charges[0].card for line in statement.lines] == ["solar@2026-01-01", "house@2026-01-01"]
    assert [place.labels for place in statement.boards] == [{"floor": "2", "power": "sun"}, {}]


def test_currencies_are_not_added_up() -> None:
    records = [container(0, START + MINUTE, cpu_us=HOUR_US, net_rx=10**9)]
    cards = [card("a", cpu_hour="1"), card("b", currency="CHF", network_in_gb="2")]
    totals = drawn([Log(ORIGIN, records)], cards).totals
    assert [(total.currency, total.amount) for total in totals] == [("CHF", 2_000_000), ("EUR", 1_000_000)]


# --- borders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to_ms", "period"),
    [(START, "2026-10"), (START + 1, "2026-11"), (END, "2026-11"), (END + 1, "2026-12")],
)
def test_a_record_over_a_border_is_whole_in_the_period_in_which_it_ends(to_ms: int, period: str) -> None:
    log = Log(ORIGIN, [container(0, to_ms, cpu_us=9)])
    found = {each: quantities([drawn([log], period=each)]) for each in ("2026-10", "2026-11", "2026-12")}
    assert {each for each, counts in found.items() if counts} == {period}
    assert found[period] == {"cpu_hour": 9}


def test_a_record_over_a_change_of_prices_has_the_one_at_its_end() -> None:
    border = Period.parse("2026-11-15").start_ms
    cards = [card(cpu_hour="0.02"), card(since="2026-11-15", cpu_hour="0.04")]
    records = [
        container(0, border, cpu_us=HOUR_US),
        container(1, border + 5 * MINUTE, cpu_us=HOUR_US),  # five minutes before the border, five behind
        container(2, border + 15 * MINUTE, cpu_us=HOUR_US),
    ]
    old, new = sorted(drawn([Log(ORIGIN, records)], cards).lines, key=lambda line: line.from_ms)
    assert (old.leaves, charges(old)) == ("0", {"cpu_hour": (HOUR_US, 20_000)})
    assert (new.leaves, charges(new)) == ("1-2", {"cpu_hour": (2 * HOUR_US, 80_000)})


def test_a_change_of_somebody_elses_prices_divides_no_line() -> None:
    records = [container(seq, START + day * 1440 * MINUTE, cpu_us=1) for seq, day in enumerate((2, 20))]
    cards = [card(cpu_hour="0.02"), card("theirs", since="2026-11-10", cpu_hour="9", payer=PARTNER)]
    assert only(drawn([Log(ORIGIN, records)], cards)).leaves == "0-1"


def test_what_is_under_no_checkpoint_does_not_count() -> None:
    records = [container(seq, START + (seq + 1) * MINUTE, cpu_us=1) for seq in range(5)]
    statement = drawn([Log(ORIGIN, records, size=3)])
    assert only(statement).leaves == "0-2"
    assert statement.logs[0].size == 3


# --- clocks ------------------------------------------------------------------------------------------


def test_a_board_without_time_is_billed_when_it_is_known() -> None:
    """Started in 1970; after half an hour the clock is set: all of it is in the month."""
    wall = START + 60 * MINUTE
    records = [
        container(0, 10 * MINUTE, cpu_us=1, clock="unsynced"),
        container(1, 20 * MINUTE, cpu_us=2, clock="unsynced"),
        container(2, 30 * MINUTE, cpu_us=4, wall0_ms=wall - 10 * MINUTE, wall1_ms=wall),
    ]
    line = only(drawn([Log(ORIGIN, records)]))
    assert (line.leaves, line.is_uncertain, line.from_ms) == ("0-2", False, wall - 30 * MINUTE)


def test_what_has_no_certain_time_is_a_line_of_its_own() -> None:
    lost = "1" * 32
    records = [
        container(0, START + 10 * MINUTE, cpu_us=1),
        container(1, 10 * MINUTE, cpu_us=2, boot=lost, clock="unsynced"),
        container(2, 20 * MINUTE, cpu_us=4, boot=lost, clock="unsynced"),
    ]
    certain, uncertain = drawn([Log(ORIGIN, records)]).lines
    assert (certain.leaves, certain.is_uncertain) == ("0", False)
    assert (uncertain.leaves, uncertain.is_uncertain) == ("1-2", True)
    assert uncertain.to_ms == START + 10 * MINUTE


def test_a_clock_that_jumps_a_year_is_billed_as_it_said_and_nothing_twice() -> None:
    year = 365 * 1440 * MINUTE
    at = [START + 10 * MINUTE, START + year, START + 30 * MINUTE]
    records = [container(seq, wall, cpu_us=1 << seq) for seq, wall in enumerate(at)]
    logs = [Log(ORIGIN, records)]
    assert quantities([drawn(logs)]) == {"cpu_hour": 5}
    assert quantities([drawn(logs, period=month_of(START + year))]) == {"cpu_hour": 2}


# --- for any logs -------------------------------------------------------------------------------------

YEARS = Period.parse("2026-01").start_ms + 1, Period.parse("2027-12").end_ms
BORDERS = [Period.parse(f"2026-{month:02}").end_ms for month in range(1, 13)]

maybe = st.none() | st.integers(0, 2**40)
moments = st.integers(*YEARS) | st.sampled_from(BORDERS) | st.sampled_from([each + 1 for each in BORDERS])


@st.composite
def any_log(draw: st.DrawFn, origin: str) -> Log:
    records: list[Known] = []
    for seq in range(draw(st.integers(0, 8))):
        to_ms = draw(moments)
        length = draw(st.sampled_from([0, 10 * MINUTE, 40 * 1440 * MINUTE]))
        mono_ms = length + draw(st.integers(0, 2**38))
        common: dict[str, Any] = {
            "boot": draw(st.sampled_from(["0" * 32, "1" * 32, "2" * 32])),
            "clock": draw(st.sampled_from(["synced", "hub", "unsynced"])),
            "mono0_ms": mono_ms - length,
            "mono1_ms": mono_ms,
        }
        if draw(st.booleans()):
            counts = {name: draw(maybe) for name in FIELDS if name != "readings"}
            payer, app = draw(st.sampled_from(["", HUB, PARTNER])), draw(st.sampled_from("ab"))
            record: Known = container(seq, to_ms, payer=payer, app=app, **counts, **common)
        else:
            record = sensor(seq, to_ms, draw(st.integers(0, 2**50)), **common)
        records.append(record)
    return Log(origin, records)


logs = st.tuples(any_log(ORIGIN), any_log(OTHER))
cards = st.lists(
    st.builds(
        card,
        st.sampled_from(["house", "other"]),
        since=st.sampled_from(["2026-01-01", "2026-11-15", "2027-02-01"]),
        payer=st.sampled_from(["", PARTNER]),
        cpu_hour=st.sampled_from(["0", "0.02", "999999999.999999"]),
        reading=st.sampled_from(["0.000001", "3"]),
    ),
    max_size=3,
    unique_by=lambda card: card.id,
)


def all_statements(found: Sequence[Log], prices: Sequence[Card] = ()) -> list[Statement]:
    """Of every month in which something was used, and those beside it."""
    ends = {
        Times(boots_of(stamps)).span(stamp).to_ms
        for log in found
        for stamps in [stamps_of(log.records)]
        for stamp in stamps
    }
    months = {month_of(at_ms + days * DAY_MS) for at_ms in ends for days in (-31, 0, 31)}
    statements = []
    for month in sorted(months):
        reckoning = reckoned(found, prices, month)
        statements += [reckoning.statement(payer) for payer in reckoning.payers]
    return statements


@given(logs)
def test_the_sum_over_all_statements_is_the_sum_over_all_records(found: tuple[Log, Log]) -> None:
    """Whatever the clocks said: each record is in one line of one statement."""
    statements = all_statements(found)
    assert quantities(statements) == {
        name: count
        for name, meter in METERS.items()
        if (count := counted([record for log in found for record in log.records]).get(meter.field))
        is not None
    }
    leaves = [
        (line.origin, leaf) for each in statements for line in each.lines for leaf in leaves_of(line.leaves)
    ]
    assert sorted(leaves) == sorted((log.origin, record.seq) for log in found for record in log.records)


@given(logs, cards)
def test_amounts_follow_from_quantities_and_prices(found: tuple[Log, Log], prices: list[Card]) -> None:
    for statement in all_statements(found, prices):
        check(statement)
        for charge in (charge for line in statement.lines for charge in line.charges):
            exact = Fraction(int(charge.quantity) * charge.price, METERS[charge.meter].divisor)
            assert abs(charge.amount - exact) <= Fraction(1, 2)


@given(logs, cards, st.randoms())
def test_the_same_records_and_rates_give_the_same_bytes(
    found: tuple[Log, Log], prices: list[Card], dice: random.Random
) -> None:
    """In whatever order, in whatever parts, and from the bytes of the entries as well."""
    shuffled = [
        replace(log, records=[cast("Known", read(encode(record))) for record in log.records]) for log in found
    ]
    dice.shuffle(shuffled)
    again = dice.sample(prices, len(prices))
    for one, other in zip(all_statements(found, prices), all_statements(shuffled, again), strict=True):
        assert bytes_of(one) == bytes_of(other)


@given(logs, cards)
def test_bytes_are_read_as_what_was_written(found: tuple[Log, Log], prices: list[Card]) -> None:
    for statement in all_statements(found, prices):
        amounts = [charge.amount for line in statement.lines for charge in line.charges]
        amounts += [total.amount for total in statement.totals]
        if max(amounts, default=0) <= 2**53:
            assert read_statement(bytes_of(statement)) == statement
        else:  # beyond what every reader of JSON can hold: refused, never cut
            with pytest.raises(Refused, match=r"is not within|beyond 64 bits"):
                read_statement(bytes_of(statement))


def test_the_bytes_themselves() -> None:
    """Held still: whoever changes them changes what a hash of a statement means."""
    records = [container(0, START + 10 * MINUTE, cpu_us=HOUR_US, boot=BOOT)]
    statement = drawn([Log(ORIGIN, records)], [card(cpu_hour="0.02")], labels={BOARD: {"ort": "Küche"}})
    assert bytes_of(statement).decode() == (
        '{"v":1,"hub":"hhhhhhhhhhhhhhhh","name":"north","period":"2026-11","from_ms":1793491200000,'
        '"to_ms":1796083200000,"payer":"hhhhhhhhhhhhhhhh","number":0,"previous":"","issued_ms":0,'
        '"logs":[{"origin":"bbbbbbbbbbbbbbbb/usage/eeeeeeeeeeeeeeee","size":1,'
        '"root":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}],'
        '"boards":[{"board":"bbbbbbbbbbbbbbbb","labels":{"ort":"Küche"}}],'
        '"cards":[{"name":"house","currency":"EUR","valid_from":"2026-01-01","prices":{"cpu_hour":"0.02"},'
        '"payer":"","workspace":"","label":""}],"holes":[],'
        '"lines":[{"workspace":"default","board":"bbbbbbbbbbbbbbbb",'
        '"origin":"bbbbbbbbbbbbbbbb/usage/eeeeeeeeeeeeeeee","app":"blog","service":"web","sensor":"",'
        '"is_uncertain":false,"from_ms":1793491200000,"to_ms":1793491800000,"leaves":"0",'
        '"charges":[{"meter":"cpu_hour","quantity":"3600000000","price":20000,"amount":20000,'
        '"currency":"EUR","card":"house@2026-01-01"}]}],"totals":[{"currency":"EUR","amount":20000}]}'
    )


# --- a statement that was changed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"amount":20000,', '"amount":20001,'),
        ('"quantity":"3600000000"', '"quantity":"3700000000"'),
        ('"price":20000', '"price":20001'),
        ('"cpu_hour":"0.02"', '"cpu_hour":"0.03"'),
        ('"leaves":"0"', '"leaves":"1"'),
        ('"leaves":"0"', '"leaves":""'),
        ('"size":1', '"size":0'),
        ('"totals":[{"currency":"EUR","amount":20000}]', '"totals":[]'),
        ('"meter":"cpu_hour"', '"meter":"reading"'),
        ('"card":"house@2026-01-01"', '"card":"other@2026-01-01"'),
        ('"currency":"EUR","card"', '"currency":"USD","card"'),
    ],
)
def test_a_number_that_does_not_follow_is_found(old: str, new: str) -> None:
    records = [container(0, START + 10 * MINUTE, cpu_us=HOUR_US)]
    data = bytes_of(drawn([Log(ORIGIN, records)], [card(cpu_hour="0.02")])).decode()
    assert data.count(old) == 1
    with pytest.raises(Corrupt):
        read_statement(data.replace(old, new).encode())
