"""The fleet page: what needs somebody first, then every board by name.

Search, labels, state and page are in the address and in the query; nothing is filtered in
the browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from agent.wire import words
from agent.wire.errors import Refused
from agent.wire.messages import Problem
from hub.fleet.latest import Latest
from hub.store import boards
from hub.store.app_counts import count_apps
from hub.store.boards import BoardRow
from hub.store.database import Tx
from hub.web import state
from hub.web.api.boards import read_labels
from hub.web.board import known_of, overview_sensors, seen_of
from hub.web.census import Tally
from hub.web.pages.render import page
from hub.web.pages.values import Shown, newest
from hub.web.parts import parts_of
from hub.web.state import STATES, State
from hub.web.wiring import CENSUS

PAGE_SIZE = 100
MOST_URGENT = 8
COLUMNS = (
    ("cpu", "CPU", "%"),
    ("memory", "Memory", "%"),
    ("disk", "Disk", "%"),
    ("temperature", "Temp", "Cel"),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """What the address asks for."""

    search: str = ""
    labels: tuple[str, ...] = ()
    state: State | None = None
    after: str = ""

    def link(self, *, without: str = "", **changed: str) -> str:
        """The address with something changed; a new filter begins at the first page again."""
        fields: dict[str, Any] = {"search": self.search, "state": self.state, **changed}
        labels = [label for label in self.labels if label != without]
        pairs = [(key, value) for key, value in fields.items() if value] + [
            ("label", label) for label in labels
        ]
        return "/" + (f"?{urlencode(pairs)}" if pairs else "")


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One board in the table, or among those that need somebody.

    ``problem`` is the worst that asks for somebody; ``more`` do so as well.
    """

    id: str
    name: str
    state: State
    sentence: str
    hint: str
    problem: str
    more: int
    heard_ms: int | None
    joined_ms: int
    every_ms: int
    presence: str
    columns: tuple[Shown, ...]
    version: str
    labels: tuple[str, ...]


async def show_fleet(request: web.Request) -> web.Response:
    """The page."""
    parts = parts_of(request)
    wanted = read_filter(request)
    words, labels = split_search(wanted)
    tally = await request.config_dict[CENSUS].count()
    ids = tally.ids[wanted.state] if wanted.state else None
    filtered = bool(wanted.search or wanted.labels or wanted.state)
    async with parts.store.read() as tx:
        rows = await boards.list_boards(
            tx, search=words, labels=labels, ids=ids, limit=PAGE_SIZE + 1, after=wanted.after
        )
        matching = await boards.count_boards(tx, search=words, labels=labels, ids=ids) if filtered else 0
        counts = await count_apps(tx, [row.id for row in rows])
        urgent = [] if filtered or wanted.after else await _urgent(tx, tally)
    now_ms = parts.now_ms()
    shown = rows[:PAGE_SIZE]
    return page(
        request,
        "fleet.html",
        {
            "counts": tally.counts,
            "boards": [row_of(row, parts.latest, now_ms) for row in shown],
            "apps": counts,
            "urgent": [row_of(row, parts.latest, now_ms) for row in urgent],
            "urgent_more": tally.counts.attention + tally.counts.silent - len(urgent),
            "own_problems": parts.latest.problems,
            "matching": matching,
            "search": wanted.search,
            "chosen_labels": wanted.labels,
            "chosen_state": wanted.state or "",
            "link": wanted.link,
            "first": not wanted.after,
            "next": shown[-1].name if len(rows) > len(shown) else "",
            "page_size": PAGE_SIZE,
        },
    )


def read_filter(request: web.Request) -> Filter:
    """The filter in the address.  Raises Refused for a state that there is not."""
    query = request.query
    named = query.get("state", "")
    wanted = next((each for each in STATES if each == named), None)
    if named and wanted is None:
        raise Refused(f"there is no state {named[:32]!r}", hint=", ".join(STATES))
    labels = tuple(dict.fromkeys(label for label in query.getall("label", []) if label))
    return Filter(query.get("search", "").strip()[:128], labels, wanted, query.get("after", "")[:128])


def split_search(wanted: Filter) -> tuple[str, dict[str, str]]:
    """The words to search for, and the labels: a word like site=north means the label."""
    words = wanted.search.split()
    typed = [word for word in words if "=" in word[1:]]
    return " ".join(word for word in words if word not in typed), read_labels((*wanted.labels, *typed))


async def _urgent(tx: Tx, tally: Tally) -> list[BoardRow]:
    """The first boards that need somebody; problems before silence."""
    found: list[BoardRow] = []
    for ids in (tally.ids["attention"], tally.ids["silent"]):
        if ids and len(found) < MOST_URGENT:
            found += await boards.list_boards(tx, ids=ids, limit=MOST_URGENT - len(found))
    return found


def row_of(row: BoardRow, latest: Latest, now_ms: int) -> FleetRow:
    """A board as the table shows it."""
    known = known_of(latest, row.id)
    seen = seen_of(row, known)
    judgement = state.judge(seen, now_ms)
    sensors = overview_sensors(row.about)
    return FleetRow(
        id=row.id,
        name=row.name,
        state=judgement.state,
        sentence=judgement.sentence,
        hint=_hint(judgement.state, known.problems, seen.problem),
        problem=seen.problem,
        more=max(sum(problem.severity != "notice" for problem in known.problems) - 1, 0),
        heard_ms=seen.heard_ms,
        joined_ms=row.joined_ms,
        every_ms=seen.every_ms,
        presence=seen.presence,
        columns=tuple(
            newest(known, sensors.get(key, ""), now_ms, label=label, unit=unit)
            for key, label, unit in COLUMNS
        ),
        version=(row.about or {}).get("version", ""),
        labels=tuple(words.labels(row.labels)),
    )


def _hint(now: State, problems: Sequence[Problem], sentence: str) -> str:
    """What helps against the problem that is shown."""
    if now != "attention":
        return ""
    return next((problem.hint for problem in problems if problem.sentence == sentence), "")
