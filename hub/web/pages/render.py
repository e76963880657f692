"""Templates: what they may use, and how a page becomes a response.

Owns the Jinja environment of the pages.  Handlers say the template and its own values; what
every page shows (the hub, who is logged in, the time) is added here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp_jinja2
import jinja2
from aiohttp import web

from agent.wire import words
from agent.wire.errors import LichenError
from hub.web.guard import PRINCIPAL
from hub.web.parts import parts_of
from hub.web.wiring import ASSETS

WORDS: Final = {
    "fine": "fine",
    "attention": "needs you",
    "silent": "silent",
    "notice": "to know",
    "warn": "needs you",
    "fail": "broken",
}
"""State and severity in words; `static/state.js` has the states too."""

HTMX: Final = json.dumps(
    {
        "includeIndicatorStyles": False,  # they would be an inline style
        "allowEval": False,
        "allowScriptTags": False,
        "historyCacheSize": 0,  # pages are not to be kept in the browser's storage
        "refreshOnHistoryMiss": True,
        # A form that was refused answers 4xx with itself and the reason: show it.
        "responseHandling": [
            {"code": "204", "swap": False},
            {"code": "[23]..", "swap": True},
            {"code": "4(09|22)", "swap": True},
            {"code": "[45]..", "swap": False, "error": True},
        ],
    },
    separators=(",", ":"),
)

TITLES: Final = {
    401: "Please log in",
    403: "Not allowed",
    404: "Not here",
    405: "Not possible",
    409: "In conflict",
    410: "Over",
    413: "Too large",
    421: "Another address",
    422: "That cannot be used",
    429: "Too many at once",
    503: "Not reachable",
    507: "No room left",
}


def set_up(app: web.Application) -> None:
    """Give the application its templates."""
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.PackageLoader("hub.web"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(asset=app[ASSETS].url, words=WORDS, htmx_config=HTMX)
    environment.filters.update(
        age=words.age,
        duration=words.duration,
        iso=words.iso,
        utc=words.utc,
        labels=words.labels,
        sentence=sentence,
        ended=ended,
    )


def page(
    request: web.Request, template: str, values: Mapping[str, Any] | None = None, *, status: int = 200
) -> web.Response:
    """A page as a response, compressed."""
    parts = parts_of(request)
    principal = request.get(PRINCIPAL)
    context = {
        "hub": parts,
        "now_ms": parts.now_ms(),
        "admin": principal.admin if principal else "",
        "here": request.path,
        "search": "",
        "chosen_labels": (),
        "chosen_state": "",
        "error": None,
        **(values or {}),
    }
    response = aiohttp_jinja2.render_template(template, request, context, status=status)
    response.enable_compression()
    return response


def error_page(request: web.Request, error: LichenError, status: int) -> web.Response:
    """An error in words."""
    return page(
        request,
        "error.html",
        {"error": error, "title": TITLES.get(status, "That did not work")},
        status=status,
    )


def sentence(text: object) -> str:
    """A message as a sentence on a page: with a capital, and a full stop.

    >>> sentence("there is no board 'x'"), sentence("did you mean 'y'?"), sentence("")
    ("There is no board 'x'.", "Did you mean 'y'?", '')
    """
    words = ended(text)
    return words[:1].upper() + words[1:]


def ended(text: object) -> str:
    """A message with its full stop, as it begins: with a name, say, which is not to be changed.

    >>> ended("pump-07: pulling"), ended("")
    ('pump-07: pulling.', '')
    """
    words = str(text)
    return words + ("" if words.endswith((".", "!", "?", ")", ":")) or not words else ".")


def go(request: web.Request, address: str) -> web.Response:
    """Send the browser on after something was done."""
    if "HX-Request" in request.headers:
        return web.Response(headers={"HX-Redirect": address})
    return web.Response(status=303, headers={"Location": address})
