"""`lichen app`: the apps of the fleet, where they run, how far they are, and what was done to them.

Owns the questions.  What changes an app is in `hub.cli.apps_deploy` and `hub.cli.apps_changes`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from agent.wire import words
from agent.wire.errors import Refused
from hub.cli.apps_failures import evidence, what_failed
from hub.cli.apps_progress import STYLES, said
from hub.cli.client import Hub
from hub.cli.output import age, console, print_difference, print_json, print_table, value, when
from hub.cli.root import asks_hub, json_option

QUIET = ("running", "stopped", "gone")
"""States that say everything."""


@click.group()
def app() -> None:
    """Apps on boards: compose files that run there, and go on running without the hub.

    \b
    lichen app check blog/                         what becomes of each line
    lichen app deploy blog/ --board pump-07 --wait bring it there
    lichen app show blog                           how far it is, and why it failed
    """


@app.command("ls")
@click.option("--board", default="", help="Only those of this board, and how it stands with its order.")
@click.option("--gone", is_flag=True, help="Those of which only the history is left, too.")
@json_option
@asks_hub
async def list_apps(hub: Hub, board: str, gone: bool, as_json: bool) -> None:
    """List apps: state, version, where.

    \b
    lichen app ls
    lichen app ls --board pump-07
    """
    if board:
        return await _list_of_board(hub, board, as_json)
    found = await hub.pages("/apps", "apps", params={"gone": int(gone)})
    if as_json:
        return print_json({"apps": found})
    if not found:
        return click.echo("No apps here. Bring one to a board with: lichen app deploy FOLDER --board NAME")
    rows = [
        (row["name"], row["version"], _state(row), str(row["revision"]), ", ".join(row["boards"]),
         "" if row["state"] in QUIET else row["sentence"])
        for row in found
    ]  # fmt: skip
    print_table(("app", "version", "state", "revision", "boards", ""), rows)


async def _list_of_board(hub: Hub, board: str, as_json: bool) -> None:
    found = await hub.call("GET", f"/boards/{quote(board, safe='')}/apps")
    if as_json:
        return print_json(found)
    rows = [
        (row["app"], row["version"], _state(row["at"]), str(row["at"]["revision"]), _said(row["at"]))
        for row in found["apps"]
    ]
    print_table(("app", "version", "state", "revision", ""), rows)
    if found["unknown"]:
        click.echo(f"Of another hub, or of a time before a restore: {', '.join(found['unknown'])}")
    if found["refused"]:
        click.echo(words.plain(f"It refuses order {found['refused']}: {found['reason']}"), err=True)
        if found["hint"]:
            click.echo(words.plain(f"  hint: {found['hint']}"), err=True)
    engine = f"Podman {found['engine']}" if found["engine"] else "Podman does not answer"
    if found.get("reported_ms") is None:
        engine = "it has said nothing of apps yet"
    click.echo(f"{board}: order {found['reported']} of {found['generation']}; {engine}")


@app.command()
@click.argument("app")
@json_option
@asks_hub
async def show(hub: Hub, app: str, as_json: bool) -> None:
    """Show one APP: its state on each board, and why it failed where it did.

    \b
    lichen app show blog
    lichen app show blog --json
    """
    row = await hub.call("GET", f"/apps/{quote(app, safe='')}")
    if as_json:
        return print_json(row)
    out = console()
    out.print(Text(words.plain(f"{row['name']}  {row['version']}".rstrip()), style="bold"))
    out.print(_state(row))
    for name, text in _facts(row):
        out.print(Text(words.plain(f"{name:<9} {text}")), soft_wrap=True)
    out.print()
    print_table(("board", "state", "revision", "running", ""), [_place(place) for place in row["boards"]])
    for place in row["boards"]:
        for line in _why(place):
            out.print(Text(line), soft_wrap=True)


def _facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    why = f": {row['message']}" if row["message"] else ""
    yield "revision", f"{row['revision']}, {row['action']} by {row['author']}, {when(row['at_ms'])}{why}"
    if row["scale"]:
        yield "replicas", ", ".join(f"{name}={count}" for name, count in sorted(row["scale"].items()))
    for image, digests in sorted(row["images"].items()):
        yield "image", f"{image} ({', '.join(sorted(digests))})"
    for note in row["notes"]:
        yield "note", note


def _place(place: dict[str, Any]) -> tuple[str | Text, ...]:
    running = str(place["running"]) if place["running"] else words.NONE
    return place["name"], _state(place), str(place["revision"]), running, _said(place)


def _said(place: dict[str, Any]) -> str:
    """What there is to say besides the state."""
    return "" if place["state"] in QUIET else said(place)


def _why(place: dict[str, Any]) -> Iterator[str]:
    """What is to be known of a board besides its row."""
    if place["state"] in ("failed", "refused"):
        yield ""
        yield what_failed(place)
        yield from evidence(place, place["revision"])
    if place["hint"]:
        yield words.plain(f"{place['name']}: {place['hint']}")
    for note in place["reported"]["notes"] if place.get("reported") else ():
        yield words.plain(f"{place['name']}: {note}")


@app.command()
@click.argument("app")
@json_option
@asks_hub
async def ps(hub: Hub, app: str, as_json: bool) -> None:
    """List the containers of APP on its boards: state, health, and what they take.

    \b
    lichen app ps blog
    """
    row = await hub.call("GET", f"/apps/{quote(app, safe='')}")
    if as_json:
        return print_json(row)
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (place["name"], *_container(each, now_ms))
        for place in row["boards"]
        if place.get("reported")
        for each in place["reported"]["containers"]
    ]
    if not rows:
        return click.echo(f"No board has a container of {app}. `lichen app show {app}` says why.")
    columns = ("board", "container", "state", "for", "ends", "cpu", "memory", "revision")
    print_table(columns, rows)


def _container(each: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    runs = each["state"] == "running"
    started_ms = each.get("started_ms")
    milli, memory = each.get("cpu_milli"), each.get("memory_bytes")
    return (
        each["name"],
        _container_state(each, now_ms),
        age(started_ms, now_ms) if runs and started_ms is not None else words.NONE,
        str(each["restarts"]),
        value(None if milli is None else milli / 10, "%"),
        value(memory, "By"),
        str(each["revision"]),
    )


def _container_state(each: dict[str, Any], now_ms: int) -> str:
    """In words: "running, healthy", "ended with 137, out of memory, again in 8 s"."""
    said = [each["state"]]
    if each["state"] == "running" and each["health"]:
        said.append(each["health"])
    if each.get("exit_code") is not None:
        said[0] += f" with {each['exit_code']}"
    if each["oom"]:
        said.append("out of memory")
    if each.get("next_restart_ms") is not None:
        said.append(f"again in {words.duration(each['next_restart_ms'] - now_ms)}")
    return ", ".join(said)


@app.command()
@click.argument("app")
@click.argument("revision", type=click.IntRange(1), required=False)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most of them.")
@json_option
@asks_hub
async def history(hub: Hub, app: str, revision: int | None, limit: int, as_json: bool) -> None:
    """List what was done to APP, by whom, and what became of it; of one REVISION also what it changed.

    \b
    lichen app history blog
    lichen app history blog 3
    """
    params: dict[str, Any] = {"limit": limit}
    if revision is not None:
        params = {"limit": 1, "after": revision + 1}
    answer = await hub.call("GET", f"/apps/{quote(app, safe='')}/history", params=params)
    found = answer["revisions"]
    if revision is not None and (not found or found[0]["revision"] != revision):
        raise Refused(
            f"{app} has no revision {revision}",
            code="not-found",
            hint=f"`lichen app history {app}` lists them",
        )
    if as_json:
        return print_json(answer)
    print_table(
        ("revision", "time", "who", "what", "version", "result", "why"),
        [_revision(each) for each in found],
    )
    if revision is not None:
        print_difference(found[0]["difference"])


def _revision(row: dict[str, Any]) -> tuple[str, ...]:
    results = ", ".join(f"{each['name']}: {each['outcome'] or 'open'}" for each in row["results"])
    if row.get("cancelled_ms") is not None:
        results = "cancelled"
    return (
        str(row["revision"]), when(row["at_ms"]), row["author"], row["action"], row["version"], results,
        row["message"],
    )  # fmt: skip


def _state(row: dict[str, Any]) -> Text:
    return Text(row["state"], style=STYLES.get(row["state"], ""))
