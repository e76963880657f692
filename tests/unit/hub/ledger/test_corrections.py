"""What is issued after a statement was: lines are taken back and written anew, and nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hub.ledger.corrections import continued, holding
from hub.ledger.rates import Card
from hub.ledger.statement import Statement, check, digest_of, encode, read_statement
from support.bills import HUB, MINUTE, NOVEMBER, ORIGIN, Log, card, container, quantities, reckoned

START = NOVEMBER.start_ms
HOUR_US = 3_600_000_000
HOUSE = card(cpu_hour="0.02")


def issue(log: Log, issued: Sequence[Statement], cards: Sequence[Card] = (HOUSE,)) -> list[Statement]:
    """What was issued, and what is to be after it."""
    reckoning = reckoned([log], cards)
    statement = continued(reckoning, HUB, issued, issued_ms=len(issued))
    return [*issued, *([statement] if statement else [])]


def log_of(*hours: int, size: int | None = None) -> Log:
    records = [
        container(seq, START + (seq + 1) * 10 * MINUTE, cpu_us=each * HOUR_US, app="ab"[seq % 2])
        for seq, each in enumerate(hours)
    ]
    return Log(ORIGIN, records, size)


def amounts(statements: Sequence[Statement]) -> int:
    return sum(total.amount for statement in statements for total in statement.totals)


def test_the_first_statement_has_the_number_one_and_says_it_all() -> None:
    [first] = issue(log_of(1, 2), [])
    assert (first.number, first.previous, first.issued_ms) == (1, "", 0)
    assert (quantities([first]), amounts([first])) == ({"cpu_hour": 3 * HOUR_US}, 60_000)


def test_where_nothing_was_used_a_statement_says_so() -> None:
    [first] = issue(Log(ORIGIN, []), [])
    assert (first.number, first.lines, first.totals) == (1, (), ())


def test_nothing_new_is_no_new_statement() -> None:
    first = issue(log_of(1, 2), [])
    assert issue(log_of(1, 2), first) == first
    # Records of another month lengthen the log, and change nothing in this one.
    longer = log_of(1, 2)
    later = container(2, NOVEMBER.end_ms + MINUTE, cpu_us=5)
    assert issue(Log(ORIGIN, [*longer.records, later]), first) == first


def test_a_record_that_comes_late_is_in_lines_of_their_own() -> None:
    first, second = issue(log_of(1, 2, 4), issue(log_of(1, 2), []))
    back, right = second.lines
    assert (second.number, second.previous) == (2, digest_of(first))
    assert back.takes_back is not None
    assert (back.takes_back.statement, back.takes_back.line) == (digest_of(first), 0)
    assert (back.app, back.leaves, back.charges[0].quantity, back.charges[0].amount) == (
        "a", "0", str(-HOUR_US), -20_000,
    )  # fmt: skip
    assert (right.app, right.leaves, right.charges[0].amount) == ("a", "0,2", 100_000)
    assert [(total.currency, total.amount) for total in second.totals] == [("EUR", 80_000)]
    assert (quantities([first, second]), amounts([first, second])) == ({"cpu_hour": 7 * HOUR_US}, 140_000)
    check(second)


def test_a_price_that_is_set_right_is_a_correction_and_the_old_one_stays_as_it_was() -> None:
    before = issue(log_of(1), [])
    bytes_before = encode(before[0])
    first, second = issue(log_of(1), before, [card(cpu_hour="0.03")])
    assert encode(first) == bytes_before
    assert [line.charges[0].price for line in second.lines] == [20_000, 30_000]
    assert amounts([first, second]) == 30_000
    check(second)


def test_a_correction_can_be_corrected() -> None:
    issued = issue(log_of(1), [])
    issued = issue(log_of(1, 1, 1), issued)
    issued = issue(log_of(1), issued)  # a hub that was restored holds less again
    issued = issue(log_of(1, 1, 1), issued)
    assert [statement.number for statement in issued] == [1, 2, 3, 4]
    assert [statement.previous for statement in issued[1:]] == [digest_of(each) for each in issued[:-1]]
    assert amounts(issued) == 60_000
    assert sorted(line.leaves for line in holding(issued).values()) == ["0,2", "1"]


hours = st.lists(st.integers(0, 1000), min_size=1, max_size=6)
steps = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["0.02", "0.000001", "12.3"])), min_size=1, max_size=5
)


@given(hours, steps)
def test_however_often_it_is_corrected_the_sums_are_those_of_the_last_reckoning(
    hours: list[int], steps: list[tuple[int, str]]
) -> None:
    issued: list[Statement] = []
    for size, price in steps:
        log, cards = log_of(*hours[:size]), [card(cpu_hour=price)]
        issued = issue(log, issued, cards)
        now = reckoned([log], cards).statement(HUB)
        assert set(holding(issued).values()) == set(now.lines)
        assert amounts(issued) == amounts([now])
        assert {name: count for name, count in quantities(issued).items() if count} == {
            name: count for name, count in quantities([now]).items() if count
        }
        assert read_statement(encode(issued[-1])) == issued[-1]
