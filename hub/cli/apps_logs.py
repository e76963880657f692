"""`lichen app logs`: what the containers of an app have written, from the board itself, on request."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import click

from agent.wire import words
from agent.wire.errors import LinkDown
from hub.cli.client import Hub
from hub.cli.output import print_json, when
from hub.cli.root import asks_hub, json_option
from hub.cli.tokens import Duration

MOST_FOLLOW_S = 600


@click.command()
@click.argument("app")
@click.option("--service", default="", help="Of this service only.")
@click.option("--board", default="", help="On which board; needed when it is on several.")
@click.option("--since", type=Duration(), help="Only what was written since then, such as 15m.")
@click.option(
    "--tail",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    help="So many of each container.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written next, for ten minutes.")
@click.option("--for", "for_s", type=Duration(), help="Go on for so long, at most 10m.")
@json_option
@asks_hub
async def logs(
    hub: Hub,
    app: str,
    service: str,
    board: str,
    since: int | None,
    tail: int,
    follow: bool,
    for_s: int | None,
    as_json: bool,
) -> None:
    """Print the logs of APP, oldest first.

    They are on the board, which has to be online. With --json there is one line of JSON for each line.

    \b
    lichen app logs blog
    lichen app logs blog --service web --since 15m --follow
    """
    follow_s = for_s if for_s is not None else MOST_FOLLOW_S if follow else 0
    if follow_s > MOST_FOLLOW_S:
        raise click.BadParameter("a board is followed for 10m at most", param_hint="--for")
    params: dict[str, Any] = {"board": board, "service": service, "tail": tail, "follow_s": follow_s}
    if since is not None:
        params["since_ms"] = max(0, time.time_ns() // 1_000_000 - since * 1000)
    async for event, data in hub.events(f"/apps/{quote(app, safe='')}/logs", params=params):
        match event:
            case "lines":
                _print(app, data, as_json)
            case "error":
                raise LinkDown(data["detail"], code="logs", hint=data.get("hint") or "try again")
            case "end":
                if follow_s:
                    over = words.plain(words.duration(follow_s * 1000))
                    click.echo(f"{over} are over; go on with: lichen app logs {app} --follow", err=True)
                return
    raise LinkDown(f"the hub at {hub.url} has stopped", hint="start it, and try again")


def _print(app: str, data: dict[str, Any], as_json: bool) -> None:
    if data["dropped"]:
        click.echo(f"({data['dropped']} lines were too many to send)", err=True)
    for line in data["lines"]:
        if as_json:
            print_json({"board": data["board"], **line}, line=True)
            continue
        at = when(line["at_ms"])[:19] if line.get("at_ms") is not None else " " * 19
        container = line["container"].removeprefix(f"{app}_")
        print(words.plain(f"{at}  {container}  {line['text']}"), flush=True)


COMMANDS = (logs,)
