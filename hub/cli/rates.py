"""`lichen rate`: what a use costs whom, and from when on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from agent.wire.errors import ConfigError
from hub.cli.client import Hub
from hub.cli.output import print_json, print_table
from hub.cli.root import asks_hub, json_option
from hub.cli.secrets import made


@click.group()
def rate() -> None:
    """Rate cards: prices of what boards' usage logs say was used.

    \b
    lichen rate set house.toml
    lichen rate ls
    """


@rate.command("ls")
@json_option
@asks_hub
async def list_rates(hub: Hub, as_json: bool) -> None:
    """List the rate cards, and whether each counts now.

    \b
    lichen rate ls
    """
    answer = await hub.call("GET", "/rates")
    if as_json:
        return print_json(answer)
    if not answer["rates"]:
        return click.echo("No rate cards, so everything is free. Set one with: lichen rate set FILE")
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (
            each["id"],
            each["valid_until"],
            _whom(each),
            _prices(each),
            _state(each),
            made(each["set_ms"], now_ms),
        )
        for each in answer["rates"]
    ]
    print_table(("card", "until", "for", "prices", "", "set"), rows)


@rate.command("set")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@asks_hub
async def set_rate(hub: Hub, file: Path, as_json: bool) -> None:
    """Set the rate card in FILE, which is TOML; "-" is standard input.

    It takes the place of the card with its name and its first day. docs/usage-log.md says what may stand
    in it.

    \b
    lichen rate set house.toml
    """
    card = await hub.call("PUT", "/rates", json={"text": _read(file)})
    if as_json:
        return print_json(card)
    until = f" until {card['valid_until']}" if card["valid_until"] else ""
    click.echo(f"{card['id']} is set: from {card['valid_from']}{until}, for {_whom(card)}: {_prices(card)}.")
    if not card["is_in_force"]:
        click.echo("It does not count today.")


@rate.command("rm")
@click.argument("card")
@json_option
@asks_hub
async def remove_rate(hub: Hub, card: str, as_json: bool) -> None:
    """Let CARD not count any more. What was issued stays as it is.

    \b
    lichen rate rm house@2026-11-01
    """
    await hub.call("DELETE", f"/rates/{quote(card, safe='@')}")
    print_json({"removed": card}) if as_json else click.echo(f"{card} does not count any more.")


def money(amount: int) -> str:
    """Micro-units as people write amounts.

    >>> money(20_000), money(-1_500_000), money(1), money(0)
    ('0.02', '-1.50', '0.000001', '0.00')
    """
    whole, fraction = divmod(abs(amount), 1_000_000)
    places = f"{fraction:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{places}"


def _read(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _whom(card: dict[str, Any]) -> str:
    parts = [f"{key} {card[key]}" for key in ("payer", "workspace", "label") if card[key]]
    return ", ".join(parts) or "everybody"


def _prices(card: dict[str, Any]) -> str:
    prices = ", ".join(f"{name} {money(price)}" for name, price in card["prices"].items())
    return f"{prices} {card['currency']}"


def _state(card: dict[str, Any]) -> str:
    return "counts now" if card["is_in_force"] else "does not count today"
