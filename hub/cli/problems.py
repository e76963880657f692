"""`lichen problem`: what is wrong with boards and with the hub, and what helps."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.text import Text

from hub.cli.client import Hub
from hub.cli.output import age, print_json, print_table, when
from hub.cli.root import asks_hub, json_option

COLOURS = {"fail": "red", "warn": "yellow", "notice": ""}


@click.group()
def problem() -> None:
    """Known faults of boards and of the hub."""


@problem.command("ls")
@click.argument("board", required=False, default="")
@click.option("--past", is_flag=True, help="Those that have cleared, instead.")
@json_option
@asks_hub
async def list_problems(hub: Hub, board: str, past: bool, as_json: bool) -> None:
    """List what is wrong with all boards and the hub, or with BOARD, newest first.

    \b
    lichen problem ls
    lichen problem ls pump-07 --past
    """
    params = {"board": board, "open": "false" if past else "true"}
    found = await hub.pages("/problems", "problems", params=params)
    if as_json:
        return print_json({"problems": found})
    if not found:
        return click.echo("No problems." if not past else "No problems have cleared lately.")
    names = await _names(hub) if any(row["board"] for row in found) else {}
    now_ms = time.time_ns() // 1_000_000
    rows = [_shown(row, names, now_ms) for row in found]
    print_table(("board", "severity", "cleared" if past else "since", "problem", "hint"), rows)


async def _names(hub: Hub) -> dict[str, str]:
    """What the boards are called, by id."""
    return {row["id"]: row["name"] for row in await hub.pages("/boards", "boards")}


def _shown(row: dict[str, Any], names: dict[str, str], now_ms: int) -> tuple[str | Text, ...]:
    board = "(hub)" if row["board"] is None else names.get(row["board"], row["board"])
    severity = Text(row["severity"], style=COLOURS[row["severity"]])
    at = when(row["cleared_ms"]) if row["cleared_ms"] is not None else age(row["since_ms"], now_ms)
    return board, severity, at, row["sentence"], row["hint"]
