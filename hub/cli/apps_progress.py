"""How far a change of an app is, while somebody waits for it: on a terminal, or line by line.

Owns what stands on standard error meanwhile; standard output is left to the result.  `hub.cli.apps_waiting`
shows it each picture of the app that comes; what that says is the hub's and the boards' own words.

>>> trail = Trail()
>>> trail.take("pulling the image of web", 0.0)
>>> trail.take("starting blog_web.0.1a2b3c4d", 2.0)
>>> trail.take("waiting for web to become healthy", 3.0)
>>> trail.take("", 15.0)
>>> " · ".join(trail.done)
'pulled · started · healthy in 12 s'
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.wire import words

Picture = dict[str, Any]
"""An app as the API shows it (`AppPicture`)."""
Show = Callable[[Picture], None]

STYLES = {"running": "green", "failed": "red", "refused": "red", "degraded": "yellow", "waiting": "yellow"}
PAST = {
    "pulling": "pulled",
    "making": "made",
    "starting": "started",
    "switching": "switched",
    "stopping": "stopped",
    "removing": "removed",
}
"""The first word of a step, and what there is to say when it has been done."""
PARTS = 4
"""How often a pull is told where each line stays."""


@contextmanager
def progress(*, quiet: bool) -> Iterator[Show]:
    """What shows a picture: nothing if ``quiet``."""
    out = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda picture: None
    elif out.is_terminal:
        screen = Screen()
        with Live(console=out, get_renderable=screen.table, refresh_per_second=4):
            yield screen.take
    else:
        yield Lines(out.file.write).take


class Trail:
    """What a board has done of a change so far: ``done`` in words, and its step now."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.step, self.since_s = "", 0.0

    def take(self, step: str, now_s: float) -> None:
        """Note what the board does now."""
        if step == self.step:
            return
        did = PAST.get(self.step.partition(" ")[0], "")
        if self.step.endswith("to become healthy"):
            did = f"healthy in {now_s - self.since_s:.0f} s"
        if did and did not in self.done:
            self.done.append(did)
        self.step, self.since_s = step, now_s


class Screen:
    """A row for each board of the app, drawn again and again."""

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._trails: dict[str, Trail] = {}

    def take(self, picture: Picture) -> None:
        """The app as it is now."""
        self._picture = picture
        for place in picture["boards"]:
            self._trails.setdefault(place["board"], Trail()).take(_step(place), time.monotonic())

    def table(self) -> Table:
        """What stands on the screen now."""
        table = Table.grid(padding=(0, 2))
        for place in self._picture["boards"] if self._picture else ():
            trail = self._trails[place["board"]]
            now = Text(words.plain(said(place)), style=STYLES.get(place["state"], ""))
            lasts_s = time.monotonic() - trail.since_s
            if trail.step and lasts_s >= 1:
                now.append(f"  {words.plain(words.duration(int(lasts_s * 1000)))}", style="dim")
            table.add_row(Text(place["name"], style="bold"), Text(" · ").join([*map(Text, trail.done), now]))
        return table


class Lines:
    """A line whenever a board has something new to say."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._told: dict[str, tuple[str, str, int]] = {}

    def take(self, picture: Picture) -> None:
        """The app as it is now."""
        for place in picture["boards"]:
            part = int(_share(place) * PARTS)
            new = (place["state"], place["sentence"] if place["presence"] != "offline" else "", part)
            if self._told.get(place["board"]) != new:
                self._told[place["board"]] = new
                self._write(words.plain(f"{place['name']}: {said(place)}") + "\n")


def said(place: dict[str, Any]) -> str:
    """What there is to say of an app on a board: the sentence, and how far a pull is."""
    sentence = str(place["sentence"])
    if not _step(place) or not (far := _progress(place)):
        return sentence
    if far["unit"] == "layers":
        return f"{sentence}: layer {far['done']}" + (f" of {far['total']}" if far["total"] else "")
    if not far["total"]:
        return f"{sentence}: {words.value(far['done'], far['unit'])}"
    return f"{sentence}: {100 * _share(place):.0f} % of {words.value(far['total'], far['unit'])}"


def _step(place: dict[str, Any]) -> str:
    """What the board does for this change just now."""
    return str(place["sentence"]) if place["state"] in ("updating", "removing") else ""


def _progress(place: dict[str, Any]) -> dict[str, Any] | None:
    reported = place.get("reported") or {}
    found: dict[str, Any] | None = reported.get("progress")
    return found


def _share(place: dict[str, Any]) -> float:
    far = _progress(place)
    return far["done"] / far["total"] if far and far["total"] and _step(place) else 0.0
