"""`lichen usage statement`, `accounts` and `export`: what was used in a period, and what it costs.

Owns how a statement looks to a person.  Its exact bytes, which the digest of an issued one is made of, are
what ``--output`` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from agent.base.files import write_file
from agent.wire.decode import dumps
from hub.cli.client import Hub
from hub.cli.output import print_json, print_table, when
from hub.cli.rates import money
from hub.cli.root import asks_hub, json_option

UNITS = {
    "cpu_hour": ("processor time", 3_600_000_000, "h"),
    "memory_gib_hour": ("memory", 2**30 * 3_600_000, "GiB h"),
    "network_in_gb": ("received", 10**9, "GB"),
    "network_out_gb": ("sent", 10**9, "GB"),
    "io_read_gb": ("read from disks", 10**9, "GB"),
    "io_write_gb": ("written to disks", 10**9, "GB"),
    "reading": ("readings", 1, ""),
}
"""Of each meter: what it is called, how many counts are one unit, and that unit."""

READABLE = 0o644
PATIENCE_S = 300
"""A hub with many boards has many records to add up."""

period_option = click.option("--period", default="", help="A month or a day in UTC  [default: this month]")
payer_option = click.option("--payer", default="", help="Who pays  [default: this hub]")


@click.command()
@period_option
@json_option
@asks_hub
async def accounts(hub: Hub, period: str, as_json: bool) -> None:
    """List who has used something in a period, what it costs, and what was issued.

    \b
    lichen usage accounts --period 2026-11
    """
    answer = await hub.call("GET", "/usage/statements", params={"period": period}, within_s=PATIENCE_S)
    if as_json:
        return print_json(answer)
    rows = [
        (
            each["payer"],
            str(each["lines"]),
            _totals(each),
            _issued(each),
            "to be issued" if each["is_behind"] else "",
        )
        for each in answer["accounts"]
    ]
    print_table(("payer", "lines", answer["period"], "issued", ""), rows)


@click.command()
@period_option
@payer_option
@click.option("--number", type=click.IntRange(1), help="One that was issued.")
@click.option("--issue", is_flag=True, help="Issue it: the whole at first, later what has changed.")
@click.option("--focus", type=click.Path(path_type=Path), help="Write it to this file as FOCUS 1.2, too.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write its exact bytes to this file, too."
)
@json_option
@asks_hub
async def statement(
    hub: Hub,
    period: str,
    payer: str,
    number: int | None,
    issue: bool,
    focus: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print what was used in a period and what it costs.

    Without --number or --issue that is everything, as of now. What was issued is never changed: what comes
    to light later is in a further statement, which takes lines back and says what is right.

    \b
    lichen usage statement
    lichen usage statement --period 2026-11 --issue
    lichen usage statement --period 2026-11 --number 1 --focus november.csv
    """
    if issue and number:
        raise click.UsageError("--issue and --number exclude each other")
    path = f"/usage/statements/{quote(period or _month(), safe='')}"
    if issue:
        answer = await hub.call("POST", path, json={"payer": payer}, within_s=PATIENCE_S)
    else:
        query = {"payer": payer, "number": number or 0}
        answer = await hub.call("GET", path, params=query, within_s=PATIENCE_S)
    if output is not None:
        write_file(output, dumps(answer), READABLE)
    if focus is not None:
        query = {"payer": answer["payer"], "number": answer["number"]}
        write_file(focus, await hub.download(f"{path}/focus", params=query, accept="text/csv"), READABLE)
    print_json(answer) if as_json else await _print(hub, answer)


@click.command("export")
@click.option("--focus", is_flag=True, required=True, help="As FOCUS 1.2, a CSV file.")
@period_option
@click.option("--payer", default="", help="Who pays  [default: everybody]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="To this file, not to standard output.")
@asks_hub
async def export(hub: Hub, focus: bool, period: str, payer: str, output: Path | None) -> None:
    """Export the statements of a period: those that were issued, or else what was used so far.

    \b
    lichen usage export --focus --period 2026-11 -o november.csv
    """
    path = f"/usage/statements/{quote(period or _month(), safe='')}/focus"
    data = await hub.download(path, params={"payer": payer}, accept="text/csv")
    click.echo(data, nl=False) if output is None else write_file(output, data, READABLE)


COMMANDS = (accounts, statement, export)


def _month() -> str:
    """The month that goes on, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m")


# --- for people ------------------------------------------------------------------------------------


async def _print(hub: Hub, answer: dict[str, Any]) -> None:
    names = {board["id"]: board["name"] for board in await hub.pages("/boards", "boards")}
    click.echo(_title(answer))
    if answer["lines"]:
        columns = ("what", "board", "used", "quantity", "price", "amount", "")
        print_table(columns, [row for line in answer["lines"] for row in _rows(line, names)])
    else:
        click.echo("Nothing was used.")
    for hole in answer["holes"]:
        click.echo(
            f"Lost: {hole['count']} records of {hole['origin']} from {hole['first']} on: {hole['reason']}"
        )
    for total in answer["totals"]:
        click.echo(f"Total: {money(total['amount'])} {total['currency']}")
    if answer["lines"]:
        click.echo("Each line's records and checkpoint: --json.  Their proofs: lichen usage proof", err=True)


def _title(answer: dict[str, Any]) -> str:
    whose = "this hub" if answer["payer"] == answer["hub"] else answer["payer"]
    if not answer["number"]:
        return f"{answer['period']}, {whose}: all that was used, as of now"
    return f"{answer['period']}, {whose}: statement {answer['number']} of {when(answer['issued_ms'])}"


def _rows(line: dict[str, Any], names: dict[str, str]) -> Iterator[tuple[str | Text, ...]]:
    what = line["sensor"] or f"{line['app']}/{line['service']}"
    board = names.get(line["board"], line["board"])
    notes = ["time uncertain"] if line["is_uncertain"] else []
    if back := line.get("takes_back"):
        notes.append(f"takes back line {back['line']} of {back['statement'][:8]}")
    for charge in line["charges"]:
        said, divisor, unit = UNITS.get(charge["meter"], (charge["meter"], 1, ""))
        price = f"{money(charge['price'])} {charge['currency']}" if charge["card"] else "free"
        yield (
            what,
            board,
            said,
            Text(quantity(int(charge["quantity"]), divisor, unit), justify="right"),
            Text(price, justify="right"),
            Text(money(charge["amount"]) if charge["card"] else "", justify="right"),
            ", ".join(notes),
        )
        what = board = ""


def quantity(count: int, divisor: int, unit: str) -> str:
    """A count in the unit of its price: three decimals, and more where three digits would not be seen.

    >>> quantity(5_400_000_000, 3_600_000_000, "h"), quantity(-138_040, 3_600_000_000, "h")
    ('1.5 h', '-0.0000383 h')
    >>> quantity(1440, 1, ""), quantity(0, 10**9, "GB")
    ('1440', '0 GB')
    """
    places = 3
    while count and abs(count) * 10**places < 100 * divisor and places < 12:
        places += 1
    whole, fraction = divmod((2 * abs(count) * 10**places + divisor) // (2 * divisor), 10**places)
    text = f"{whole}.{fraction:0{places}}".rstrip("0").rstrip(".")
    sign = "-" if count < 0 and text != "0" else ""
    return f"{sign}{text} {unit}".strip()


def _totals(account: dict[str, Any]) -> str:
    return ", ".join(f"{money(total['amount'])} {total['currency']}" for total in account["totals"]) or "free"


def _issued(account: dict[str, Any]) -> str:
    return ", ".join(f"{each['number']} ({_totals(each)})" for each in account["issued"])
