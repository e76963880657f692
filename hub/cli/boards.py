"""`lichen board`: the fleet, one board, its name and labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from agent.wire import words
from hub.cli.client import Hub
from hub.cli.output import age, console, labels, print_json, print_table, value, when
from hub.cli.root import asks_hub, json_option
from hub.cli.tokens import Label

MEANINGS = {"fine": "green", "silent": "yellow", "attention": "red"}
OVERVIEW = ("capacity.cpu", "capacity.memory", "capacity.disk")


@click.group()
def board() -> None:
    """The boards of the fleet."""


@board.command("ls")
@click.option("--search", default="", help="Part of a name or id.")
@click.option("--label", "pairs", type=Label(), multiple=True, help="Only boards with it; repeatable.")
@json_option
@asks_hub
async def list_boards(hub: Hub, search: str, pairs: tuple[tuple[str, str], ...], as_json: bool) -> None:
    """List boards: state, age of what is known, and how busy they are."""
    label = ",".join(f"{key}={text}" for key, text in pairs)
    boards = await hub.pages("/boards", "boards", params={"search": search, "label": label})
    if as_json:
        return print_json({"boards": boards})
    if not boards:
        return click.echo("No boards here. Add one with: lichen token new --name pump-07")
    now_ms = time.time_ns() // 1_000_000
    rows = [_overview(row, now_ms) for row in boards]
    print_table(("name", "state", "heard", "cpu", "memory", "disk", "labels", "id"), rows)


def _overview(row: dict[str, Any], now_ms: int) -> tuple[str | Text, ...]:
    busy = (_latest(row, name, "%") for name in OVERVIEW)
    heard = age(row["heard_ms"], now_ms)
    return row["name"], _state(row), heard, *busy, labels(row["labels"]), row["id"]


def _state(row: dict[str, Any]) -> Text:
    return Text(row["sentence"], style=MEANINGS.get(row["state"], ""))


def _latest(row: dict[str, Any], sensor: str, unit: str) -> str:
    found = row["latest"].get(sensor)
    return value(found[0] if found else None, unit)


@board.command()
@click.argument("board")
@json_option
@asks_hub
async def show(hub: Hub, board: str, as_json: bool) -> None:
    """Show one BOARD (its name or id): state, problems, hardware, sensors."""
    row = await hub.call("GET", f"/boards/{quote(board, safe='')}")
    sensors = await hub.pages(f"/boards/{row['id']}/sensors", "sensors")
    found = await hub.pages(f"/boards/{row['id']}/problems", "problems", params={"open": "true"})
    if as_json:
        return print_json({**row, "sensors": sensors, "problems": found})
    now_ms = time.time_ns() // 1_000_000
    out = console()
    out.print(Text(f"{row['name']}  {row['id']}", style="bold"))
    out.print(_state(row))
    for name, text in _facts(row, now_ms):
        out.print(Text(f"{name:<9} {text}"))
    for each in found:
        out.print()
        out.print(Text(each["sentence"], style="bold"))
        out.print(Text(f"  {each['hint']} (since {when(each['since_ms'])})"))
    out.print()
    print_table(
        ("sensor", "value", "age", "every", "error"),
        [_sensor(sensor, row["latest"], now_ms) for sensor in sensors],
    )


def _facts(row: dict[str, Any], now_ms: int) -> list[tuple[str, str]]:
    about = row.get("about") or {}
    outbox = about.get("outbox") or {}
    facts = [
        ("heard", age(row["heard_ms"], now_ms) + " ago" if row["heard_ms"] else "never"),
        ("joined", when(row["joined_ms"])),
        ("labels", labels(row["labels"])),
        ("model", about.get("model", "")),
        ("system", " ".join(filter(None, (about.get("system"), about.get("kernel"), about.get("arch"))))),
        ("agent", about.get("version", "")),
        ("clock", about.get("clock", "")),
        ("outbox", _outbox(outbox, row.get("waiting")) if outbox else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _outbox(outbox: Mapping[str, Any], waiting: int | None) -> str:
    held = "not known before its next report" if waiting is None else f"{waiting} readings wait"
    return f"{held}, {outbox['dropped']} dropped"


def _sensor(sensor: dict[str, Any], latest: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    number, at_ms = latest.get(sensor["name"], (None, None))
    every = words.plain(words.every(sensor["interval_ms"])) if sensor["interval_ms"] else words.NONE
    return sensor["name"], value(number, sensor["unit"]), age(at_ms, now_ms), every, sensor.get("error", "")


@board.command()
@click.argument("board")
@click.argument("name")
@json_option
@asks_hub
async def rename(hub: Hub, board: str, name: str, as_json: bool) -> None:
    """Give BOARD another NAME."""
    row = await hub.call("PATCH", f"/boards/{quote(board, safe='')}", json={"name": name})
    print_json(row) if as_json else click.echo(f"{row['id']} is now called {row['name']}.")


@board.command()
@click.argument("board")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@asks_hub
async def revoke(hub: Hub, board: str, yes: bool, as_json: bool) -> None:
    """Put BOARD out for good: its keys are never taken again.

    Its connection ends within two seconds. What it has measured stays.
    """
    if not yes:
        row = await hub.call("GET", f"/boards/{quote(board, safe='')}")
        try:
            click.confirm(f"Revoke {row['name']} ({row['id']}) for good?", abort=True, err=True)
        except click.Abort:
            click.echo("\nNothing was revoked. Where nobody can be asked, add --yes.", err=True)
            raise
    row = await hub.call("POST", f"/boards/{quote(board, safe='')}/revoke")
    print_json(row) if as_json else click.echo(f"{row['name']} ({row['id']}) is revoked.")


@board.command()
@click.argument("board")
@click.argument("changes", nargs=-1, required=True)
@json_option
@asks_hub
async def label(hub: Hub, board: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Set and remove labels of BOARD: KEY=VALUE sets, KEY- removes."""
    wanted: dict[str, str | None] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals and not key.endswith("-"):
            raise click.BadParameter(f"{change!r} is neither KEY=VALUE nor KEY-", param_hint="CHANGES")
        wanted[key if equals else key[:-1]] = text if equals else None
    row = await hub.call("PATCH", f"/boards/{quote(board, safe='')}", json={"labels": wanted})
    print_json(row) if as_json else click.echo(f"{row['name']}: {labels(row['labels']) or 'no labels'}")
