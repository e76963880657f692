"""`lichen token`: one-time permission for boards to join, printed as a join file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import tomli_w

from agent.base.files import write_file
from agent.wire.errors import ConfigError
from hub.cli.client import Hub
from hub.cli.output import age, labels, print_json, print_table, when
from hub.cli.root import asks_hub, json_option
from hub.qr import terminal

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Duration(click.ParamType[int]):
    """Seconds, typed as a number with a unit: 90s, 15m, 6h, 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number = value.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = value[len(number) :] or "s"
        if not number.isascii() or not number.isdigit() or unit not in SECONDS:
            self.fail(f"{value!r} is not a duration (such as 90s, 15m, 6h, 7d)", param, ctx)
        return int(number) * SECONDS[unit]


class Label(click.ParamType[tuple[str, str]]):
    """One label, typed as KEY=VALUE."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not a label (KEY=VALUE)", param, ctx)
        return key, text


@click.group()
def token() -> None:
    """Tokens that let new boards join."""


@token.command()
@click.option("--name", default="", help="The name the board gets (default: from its id).")
@click.option("--label", "pairs", type=Label(), multiple=True, help="A label the board gets; repeatable.")
@click.option(
    "--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Boards it admits."
)
@click.option("--replaces", default="", metavar="BOARD", help="Whose name and labels it takes.")
@click.option("--ttl", type=Duration(), default="7d", show_default=True, help="How long it is good for.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the join file here (mode 0600).")
@click.option("--qr", is_flag=True, help="Show it as a QR code, too.")
@json_option
@asks_hub
async def new(
    hub: Hub,
    name: str,
    pairs: tuple[tuple[str, str], ...],
    uses: int,
    replaces: str,
    ttl: int,
    output: Path | None,
    qr: bool,
    as_json: bool,
) -> None:
    """Make a token and print its join file.

    The file goes onto the card as lichen-join.toml; it is shown this once only. With --replaces,
    BOARD is revoked when the new one joins; what it has measured stays with it.
    """
    if qr and as_json:
        raise click.UsageError("--qr is for people and --json for programs: give one of them")
    if output is not None and output.exists():
        raise ConfigError(f"{output} exists already", hint="choose another file, or remove it first")
    wanted = {"name": name, "labels": dict(pairs), "uses": uses, "ttl_s": ttl, "replaces": replaces}
    answer = await hub.call("POST", "/tokens", json=wanted)
    text = tomli_w.dumps(answer["join_file"])
    if output is not None:
        write_file(output, text.encode())
    if as_json:
        print_json(answer)
    elif output is not None:
        click.echo(f"Wrote {output}: good for {_boards(uses)} until {when(answer['expires_ms'])}")
    else:
        click.echo(f"# lichen-join.toml: for {_boards(uses)}, until {when(answer['expires_ms'])}")
        click.echo(text, nl=False)
    if qr:
        click.echo(terminal(text), nl=False)


def _boards(count: int) -> str:
    return "1 board" if count == 1 else f"{count} boards"


@token.command("ls")
@json_option
@asks_hub
async def list_tokens(hub: Hub, as_json: bool) -> None:
    """List the tokens that exist; their secrets are not kept."""
    tokens = await hub.pages("/tokens", "tokens")
    if as_json:
        return print_json({"tokens": tokens})
    if not tokens:
        return click.echo("No tokens. Make one with: lichen token new --name pump-07")
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (str(row["id"]), row["state"], f"{row['used']} of {row['uses']}", when(row["expires_ms"]),
         age(row["created_ms"], now_ms) + " ago", row["name"], labels(row["labels"]))
        for row in tokens
    ]  # fmt: skip
    print_table(("id", "state", "used", "expires", "made", "name", "labels"), rows)


@token.command()
@click.argument("id")
@json_option
@asks_hub
async def revoke(hub: Hub, id: str, as_json: bool) -> None:
    """Make the token ID useless; boards that joined with it stay."""
    await hub.call("DELETE", f"/tokens/{quote(id, safe='')}")
    print_json({"revoked": id}) if as_json else click.echo(f"Token {id} is revoked.")
