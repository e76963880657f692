"""Rate cards and statements in the API, and as an operator types them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.wire.errors import EXIT_CODES, Busy, Refused
from hub.cli import usage_statement
from hub.cli.rates import money
from hub.ledger.focus import COLUMNS
from hub.ledger.meters import METERS
from hub.ledger.money import cents, rough
from hub.ledger.statement import read_statement
from hub.web.api import ROUTES
from hub.web.openapi import describe
from support.api import Api
from support.bills import MINUTE, NOVEMBER, container, metered, sensor
from support.boardlog import BoardLog
from support.shell import Shell
from support.webhub import ADMIN, WebHub

START, END = NOVEMBER.start_ms, NOVEMBER.end_ms
HOUR_US = 3_600_000_000
PARTNER = "p" * 16
HOUSE = """\
name = "house"
currency = "EUR"
valid_from = 2026-11-01

[prices]
cpu_hour = "0.02"
reading = "0.00001"
"""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    """A hub on the second of December, one of whose boards has used something in November."""
    async with WebHub.open(tmp_path) as hub:
        hub.skew_ms = END + 24 * 60 * MINUTE - hub.now_ms
        yield hub


@pytest.fixture
async def log(hub: WebHub) -> BoardLog:
    whose = {"payer": hub.parts.id}
    return await metered(
        hub,
        "pump",
        container(0, START + 10 * MINUTE, cpu_us=HOUR_US, net_tx=2_500_000, **whose),
        container(1, START + 10 * MINUTE, cpu_us=HOUR_US // 2, app="shop", payer=PARTNER),
        sensor(2, START + 20 * MINUTE, 1440),
    )


@pytest.fixture
async def api(hub: WebHub) -> AsyncIterator[Api]:
    token = await hub.access.new_api_token(ADMIN, "test")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        yield Api(http, hub.url, describe(ROUTES, version="0.1.0"))


@pytest.fixture
async def shell(hub: WebHub, tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    (home / "house.toml").write_text(HOUSE)
    return Shell(home, hub.url, await hub.access.new_api_token(ADMIN, "shell"))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- the API -----------------------------------------------------------------------------------------


async def test_cards_are_set_listed_and_removed(hub: WebHub, api: Api) -> None:
    assert (await api.call("GET", "/rates"))["rates"] == []
    card = await api.call("PUT", "/rates", json={"text": HOUSE})
    assert (card["id"], card["text"], card["author"]) == ("house@2026-11-01", HOUSE, ADMIN)
    assert card["prices"] == {"cpu_hour": 20_000, "reading": 10}
    assert card["is_in_force"]
    assert (await api.call("GET", "/rates"))["rates"] == [card]
    said = await api.refuses("PUT", "/rates", 422, "rates", json={"text": HOUSE.replace('"0.02"', "0.02")})
    assert said.startswith(
        "prices.cpu_hour: expected a string, not 0.02 prices are written in quotation marks"
    )
    await api.call("DELETE", "/rates/house@2026-11-01", status=204)
    await api.refuses("DELETE", "/rates/house@2026-11-01", 404, "not-found")
    assert (await api.call("GET", "/rates"))["rates"] == []


async def test_a_statement_and_its_bytes(hub: WebHub, api: Api, log: BoardLog) -> None:
    await api.call("PUT", "/rates", json={"text": HOUSE})
    statement = await api.call("GET", "/usage/statements/2026-11")
    assert statement["totals"] == [{"currency": "EUR", "amount": 34_400}]
    assert [(line["app"], line["sensor"], line["leaves"]) for line in statement["lines"]] == [
        ("blog", "", "0"),
        ("", "room", "2"),
    ]
    issued = await api.call("POST", "/usage/statements/2026-11", status=201, json={})
    assert (issued["number"], issued["issued_ms"] > END, issued["lines"]) == (1, True, statement["lines"])
    text = await api._http.get(f"{hub.url}/api/v1/usage/statements/2026-11?number=1")
    [account] = [
        each
        for each in (await api.call("GET", "/usage/statements?period=2026-11"))["accounts"]
        if each["payer"] == hub.parts.id
    ]
    assert account["issued"][0]["digest"] == hashlib.sha256(await text.read()).hexdigest()
    assert not account["is_behind"]
    again = await api.call("GET", "/usage/statements/2026-11?number=1")
    assert again == issued
    await api.refuses("POST", "/usage/statements/2026-11", 409, "unchanged", json={})
    await api.refuses("POST", "/usage/statements/2026-12", 409, "too-early", json={})
    await api.refuses("GET", "/usage/statements/2026-11?number=2", 404, "not-found")
    await api.refuses("GET", "/usage/statements/november", 422, "invalid")
    await api.refuses("GET", "/usage/statements?period=2026", 422, "invalid")


async def test_each_payer_is_listed(hub: WebHub, api: Api, log: BoardLog) -> None:
    await api.call("PUT", "/rates", json={"text": HOUSE})
    answer = await api.call("GET", "/usage/statements?period=2026-11")
    assert (answer["from_ms"], answer["to_ms"]) == (START, END)
    found = {each["payer"]: each for each in answer["accounts"]}
    assert found[PARTNER]["totals"] == [{"currency": "EUR", "amount": 10_000}]
    assert found[PARTNER]["is_behind"]
    assert set(found) == {hub.parts.id, PARTNER}
    theirs = await api.call("GET", f"/usage/statements/2026-11?payer={PARTNER}")
    assert [line["app"] for line in theirs["lines"]] == ["shop"]
    empty = await api.call("GET", "/usage/statements")
    assert [(each["payer"], each["lines"], each["is_behind"]) for each in empty["accounts"]] == [
        (hub.parts.id, 0, False)
    ]


async def test_focus_has_everybody_or_one(hub: WebHub, api: Api, log: BoardLog) -> None:
    await api.call("PUT", "/rates", json={"text": HOUSE})
    everybody = rows_of(await api.call("GET", "/usage/statements/2026-11/focus"))
    assert tuple(everybody[0]) == COLUMNS
    assert {row["BillingAccountId"] for row in everybody} == {hub.parts.id, PARTNER}
    assert {row["x_LogOrigin"] for row in everybody} == {log.origin}
    one = rows_of(await api.call("GET", f"/usage/statements/2026-11/focus?payer={PARTNER}"))
    assert one == [row for row in everybody if row["BillingAccountId"] == PARTNER]

    await api.call("POST", "/usage/statements/2026-11", status=201, json={"payer": PARTNER})
    more = container(3, START + 30 * MINUTE, cpu_us=HOUR_US, app="shop", payer=PARTNER)
    await metered(hub, "pump", more, log=log)
    issued = rows_of(await api.call("GET", f"/usage/statements/2026-11/focus?payer={PARTNER}"))
    assert [(row["BilledCost"], bool(row["InvoiceId"])) for row in issued] == [("0.01", True)]
    now = rows_of(await api.call("GET", f"/usage/statements/2026-11/focus?payer={PARTNER}&number=0"))
    assert [(row["BilledCost"], row["InvoiceId"]) for row in now] == [("0.03", "")]


async def test_all_operations_are_here(hub: WebHub, api: Api, log: BoardLog) -> None:
    """Each of them is held against its description above; a stranger is let to none."""
    ours = [route for route in ROUTES if route.path.startswith(("/rates", "/usage/statements"))]
    assert len(ours) == 7
    for route in ours:
        path = route.path.replace("{card}", "house@2026-11-01").replace("{period}", "2026-11")
        async with aiohttp.ClientSession() as http:
            answer = await http.request(route.method, f"{hub.url}/api/v1{path}", json={})
            assert answer.status in (401, 403)


# --- the command line ----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_cards_as_an_operator_types_them(hub: WebHub, shell: Shell) -> None:
    out, _ = await shell.type("rate", "ls")
    assert out == "No rate cards, so everything is free. Set one with: lichen rate set FILE\n"
    out, _ = await shell.type("rate", "set", "house.toml")
    assert out == (
        "house@2026-11-01 is set: from 2026-11-01, for everybody: cpu_hour 0.02, reading 0.00001 EUR.\n"
    )
    coming = HOUSE.replace("2026-11-01", "2027-01-01").replace(
        "[prices]", 'payer = "p"\nlabel = "site=a"\n[prices]'
    )
    out, _ = await shell.type("rate", "set", "-", stdin=coming)
    assert "for payer p, label site=a" in out
    assert out.endswith("It does not count today.\n")
    out, _ = await shell.type("rate", "ls")
    assert [line.split()[0] for line in out.splitlines()] == ["card", "house@2026-11-01", "house@2027-01-01"]
    assert [each["id"] for each in (await shell.json("rate", "ls"))["rates"]] == [
        "house@2026-11-01",
        "house@2027-01-01",
    ]
    out, _ = await shell.type("rate", "rm", "house@2027-01-01")
    assert out == "house@2027-01-01 does not count any more.\n"
    _, err = await shell.type("rate", "set", "-", stdin="name =", status=EXIT_CODES[Refused])
    assert "is not TOML" in err
    _, err = await shell.type("rate", "set", "nowhere.toml", status=78)
    assert "nowhere.toml cannot be read: No such file" in err


@pytest.mark.slow
async def test_a_month_as_an_operator_types_it(hub: WebHub, log: BoardLog, shell: Shell) -> None:
    await shell.type("rate", "set", "house.toml")
    out, err = await shell.type("usage", "statement", "--period", "2026-11")
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("2026-11, this hub: all that was used, as of now\n")
    assert lines[2] == ["blog/web", "pump", "processor", "time", "1", "h", "0.02", "EUR", "0.02"]
    assert lines[3] == ["sent", "0.0025", "GB", "free"]
    assert lines[4] == ["room", "pump", "readings", "1440", "0.00001", "EUR", "0.0144"]
    assert lines[-1] == ["Total:", "0.0344", "EUR"]
    assert "lichen usage proof" in err

    out, _ = await shell.type(
        "usage", "statement", "--period", "2026-11", "--issue", "-o", "one.json", "--focus", "one.csv"
    )
    assert out.startswith("2026-11, this hub: statement 1 of 2026-12-02")
    data = (shell.folder / "one.json").read_bytes()
    statement = read_statement(data)
    [account] = [
        each
        for each in (await shell.json("usage", "accounts", "--period", "2026-11"))["accounts"]
        if each["payer"] == hub.parts.id
    ]
    assert account["issued"][0]["digest"] == hashlib.sha256(data).hexdigest()
    rows = rows_of((shell.folder / "one.csv").read_text())
    assert sum(round(float(row["BilledCost"]) * 1_000_000) for row in rows) == statement.totals[0].amount
    shown = await shell.json("usage", "statement", "--period", "2026-11", "--number", "1")
    assert shown == json.loads(data)

    more = container(3, START + 30 * MINUTE, cpu_us=HOUR_US, payer=hub.parts.id)
    await metered(hub, "pump", more, log=log)
    out, _ = await shell.type("usage", "accounts", "--period", "2026-11")
    assert [line.split()[0] for line in out.splitlines()] == ["payer", *sorted([hub.parts.id, PARTNER])]
    assert out.count("to be issued") == 2
    out, _ = await shell.type("usage", "statement", "--period", "2026-11", "--issue")
    assert f"takes back line 0 of {account['issued'][0]['digest'][:8]}" in out
    assert "Total: 0.02 EUR" in out
    _, err = await shell.type(
        "usage", "statement", "--period", "2026-11", "--issue", status=EXIT_CODES[Refused]
    )
    assert "statement 2 of 2026-11 says it all" in err
    _, err = await shell.type(
        "usage", "statement", "--period", "2026-11", "--number", "7", status=EXIT_CODES[Refused]
    )
    assert "2 statements of 2026-11 were issued" in err
    await shell.type("usage", "statement", "--number", "1", "--issue", status=2)


@pytest.mark.slow
async def test_what_nobody_used_is_said(hub: WebHub, shell: Shell) -> None:
    out, _ = await shell.type("usage", "statement")
    assert out.endswith("Nothing was used.\n")
    out, _ = await shell.type("usage", "export", "--focus", "--period", "2026-11")
    assert out.rstrip("\r\n") == ",".join(COLUMNS)
    _, err = await shell.type("usage", "statement", "--period", "../me", status=EXIT_CODES[Refused])
    assert "'../me' is no period" in err


@pytest.mark.slow
async def test_an_export_of_a_month(hub: WebHub, log: BoardLog, shell: Shell) -> None:
    out, _ = await shell.type("usage", "export", "--focus", "--period", "2026-11", "-o", "all.csv")
    assert out == ""
    rows = rows_of((shell.folder / "all.csv").read_text())
    assert {row["BillingAccountId"] for row in rows} == {hub.parts.id, PARTNER}
    out, _ = await shell.type("usage", "export", "--focus", "--period", "2026-11", "--payer", PARTNER)
    assert {row["BillingAccountId"] for row in rows_of(out)} == {PARTNER}
    await shell.type("usage", "export", "--period", "2026-11", status=2)


def test_the_command_line_counts_as_the_hub_does() -> None:
    """It has no part of the hub in it, so it has units and amounts of its own."""
    known: dict[str, Any] = {name: (meter.divisor, meter.unit) for name, meter in METERS.items()}
    assert {name: unit[1:] for name, unit in usage_statement.UNITS.items()} == known
    for amount in (0, 1, -1, 500, 20_000, 1_500_000, 12_000_000, -34_560_789):
        assert money(amount) == cents(amount)
    for count in (0, 1, -1, 138_040, 5_400_000_000, 10**15 + 1):
        for meter in METERS.values():
            shown = usage_statement.quantity(count, meter.divisor, meter.unit)
            assert shown == f"{rough(count, meter.divisor)} {meter.unit}".strip()
    assert EXIT_CODES[Busy] == 75
