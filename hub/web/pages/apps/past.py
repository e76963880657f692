"""The history of an app: who did what, when and why; what was new, what became of it, and the way back."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from hub.web.api.apps import History, HistoryQuery, Revision, list_history
from hub.web.api.route import Call
from hub.web.guard import PRINCIPAL
from hub.web.pages.apps.one import app_page, picture_at
from hub.web.parts import parts_of

PAGE_SIZE = 20
OUTCOMES = {"": "not done yet", "dropped": "overtaken by a newer change", "gone": "removed"}
"""Outcomes that have other words on a page."""


async def show_history(request: web.Request) -> web.Response:
    """The page; ``after`` is the number of the revision that the page before ended with."""
    picture = await picture_at(request)
    after = request.query.get("after", "")[:16]
    call = Call(parts_of(request), request, request[PRINCIPAL])
    found: History = await list_history(call, picture.name, HistoryQuery(PAGE_SIZE, after))
    values = {
        "is_live": True,
        "revisions": found.revisions,
        "became": became,
        "older": f"/apps/{picture.name}/history?after={found.next}" if found.next else "",
        "first": not after,
    }
    return app_page(request, picture, "app_history.html", values)


def became(revision: Revision) -> list[str]:
    """What became of a revision, in a few words for all boards that say the same."""
    counts = Counter(OUTCOMES.get(result.outcome, result.outcome) for result in revision.results)
    if len(revision.results) == 1:
        return [f"{outcome} on {revision.results[0].name}" for outcome in counts]
    return [f"{outcome} on {count} of {len(revision.results)} boards" for outcome, count in counts.items()]
