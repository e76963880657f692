"""FOCUS 1.2: every mandatory column, every rule for them that fits us, and sums that are the statement's."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.ledger.corrections import continued
from hub.ledger.focus import COLUMNS, MANDATORY, OWN, export
from hub.ledger.leaves import read as leaves_of
from hub.ledger.meters import METERS
from hub.ledger.money import MICRO
from hub.ledger.statement import Statement, digest_of
from support.bills import (
    BOARD,
    HUB,
    MINUTE,
    NOVEMBER,
    ORIGIN,
    Log,
    card,
    container,
    drawn,
    quantities,
    reckoned,
    sensor,
)  # fmt: skip

START = NOVEMBER.start_ms
PARTNER = "p" * 16
CARDS = (card(cpu_hour="0.02", memory_gib_hour="0.005", network_out_gb="0.09", reading="0.00001"),)

# The rules of the specification, version 1.2, as far as one can see a row by itself.
SPEC = json.loads((Path(__file__).parents[3] / "vectors" / "focus-1.2.json").read_text())
DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UNITS = {"Core-Microseconds", "Core-Hours", "B-Milliseconds", "GiB-Hours", "B", "GB", "Readings"}


def rows_of(*statements: Statement) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(export(statements).decode(), newline="")))


def check_row(row: dict[str, str]) -> None:
    """What the specification asks of a row."""
    assert not [name for name in SPEC["not_null"] if not row[name]]
    for name in SPEC["decimal"]:
        assert DECIMAL.fullmatch(row[name]), (name, row[name])
    assert re.fullmatch("[A-Z]{3}", row["BillingCurrency"])
    for name in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"):
        assert MOMENT.fullmatch(row[name]), row[name]
    assert row["ChargePeriodStart"] <= row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
    assert row["ChargeCategory"] == "Usage"
    assert row["ChargeClass"] in ("", "Correction")
    assert row["ChargeFrequency"] == "Usage-Based"
    assert row["PricingCategory"] == "Standard"
    assert row["ServiceCategory"] in SPEC["service_categories"]
    assert {row["ConsumedUnit"], row["PricingUnit"]} <= UNITS
    assert Fraction(row["ListUnitPrice"]) >= 0
    assert row["ProviderName"] == row["InvoiceIssuerName"]  # else BilledCost would have to be 0
    assert len({row[name] for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")}) == 1
    assert row["SkuId"] in METERS


def check_product(row: dict[str, str]) -> None:
    """The cost is quantity times price: exactly, of what was consumed, and rounded to six places once."""
    price = Fraction(row["ListUnitPrice"])
    exact = Fraction(int(row["ConsumedQuantity"]), METERS[row["SkuId"]].divisor) * price
    cost = Fraction(row["BilledCost"])
    assert abs(cost - exact) <= Fraction(1, 2 * MICRO)
    assert abs(Fraction(row["PricingQuantity"]) * price - exact) <= price / (2 * 10**12)


def some_statement() -> Statement:
    records = [
        container(0, START + 10 * MINUTE, cpu_us=3_600_000_001, mem_byte_ms=2**30 * 1000, net_tx=123, io_w=5),
        container(1, START + 20 * MINUTE + 1, cpu_us=7, clock="unsynced", boot="1" * 32),
        sensor(2, START + 30 * MINUTE, 1440),
    ]
    return drawn([Log(ORIGIN, records)], CARDS, labels={BOARD: {"site": "north", "spare": ""}})


def test_all_mandatory_columns_are_there_in_order_and_ours_behind_them() -> None:
    assert len(SPEC["mandatory"]) == 21
    assert list(MANDATORY) == SPEC["mandatory"]
    header = export([]).decode().rstrip("\r\n").split(",")
    assert header == list(COLUMNS)
    assert set(SPEC["mandatory"]) <= set(header)
    ours = [name for name in header if name.startswith("x_")]
    assert {"x_LogOrigin", "x_LeafIndex", "x_CheckpointSize"} <= set(ours) == set(OWN)
    assert header == sorted(name for name in header if name not in ours) + sorted(ours)
    assert all(re.fullmatch("(x_)?[A-Z][A-Za-z]{1,49}", name) for name in header)


def test_every_row_is_as_the_specification_wants_it() -> None:
    statement = some_statement()
    rows = rows_of(statement)
    assert len(rows) == sum(len(line.charges) for line in statement.lines) == 6
    for row in rows:
        check_row(row)
        check_product(row)


def test_a_row_leads_back_to_the_log() -> None:
    row = rows_of(some_statement())[0]
    assert (row["x_LogOrigin"], leaves_of(row["x_LeafIndex"]), row["x_CheckpointSize"]) == (ORIGIN, [0], "3")
    assert (row["BilledCost"], row["ConsumedQuantity"], row["x_RateCardId"]) == (
        "0.02",
        "3600000001",
        "house@2026-01-01",
    )
    assert row["Tags"] == '{"site":"north","spare":true}'
    assert row["ResourceId"] == f"{BOARD}/container/blog/web"
    assert (row["SubAccountId"], row["BillingAccountId"], row["BillingAccountName"]) == (
        "default",
        HUB,
        "north",
    )


def test_what_is_free_has_a_row_too() -> None:
    [row] = [row for row in rows_of(some_statement()) if row["SkuId"] == "io_write_gb"]
    assert (row["BilledCost"], row["BillingCurrency"], row["ListUnitPrice"]) == ("0", "EUR", "0")
    [alone] = rows_of(drawn([Log(ORIGIN, [container(0, START + MINUTE, io_w=5)])]))
    assert alone["BillingCurrency"] == "XXX"
    check_row(alone)


def test_sums_are_those_of_the_statement() -> None:
    statement = some_statement()
    rows = rows_of(statement)
    assert [(total.currency, Fraction(total.amount, MICRO)) for total in statement.totals] == [
        ("EUR", sum(Fraction(row["BilledCost"]) for row in rows))
    ]
    assert quantities([statement]) == {
        name: sum(int(row["ConsumedQuantity"]) for row in rows if row["SkuId"] == name)
        for name in {row["SkuId"] for row in rows}
    }


def test_a_correction_says_so() -> None:
    log = Log(ORIGIN, [container(seq, START + (seq + 1) * MINUTE, cpu_us=3_600_000_000) for seq in range(2)])
    first = continued(reckoned([Log(ORIGIN, log.records[:1])], CARDS), HUB, [], 0)
    assert first is not None
    second = continued(reckoned([log], CARDS), HUB, [first], 1)
    assert second is not None
    rows = rows_of(first, second)
    assert [(row["ChargeClass"], row["BilledCost"], row["InvoiceId"]) for row in rows] == [
        ("", "0.02", digest_of(first)),
        ("Correction", "-0.02", digest_of(second)),
        ("Correction", "0.04", digest_of(second)),
    ]
    assert f"takes back line 0 of statement {digest_of(first)[:16]}" in rows[1]["ChargeDescription"]
    for row in rows:
        check_row(row)
        check_product(row)


def test_no_text_of_a_board_is_a_formula() -> None:
    records = [
        container(0, START + MINUTE, cpu_us=1, app='=cmd|"x"', service="a,b\n", workspace="@x", payer="+1")
    ]
    [row] = rows_of(drawn([Log(ORIGIN, records)], payer="+1"))
    assert not [value for value in row.values() if value.startswith(("=", "+", "@"))]
    assert row["ResourceName"] == '\'=cmd|"x"/a,b\n'


def test_a_time_is_whole_seconds_and_never_before_1970() -> None:
    records = [container(0, START + 1, cpu_us=1, length_ms=10**15, mono0_ms=0, mono1_ms=10**15)]
    [row] = rows_of(drawn([Log(ORIGIN, records)]))
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
        "1970-01-01T00:00:00Z",
        "2026-11-01T00:00:01Z",
    )
    assert datetime.fromisoformat(row["ChargePeriodEnd"]).tzinfo == UTC


counts = st.integers(0, 2**62)


@given(
    st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=4),
    st.sampled_from(["0", "0.000001", "123456.789012"]),
)
def test_any_row_is_as_the_specification_wants_it(used: Sequence[tuple[int, int, int]], price: str) -> None:
    records = [
        container(
            seq, START + (seq + 1) * MINUTE, cpu_us=cpu, mem_byte_ms=memory, net_rx=net, app="ab"[seq % 2]
        )
        for seq, (cpu, memory, net) in enumerate(used)
    ]
    cards = [card(cpu_hour=price, memory_gib_hour=price)]
    for row in rows_of(drawn([Log(ORIGIN, records)], cards)):
        check_row(row)
        check_product(row)


@pytest.mark.parametrize("payer", [HUB, PARTNER])
def test_the_same_bytes_twice(payer: str) -> None:
    records = [container(0, START + MINUTE, cpu_us=5, payer=payer)]
    one, other = (export([drawn([Log(ORIGIN, records)], CARDS, payer=payer)]) for _ in range(2))
    assert one == other
