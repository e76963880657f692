"""`lichen usage ls`, `show` and `token`: how the boards' logs stand, what they say, and who else may look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from agent.wire.usage_words import COLUMNS, cells
from hub.cli.client import Hub
from hub.cli.output import age, print_json, print_table, when
from hub.cli.root import asks_hub, json_option
from hub.cli.tokens import Duration

KINDS = ("container", "board", "sensor", "order", "clock", "epoch", "hole")


@click.command("ls")
@click.option("--board", default="", help="Only the logs of this board.")
@json_option
@asks_hub
async def list_logs(hub: Hub, board: str, as_json: bool) -> None:
    """List the usage logs of the boards, and how each stands.

    \b
    lichen usage ls
    lichen usage ls --board pump-07
    """
    logs = await hub.pages("/usage/logs", "logs", params={"board": board})
    if as_json:
        return print_json({"logs": logs})
    if not logs:
        return click.echo("No usage logs. A board begins one when it first reaches this hub.")
    now_ms = time.time_ns() // 1_000_000
    print_table(("board", "epoch", "records", "behind", "receipt", ""), [_log(each, now_ms) for each in logs])


def _log(log: Mapping[str, Any], now_ms: int) -> tuple[str, ...]:
    receipt = "none" if log["receipt_ms"] is None else f"{age(log['receipt_ms'], now_ms)} ago"
    notes = []
    if log["conflicts"]:
        notes.append(f"{log['conflicts']} conflicts: signed twice")
    if log["lost"]:
        notes.append(f"{log['lost']} lost")
    if not log["is_current"]:
        notes.append("over")
    return log["name"], log["epoch"], str(log["size"]), str(log["behind"]), receipt, ", ".join(notes)


@click.command()
@click.argument("board", required=False, default="")
@click.option("--app", default="", help="Only of this app.")
@click.option("--workspace", default="", help="Only of this workspace.")
@click.option("--payer", default="", help="Only of this payer.")
@click.option("--type", "kinds", type=click.Choice(KINDS), multiple=True, help="Of this kind; repeatable.")
@click.option("--since", type=Duration(), default=None, help="How far to go back (90s, 6h, 7d).")
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many records.")
@json_option
@asks_hub
async def show(
    hub: Hub,
    board: str,
    app: str,
    workspace: str,
    payer: str,
    kinds: tuple[str, ...],
    since: int | None,
    last: int,
    as_json: bool,
) -> None:
    """Print the newest records of the usage logs, of all boards or of BOARD.

    \b
    lichen usage show
    lichen usage show pump-07 --app blog --since 24h --last 200
    lichen usage show --type board --json
    """
    query: dict[str, Any] = {
        "board": board, "app": app, "workspace": workspace, "payer": payer, "limit": last, "newest": 1,
    }  # fmt: skip
    if since is not None:
        query["from_ms"] = max(0, time.time_ns() // 1_000_000 - since * 1000)
    answer = await hub.call(
        "GET", "/usage/records", params=[*query.items(), *(("type", each) for each in kinds)]
    )
    if as_json:
        return print_json(answer)
    if not answer["records"]:
        return click.echo("No records. Boards write one for each container every few minutes.", err=True)
    names = {each["id"]: each["name"] for each in await hub.pages("/boards", "boards")}
    rows = [
        (names.get(each["board"], each["board"]), str(each["seq"]), _until(each), *_cells(each))
        for each in reversed(answer["records"])
    ]
    print_table(("board", "record", "until", *COLUMNS), rows)


def _until(record: Mapping[str, Any]) -> str:
    return when(record["at_ms"]) + ("" if record["is_certain"] else " (uncertain)")


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    return cells({**record, "mono0_ms": 0, "mono1_ms": record["length_ms"]})


# --- tokens ----------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """Tokens for others, who may read of the usage logs and do nothing else.

    \b
    lichen usage token new "hub south" --peer
    lichen usage token new "customer 12" --payer customer-12
    """


@token.command("new")
@click.argument("name")
@click.option("--peer", is_flag=True, help="Opens checkpoints and hashes: that logs only grow.")
@click.option("--payer", default="", metavar="PAYER", help="Opens proofs of single records of this payer.")
@click.option(
    "--ttl", type=Duration(), default=None, help="How long it is good for  [default: until removed]."
)
@json_option
@asks_hub
async def new_token(hub: Hub, name: str, peer: bool, payer: str, ttl: int | None, as_json: bool) -> None:
    """Make a reading token called NAME; it is shown this once.

    It goes into the header "Authorization: Bearer ..." of requests below /tlog/.
    """
    if peer == bool(payer):
        raise click.UsageError("say either --peer or --payer PAYER")
    wanted = {"name": name, "scope": "peer" if peer else "payer", "payer": payer, "ttl_s": ttl}
    answer = await hub.call("POST", "/usage/tokens", json=wanted)
    print_json(answer) if as_json else click.echo(answer["token"])


@token.command("ls")
@json_option
@asks_hub
async def list_tokens(hub: Hub, as_json: bool) -> None:
    """List the reading tokens; their secrets are not kept."""
    answer = await hub.call("GET", "/usage/tokens")
    if as_json:
        return print_json(answer)
    if not answer["tokens"]:
        return click.echo("No reading tokens. Make one with: lichen usage token new NAME --peer")
    rows = [
        (
            each["id"],
            each["name"],
            f"payer {each['payer']}" if each["payer"] else "peer",
            when(each["created_ms"]),
            "until removed" if each["expires_ms"] is None else when(each["expires_ms"]),
        )
        for each in answer["tokens"]
    ]
    print_table(("id", "name", "scope", "made", "good until"), rows)


@token.command("rm")
@click.argument("id")
@json_option
@asks_hub
async def remove_token(hub: Hub, id: str, as_json: bool) -> None:
    """End the reading token ID at once."""
    await hub.call("DELETE", f"/usage/tokens/{quote(id, safe='')}")
    print_json({"removed": id}) if as_json else click.echo(f"Reading token {id} opens nothing any more.")


COMMANDS = (list_logs, show, token)
