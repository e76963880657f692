"""Statements as FOCUS 1.2: the CSV that tools for the costs of clouds read.

Owns what each column of the FinOps Open Cost and Usage Specification (https://focus.finops.org) is for us.
Pure; `hub.ledger.books` is asked for it.  A row is one charge of a line.  All 21 mandatory columns are
there, the conditional ones that fit, and three of ours, by which a row leads back to what was signed:

    x_LogOrigin        the board's log
    x_LeafIndex        indexes of its records in that log, as `hub.ledger.leaves` writes them
    x_CheckpointSize   the size of a checkpoint that holds them all

Numbers are exact decimals made from integers.  `ConsumedQuantity` is the plain sum of the records;
`PricingQuantity` is that in the unit of the price, which a decimal cannot always hold: it is rounded to 12
places, and costs, of 6 places, are rounded once from the exact product.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from hub.ledger.meters import METERS, Meter
from hub.ledger.money import decimal, quotient
from hub.ledger.statement import Charge, Line, Statement, digest_of

PLACES = 12
NO_CURRENCY = "XXX"
"""ISO 4217: no currency; of charges without a price, where nothing else has one either."""

MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip
FITTING = (
    "ChargeFrequency", "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "InvoiceId",
    "ListUnitPrice", "PricingCategory", "ResourceId", "ResourceName", "ResourceType", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
)  # fmt: skip
OWN = ("x_CheckpointSize", "x_LeafIndex", "x_LogOrigin", "x_RateCardId")

# SPEC FOCUS ColumnHandling: all FOCUS columns before custom ones, each group in alphabetical order.
COLUMNS = (*sorted(MANDATORY + FITTING), *OWN)


def export(statements: Iterable[Statement]) -> bytes:
    """The file of some statements."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for statement in statements:
        for row in rows(statement):
            # SPEC FOCUS NullHandling: null for what is absent, which is an empty cell of a CSV file.
            writer.writerow([row[column] for column in COLUMNS])
    return text.getvalue().encode()


def rows(statement: Statement) -> Iterator[Mapping[str, str]]:
    """The charges of a statement, each by column; what is null is empty."""
    whole = _of_statement(statement)
    sizes = {log.origin: str(log.size) for log in statement.logs}
    tags = {place.board: _tags(place.labels) for place in statement.boards}
    currencies = [total.currency for total in statement.totals]
    usual = currencies[0] if len(currencies) == 1 else NO_CURRENCY
    for line in statement.lines:
        of_line = _of_line(line) | {"Tags": tags[line.board], "x_CheckpointSize": sizes[line.origin]}
        for charge in line.charges:
            yield whole | of_line | _of_charge(charge, line, charge.currency or usual)


def _of_statement(statement: Statement) -> dict[str, str]:
    provider = _text(statement.name or statement.hub)
    return {
        "BillingAccountId": _text(statement.payer),
        # The hub itself is the one payer that has a name here.
        "BillingAccountName": provider if statement.payer == statement.hub else "",
        "BillingPeriodStart": _time(statement.from_ms),
        "BillingPeriodEnd": _time(statement.to_ms),
        "ChargeCategory": "Usage",
        # SPEC FOCUS ChargeClass: "Correction" in a row that corrects a billing period already invoiced.
        "ChargeClass": "Correction" if statement.number > 1 else "",
        "ChargeFrequency": "Usage-Based",
        "InvoiceId": digest_of(statement) if statement.number else "",
        "InvoiceIssuerName": provider,
        "PricingCategory": "Standard",
        "ProviderName": provider,
        "PublisherName": provider,
    }


def _of_line(line: Line) -> dict[str, str]:
    name = line.sensor or f"{line.app}/{line.service}"
    kind = "Sensor" if line.sensor else "Container"
    service = (
        ("Internet of Things", "Other (Internet of Things)", "Lichen sensors")
        if line.sensor
        else ("Compute", "Containers", "Lichen apps")
    )
    return {
        "ChargePeriodStart": _time(line.from_ms),
        # SPEC FOCUS ChargePeriodEnd: an exclusive bound, so a part of a second counts as a whole one.
        "ChargePeriodEnd": _time(line.to_ms + 999),
        "ResourceId": f"{line.board}/{kind.lower()}/{name}",
        "ResourceName": _text(name),
        "ResourceType": kind,
        "ServiceCategory": service[0],
        "ServiceSubcategory": service[1],
        "ServiceName": service[2],
        "SubAccountId": _text(line.workspace),
        "SubAccountName": _text(line.workspace),
        "x_LeafIndex": line.leaves,
        "x_LogOrigin": line.origin,
    }


def _of_charge(charge: Charge, line: Line, currency: str) -> dict[str, str]:
    meter = METERS[charge.meter]
    price, cost = decimal(charge.price), decimal(charge.amount)
    return {
        # Nothing is discounted, paid ahead or spread over time: all costs are the one.
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), price),
        # SPEC FOCUS SkuPriceId: it must stay the same over time, whatever the price, and may equal SkuId.
        **dict.fromkeys(("SkuId", "SkuPriceId"), meter.name),
        "BillingCurrency": currency,
        "ChargeDescription": _text(_description(charge, line, meter)),
        "ConsumedQuantity": charge.quantity,
        "ConsumedUnit": meter.consumed,
        "PricingQuantity": quotient(int(charge.quantity), meter.divisor, PLACES),
        "PricingUnit": meter.priced,
        "SkuMeter": meter.said,
        "SkuPriceDetails": "",
        "x_RateCardId": charge.card,
    }


def _description(charge: Charge, line: Line, meter: Meter) -> str:
    """What the charge is for, and at which price.

    SPEC FOCUS ChargeDescription: a self-contained summary of the charge's purpose and price.
    """
    whose = line.sensor or f"{line.app}/{line.service}"
    price = (
        f"{decimal(charge.price)} {charge.currency} per {meter.unit or 'piece'}" if charge.card else "free"
    )
    parts = [f"{whose} on board {line.board}: {meter.said}, {price}"]
    if line.is_uncertain:
        parts.append("the board did not know the time")
    if line.takes_back:
        parts.append(f"takes back line {line.takes_back.line} of statement {line.takes_back.statement[:16]}")
    return "; ".join(parts)


def _tags(labels: Mapping[str, str]) -> str:
    """Labels of the board.

    SPEC FOCUS Tags: a key that has no value has the boolean true.
    """
    pairs = {key: value or True for key, value in sorted(labels.items())}
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":")) if pairs else ""


def _time(at_ms: int) -> str:
    """SPEC FOCUS DateTimeFormat: UTC, as YYYY-MM-DDTHH:mm:ssZ.

    >>> _time(1_796_083_200_000), _time(-1)
    ('2026-12-01T00:00:00Z', '1970-01-01T00:00:00Z')
    """
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(at_ms, 0) // 1000)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(said: str) -> str:
    """Text of which boards chose a part, so that a spreadsheet takes it for no formula."""
    return "'" + said if said.startswith(("=", "+", "-", "@", "\t", "\r")) else said
