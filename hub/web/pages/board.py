"""A board's page: state, live values, history, events, and what it is; its name and labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from aiohttp import web

from agent.wire import words
from agent.wire.errors import Refused
from hub.store import boards, events, problems, ranges
from hub.store.boards import BoardRow, SensorRow
from hub.store.gaps import list_gaps
from hub.store.problems import ProblemRow
from hub.web.api.boards import relabel, rename
from hub.web.board import about_of, board_of, known_of, problem_of
from hub.web.guard import PRINCIPAL
from hub.web.pages.apps.on_board import apps_on
from hub.web.pages.facts import facts_of, lost_in_words
from hub.web.pages.forms import labels_of, read_form
from hub.web.pages.render import go, page
from hub.web.pages.span import RANGES, begin_ms, read_span
from hub.web.pages.usage import ledger_of
from hub.web.pages.values import place_of, shown_values, summary_of
from hub.web.parts import parts_of
from hub.web.problems import status_of

EVENTS = 20
PAST_PROBLEMS = 20
SEVERITIES = ("fail", "warn", "notice")
MOST_CHOSEN = 6
DEFAULT_CHOSEN = 4
OUTLINE_POINTS = 60
HOUR_MS = 3_600_000
SUMMARY_POINTS = 60


async def show_board(request: web.Request) -> web.Response:
    """The page."""
    async with parts_of(request).store.read() as tx:
        row = await boards.get_board(tx, request.match_info["board"])
    return await _page(request, row)


async def rename_board(request: web.Request) -> web.Response:
    """What the form for the name posts."""
    form = await read_form(request)
    async with parts_of(request).store.read() as tx:
        row = await boards.get_board(tx, request.match_info["board"])
    try:
        async with parts_of(request).store.write() as tx:
            await rename(tx, row, form.get("name", ""), request[PRINCIPAL].admin, parts_of(request).now_ms())
    except Refused as error:
        return await _page(request, row, error=error, form={"name": form.get("name", "")})
    return go(request, f"/boards/{quote(form['name'], safe='')}")


async def label_board(request: web.Request) -> web.Response:
    """What the form for the labels posts: all labels that the board is to have."""
    form = await read_form(request)
    async with parts_of(request).store.read() as tx:
        row = await boards.get_board(tx, request.match_info["board"])
    try:
        wanted: dict[str, str | None] = {**dict.fromkeys(row.labels), **labels_of(form.get("labels", ""))}
        async with parts_of(request).store.write() as tx:
            await relabel(tx, row, wanted, request[PRINCIPAL].admin, parts_of(request).now_ms())
    except Refused as error:
        return await _page(request, row, error=error, form={"labels": form.get("labels", "")})
    return go(request, f"/boards/{quote(row.name, safe='')}")


async def revoke_board(request: web.Request) -> web.Response:
    """What the form that puts a board out posts."""
    row = await parts_of(request).revocation.revoke(request.match_info["board"], request[PRINCIPAL].admin)
    return go(request, f"/boards/{row.id}")


async def _page(
    request: web.Request,
    row: BoardRow,
    *,
    error: Refused | None = None,
    form: Mapping[str, str] | None = None,
) -> web.Response:
    parts = parts_of(request)
    now_ms = parts.now_ms()
    span = read_span(request.query, row.joined_ms, now_ms)
    async with parts.store.read() as tx:
        sensors = await boards.list_sensors(tx, row.id)
        chosen = choose(sensors, request.query.getall("sensor", []))
        hour_ms = begin_ms(HOUR_MS, row.joined_ms, now_ms)
        outline = await ranges.read_outline(tx, row.id, hour_ms, now_ms, OUTLINE_POINTS)
        found = await ranges.read_ranges(tx, row.id, chosen, span.from_ms, span.to_ms, SUMMARY_POINTS)
        gaps = await list_gaps(tx, row.id, span.from_ms, span.to_ms)
        wrong = await problems.list_problems(tx, board=row.id)
        past = await problems.list_problems(tx, board=row.id, open=False, limit=PAST_PROBLEMS)
        on_it = await apps_on(tx, row, now_ms)
        ledger = await ledger_of(tx, row)
        happened = await events.list_events(tx, board=row.id, limit=EVENTS)
    wrong += [problem for problem in parts.alerts.unsaved() if problem.board == row.id]
    known = known_of(parts.latest, row.id)
    about = about_of(row)
    board = board_of(row, parts.latest, now_ms)
    listed = " ".join(words.labels(row.labels))
    return page(
        request,
        "board.html",
        {
            "board": board,
            "problem": problem_of(known),
            "replaced_by": row.replaced_by,
            "label_texts": words.labels(row.labels),
            "about": about,
            "problems": sorted(wrong, key=_urgency),
            "past": past,
            "waiting": known.waiting or 0,
            "apps": on_it,
            "values": shown_values(known, sensors, about, outline, (hour_ms, now_ms)),
            "chosen": chosen,
            "span": span,
            "ranges": RANGES,
            "link": functools.partial(link_to, row.name, request.query.getall("sensor", [])),
            "summary": [
                summary_of(sensor, found[sensor.name])
                for sensor in sorted(sensors, key=place_of)
                if sensor.name in found
            ],
            "lost": [lost_in_words(gap) for gap in gaps],
            "ledger": ledger,
            "events": happened,
            "facts": facts_of(row, about, known.waiting),
            "error": error,
            "form": {"name": row.name, "labels": listed, **(form or {})},
        },
        status=status_of(error) if error else 200,
    )


def _urgency(problem: ProblemRow) -> tuple[int, int]:
    """What is broken first, and of the same severity in the order in which they were told."""
    return SEVERITIES.index(problem.severity), problem.id


def choose(sensors: list[SensorRow], asked: list[str]) -> list[str]:
    """The sensors in the charts: those asked for, else load, and what was added to the board."""
    names = [sensor.name for sensor in sensors]
    wanted = [name for name in dict.fromkeys(asked) if name in names]
    if wanted:
        return wanted[:MOST_CHOSEN]
    load = [
        each.name for each in sensors if each.kind == "capacity" and each.name.endswith((".cpu", ".memory"))
    ]
    others = [each.name for each in sensors if each.kind != "capacity"]
    return [*load, *others][:DEFAULT_CHOSEN] or names[:DEFAULT_CHOSEN]


def link_to(name: str, chosen: list[str], range: str) -> str:
    """The address of a board's page with another range."""
    pairs = [("range", range), *(("sensor", sensor) for sensor in chosen)]
    return f"/boards/{quote(name, safe='')}?{urlencode(pairs)}#history"
