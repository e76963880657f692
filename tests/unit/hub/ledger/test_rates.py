"""Rate cards: what an operator may write, and which one counts for whom and when."""

from __future__ import annotations

import pytest

from agent.wire.errors import ConfigError
from hub.ledger.period import DAY_MS, Period
from hub.ledger.rates import Card, Customer, choose, in_force, parse_card
from support.bills import HUB, card

EVERYBODY = Customer(HUB, "default", {"site": "north", "spare": ""})
NOON = Period.parse("2026-11-15").start_ms + DAY_MS // 2

WHOLE = """
name = "partner-a"
currency = "CHF"
valid_from = 2026-11-01
valid_until = 2026-12-31
payer = "aaaaaaaaaaaaaaaa"
workspace = "lab"
label = "site=north"

[prices]
cpu_hour = "0.02"
memory_gib_hour = "0.005"
network_in_gb = "0"
network_out_gb = "0.09"
io_read_gb = "0.000001"
io_write_gb = "12"
reading = "0.00001"
"""


def prices(*cards: Card, customer: Customer = EVERYBODY, at_ms: int = NOON) -> dict[str, int]:
    return {meter: priced.price for meter, priced in choose(cards, customer, at_ms).items()}


def test_every_key_of_a_card() -> None:
    found = parse_card(WHOLE)
    assert found.id == "partner-a@2026-11-01"
    assert (found.from_ms, found.until_ms) == (
        Period.parse("2026-11").start_ms,
        Period.parse("2026-12").end_ms,
    )
    customer = Customer("aaaaaaaaaaaaaaaa", "lab", {"site": "north"})
    assert prices(found, customer=customer) == {
        "cpu_hour": 20_000, "memory_gib_hour": 5_000, "network_in_gb": 0, "network_out_gb": 90_000,
        "io_read_gb": 1, "io_write_gb": 12_000_000, "reading": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"0.02"', "0.02", "prices.cpu_hour: expected a string, not 0.02"),
        ('"0.02"', '"0.0000001"', "is not a price in quotation marks"),
        ('"0.02"', '"-1"', "is not a price"),
        ('"0.02"', '"1e3"', "is not a price"),
        ('"0.02"', '"1234567890"', "is not a price"),
        ("cpu_hour", "cpu_hours", "prices.cpu_hours: unknown key; did you mean 'cpu_hour'?"),
        ('"CHF"', '"francs"', "currency: 'francs' is not a currency"),
        ('"partner-a"', '"Partner A"', "name: 'Partner A' is not lower-case"),
        ("2026-11-01", "2026-11-31", "is not TOML"),
        ("2026-11-01", '"2026-11-31"', "valid_from: 2026-11-31 is no day"),
        ("2026-11-01", "2026-11-01T00:00:00Z", "valid_from: expected a string"),
        ("2026-12-31", "2026-10-31", "valid_until: 2026-10-31 is before the first day"),
        ('"site=north"', '"=north"', "label: '=north' is not a label"),
        ("[prices]", "[[prices]]", "prices: expected a table"),
        ("name =", "naem =", "did you mean 'name'"),
    ],
)
def test_a_mistake_is_named_with_its_key(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_card(WHOLE.replace(old, new, 1))
    assert said in str(caught.value)


def test_a_number_of_toml_is_no_price_and_the_hint_says_how_one_is_written() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_card(WHOLE.replace('"0.02"', "0.02"))
    assert caught.value.hint == 'prices are written in quotation marks, such as cpu_hour = "0.02"'


def test_a_card_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="prices: there is none") as caught:
        card()
    assert "memory_gib_hour" in caught.value.hint


def test_the_most_particular_card_counts() -> None:
    house = card("house", cpu_hour="1", reading="1")
    label = card("a-label", cpu_hour="2", label="site=north")
    workspace = card("a-workspace", cpu_hour="3", workspace="default")
    payer = card("a-payer", cpu_hour="4", payer=HUB)
    assert prices(house) == {"cpu_hour": 1_000_000, "reading": 1_000_000}
    assert prices(house, label)["cpu_hour"] == 2_000_000
    assert prices(workspace, house, label)["cpu_hour"] == 3_000_000
    assert prices(payer, workspace, house, label) == {"cpu_hour": 4_000_000, "reading": 1_000_000}


def test_among_equals_the_first_by_name_counts() -> None:
    north, spare = card("b", cpu_hour="1", label="site=north"), card("a", cpu_hour="2", label="spare")
    assert prices(north, spare) == prices(spare, north) == {"cpu_hour": 2_000_000}


@pytest.mark.parametrize(
    "whose", [{"payer": "p" * 16}, {"workspace": "lab"}, {"label": "site=south"}, {"label": "site"}]
)
def test_a_card_for_others_does_not_count(whose: dict[str, str]) -> None:
    assert prices(card(cpu_hour="1", **whose)) == {}


def test_a_card_counts_from_its_first_day_to_its_last() -> None:
    only = card(since="2026-11-10", valid_until="2026-11-20", cpu_hour="1")
    first, last = Period.parse("2026-11-10"), Period.parse("2026-11-20")
    assert prices(only, at_ms=first.start_ms) == {}  # what ended with midnight is of the day before
    assert prices(only, at_ms=first.start_ms + 1)
    assert prices(only, at_ms=last.end_ms)
    assert prices(only, at_ms=last.end_ms + 1) == {}


def test_a_later_card_of_a_name_takes_its_place_for_good() -> None:
    old = card(since="2026-01-01", cpu_hour="1", reading="1")
    new = card(since="2026-11-01", valid_until="2026-11-20", cpu_hour="2")
    assert prices(new, old) == {"cpu_hour": 2_000_000}  # readings are free now: the new card says none
    assert prices(new, old, at_ms=Period.parse("2026-11").start_ms) == {
        "cpu_hour": 1_000_000,
        "reading": 1_000_000,
    }
    assert in_force([old, new], Period.parse("2026-12").end_ms) == []
