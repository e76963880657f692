"""`lichen readings` and `lichen watch`: what boards have measured, and what they measure now."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import click

from agent.wire.errors import LinkDown
from hub.cli.client import Hub
from hub.cli.output import print_json, print_table, value, when
from hub.cli.root import asks_hub, json_option
from hub.cli.tokens import Duration

TABLE_ROWS = 1000


@click.command()
@click.argument("board")
@click.argument("sensor", required=False, default="")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="How far to go back.")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print CSV: time, sensor, value, unit, clock, quality, uncertain."
)
@json_option
@asks_hub
async def readings(hub: Hub, board: str, sensor: str, since: int, as_csv: bool, as_json: bool) -> None:
    """Print the readings of BOARD, of all sensors or of SENSOR, oldest first.

    \b
    lichen readings pump-07 --since 1h
    lichen readings pump-07 capacity.cpu --since 7d --csv > cpu.csv
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    path = f"/boards/{quote(board, safe='')}/readings/raw"
    params = {"sensor": sensor, "since_ms": max(0, time.time_ns() // 1_000_000 - since * 1000)}
    if as_csv:
        async for line in hub.lines(path, params=params, accept="text/csv"):
            click.echo(line)
        return None
    if as_json:
        return print_json(await hub.call("GET", path, params=params))
    answer = await hub.call("GET", path, params={**params, "limit": TABLE_ROWS})
    rows = [
        (when(row["at_ms"]), row["sensor"], value(row["value"], row["unit"]), _doubt(row))
        for row in answer["readings"]
    ]
    if not rows:
        click.echo(f"No readings in the last {since} s. Go further back with --since 7d", err=True)
    print_table(("time", "sensor", "value", ""), rows)
    if answer["more"]:
        click.echo(f"The first {TABLE_ROWS} are shown; --csv and --json print them all.", err=True)


def _doubt(row: dict[str, Any]) -> str:
    """How far a reading can be relied on, in words; nothing when it is good."""
    quality = "" if row["quality"] == "good" else row["quality"]
    return ", ".join(filter(None, (quality, "time uncertain" if row["uncertain"] else "")))


@click.command()
@click.argument("board", required=False, default="")
@json_option
@asks_hub
async def watch(hub: Hub, board: str, as_json: bool) -> None:
    """Print values as they arrive, of all boards or of BOARD, until Ctrl-C."""
    units: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    async for event, data in hub.events("/live", params={"board": board}):
        if event != "board":
            continue
        if as_json:
            print_json(data, line=True)
            continue
        id = data["board"]
        if not data["values"].keys() <= units.get(id, {}).keys():  # a board, or a sensor of it, is new
            names[id], units[id] = await _describe(hub, id)
        _print_change(names.get(id, id), units.get(id, {}), data)
    raise LinkDown(f"the hub at {hub.url} has stopped", hint="start it, and watch again")


async def _describe(hub: Hub, id: str) -> tuple[str, dict[str, str]]:
    """A board's name, and the unit of each of its sensors."""
    row = await hub.call("GET", f"/boards/{id}")
    sensors = await hub.pages(f"/boards/{id}/sensors", "sensors")
    return row["name"], {sensor["name"]: sensor["unit"] for sensor in sensors}


def _print_change(name: str, units: dict[str, str], change: dict[str, Any]) -> None:
    for sensor, (number, at_ms) in sorted(change["values"].items()):
        click.echo(f"{when(at_ms)}  {name:<16} {sensor:<24} {value(number, units.get(sensor, ''))}")
    if not change["values"]:
        click.echo(f"{when(change['heard_ms'])}  {name:<16} {change['presence']}")
