"""The page of all apps: what needs somebody is said in a sentence; an empty page teaches the next command."""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from hub.apps.view import page_of
from hub.store import apps
from hub.web.pages.apps.shown import DONE, LOOKS, away, summed
from hub.web.pages.render import page
from hub.web.parts import parts_of

PAGE_SIZE = 50


async def show_apps(request: web.Request) -> web.Response:
    """The page; ``search`` is a part of a name, ``after`` the name that the page before ended with,
    ``gone=1`` shows those of which only the history is left, too."""
    search = request.query.get("search", "").strip()[:128]
    after = request.query.get("after", "")[:64]
    with_gone = request.query.get("gone") == "1"
    async with parts_of(request).store.read() as tx:
        found = await page_of(
            tx,
            parts_of(request).now_ms(),
            limit=PAGE_SIZE + 1,
            after=after,
            search=search,
            with_gone=with_gone,
        )
        is_empty = not found and not await apps.list_apps(tx, limit=1)
    shown = found[:PAGE_SIZE]
    return page(
        request,
        "apps.html",
        {
            "apps": shown,
            "looks": LOOKS,
            "summed": summed,
            "away": away,
            "done": DONE,
            "search": search,
            "with_gone": with_gone,
            "is_empty": is_empty,
            "first": not after,
            "next": _link(search, with_gone, shown[-1].name) if len(found) > PAGE_SIZE else "",
            "start": _link(search, with_gone),
            "other": _link(search, not with_gone),
        },
    )


def _link(search: str, with_gone: bool, after: str = "") -> str:
    fields = {"search": search, "gone": "1" if with_gone else "", "after": after}
    pairs = [(key, value) for key, value in fields.items() if value]
    return "/apps" + (f"?{urlencode(pairs)}" if pairs else "")
