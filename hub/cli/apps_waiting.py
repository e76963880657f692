"""Waiting for boards to do what was asked of an app, and what it comes to.

Owns the options of every change, how a change is announced and concluded, and when it counts as failed.
Every command that changes an app ends in `conclude`.

A change is the hub's, not this command's: whoever stops waiting changes nothing, and is told so.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import click

from agent.wire import words
from agent.wire.errors import LinkDown, Refused
from hub.cli.apps_failures import evidence, what_failed
from hub.cli.apps_progress import Picture, progress
from hub.cli.client import Hub
from hub.cli.output import print_json
from hub.cli.tokens import Duration

AGAIN_S = 1.0
"""Before a hub that broke off is asked again."""
message_option = click.option("-m", "--message", default="", help="Why, for the history.")
DONE = {"running": "runs on", "stopped": "is stopped on", "gone": "is gone from"}


@dataclass(frozen=True, slots=True)
class Patience:
    """Whether to wait, for how long, and also for boards that are away or wait for their hour."""

    wait: bool
    timeout_s: int
    offline_too: bool


def waits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of waiting, as one `Patience`."""

    @click.option("--wait/--no-wait", help="Wait until the boards have done it, and fail if they could not.")
    @click.option("--timeout", type=Duration(), default="15m", show_default=True, help="Wait no longer.")
    @click.option("--offline-too", is_flag=True, help="Wait for those that are away or wait for a window.")
    @functools.wraps(command)
    def patient(*args: Any, wait: bool, timeout: int, offline_too: bool, **others: Any) -> None:
        command(*args, patience=Patience(wait or offline_too, timeout, offline_too), **others)

    return patient


async def conclude(hub: Hub, made: dict[str, Any], patience: Patience, *, as_json: bool) -> None:
    """Tell of a change that was made, wait for it if that is wanted, and tell what became of it.

    ``made`` is the answer of the API (`ChangeMade`).  Raises Refused when a board could not do it or did
    not want to, LinkDown when one has not done it.
    """
    if not as_json:
        _announce(made)
    if not patience.wait:
        if as_json:
            return print_json(made)
        return _say_where(made["app"])
    picture = await _wait(hub, made, patience, quiet=as_json)
    if as_json:
        print_json({**made, "app": picture})
    _raise_unless_done(picture, made["revision"], quiet=as_json)
    if not as_json:
        _say_done(picture)


# --- before --------------------------------------------------------------------------------------


def _announce(made: dict[str, Any]) -> None:
    if names := made["generated"]:
        click.echo(f"Made up the secret{'s' if len(names) > 1 else ''} {', '.join(names)}.")
    for note in made["notes"]:
        click.echo(f"Note: {words.plain(note)}")


def _say_where(picture: Picture) -> None:
    name, revision = picture["name"], picture["revision"]
    on_the_way = [place["name"] for place in picture["boards"] if place["state"] == "sent"]
    if on_the_way:
        click.echo(f"{name}: revision {revision} is on its way to {', '.join(on_the_way)}.")
    for place in picture["boards"]:
        if place["state"] != "sent":
            click.echo(words.plain(f"{name}: {place['name']}: {place['sentence']}."))
    click.echo(f"Look at it with: lichen app show {name}")


# --- meanwhile -----------------------------------------------------------------------------------


async def _wait(hub: Hub, made: dict[str, Any], patience: Patience, *, quiet: bool) -> Picture:
    """The app once it is settled.  Raises Refused (code "overtaken"), LinkDown (code "timeout")."""
    name, revision = made["app"]["name"], made["revision"]
    picture: Picture = made["app"]
    try:
        with progress(quiet=quiet) as show:
            async with asyncio.timeout(patience.timeout_s), aclosing(_pictures(hub, name)) as pictures:
                async for picture in pictures:
                    if picture["revision"] != revision:
                        raise _overtaken(picture, revision)
                    show(picture)
                    if _is_settled(picture, patience):
                        break
    except TimeoutError:
        raise _timeout(picture, patience) from None
    except asyncio.CancelledError:  # Ctrl-C
        click.echo(
            f"\nNobody waits for it any more, and it goes on. Look: lichen app show {name}"
            f"   Give it up: lichen app cancel {name}",
            err=True,
        )
        raise
    return picture


async def _pictures(hub: Hub, name: str) -> AsyncGenerator[Picture]:
    """The app whenever it changes, without end; a hub that restarts meanwhile is asked again."""
    while True:
        try:
            async with aclosing(hub.events(f"/apps/{quote(name, safe='')}/live", params={})) as events:
                async for event, picture in events:
                    if event == "app":
                        yield picture
        except LinkDown:
            pass  # the caller's patience is the limit
        await asyncio.sleep(AGAIN_S)


def _is_settled(picture: Picture, patience: Patience) -> bool:
    if patience.offline_too:
        return not any(place["is_pending"] for place in picture["boards"])
    return bool(picture["is_over"])


# --- afterwards ----------------------------------------------------------------------------------


def _overtaken(picture: Picture, revision: int) -> Refused:
    return Refused(
        f"{picture['author']} has changed {picture['name']} meanwhile ({picture['action']}, revision"
        f" {picture['revision']}), so revision {revision} counts no more",
        code="overtaken",
        hint=f"lichen app history {picture['name']}",
    )


def _timeout(picture: Picture, patience: Patience) -> LinkDown:
    pending = [place for place in picture["boards"] if place["is_pending"]]
    hint = next((place["hint"] for place in pending if place["hint"]), "")
    return LinkDown(
        f"{picture['name']} is not done after {words.plain(words.duration(patience.timeout_s * 1000))}"
        f" ({_sentences(pending)}); it goes on",
        code="timeout",
        hint=hint or f"wait longer with --timeout, or give it up: lichen app cancel {picture['name']}",
    )


def _sentences(places: Sequence[dict[str, Any]]) -> str:
    return words.plain("; ".join(f"{place['name']}: {place['sentence']}" for place in places))


def _raise_unless_done(picture: Picture, revision: int, *, quiet: bool) -> None:
    name = picture["name"]
    failed = [place for place in picture["boards"] if place["state"] in ("failed", "refused")]
    if failed:
        for line in [line for place in failed for line in evidence(place, revision) if not quiet]:
            click.echo(line, err=True)
        said = "; ".join(what_failed(place) for place in failed)
        raise Refused(
            f"{name}: revision {revision} {said}",
            code=failed[0]["state"],
            hint=failed[0]["hint"] or f"`lichen app show {name}` keeps what is known of it",
        )
    pending = [place for place in picture["boards"] if place["is_pending"]]
    if pending:
        raise LinkDown(
            f"{name}: revision {revision} is not everywhere yet: {_sentences(pending)}",
            code="pending",
            hint="nothing has to be done; --offline-too waits for it",
        )


def _say_done(picture: Picture) -> None:
    name, revision = picture["name"], picture["revision"]
    for state, verb in DONE.items():
        if names := [place["name"] for place in picture["boards"] if place["state"] == state]:
            what = f"{name} {verb}" if state == "gone" else f"{name}: revision {revision} {verb}"
            click.echo(f"{what} {', '.join(names)}.")
    for place in picture["boards"]:
        if place["state"] not in DONE:
            click.echo(words.plain(f"{name}: {place['name']}: {place['sentence']}"))
    reports = [place["reported"] for place in picture["boards"] if place.get("reported")]
    for note in dict.fromkeys(note for report in reports for note in report["notes"]):
        click.echo(words.plain(f"Note: {note}"))
