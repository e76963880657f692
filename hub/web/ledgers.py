"""What boards ask about their usage logs over HTTPS: take these entries, give me those back.

For what is too much for MQTT: a board that was away for long, or whose card was set back to an old copy.  The
certificate of the connection says which board asks, and it sees its own logs alone; what is believed is
decided by `hub.ledger.witness`.  A refusal is a problem document (RFC 9457) whose type ends in its code.

| request | answer | refused as |
|---|---|---|
| POST /ledger, packages | `Receipt` of the last | forbidden, revoked, invalid, usage-limit, too-many |
| GET /ledger/{epoch}?start=N | a package of what is held from there | forbidden, not-found |

Both speak as the topics ``up/usage`` and ``down/receipt`` do (`agent.wire.package`), in bodies that are
zlib data (`agent.wire.series`).
"""

from __future__ import annotations

import zlib

from aiohttp import web

from agent.wire.envelope import ZLIB_JSON
from agent.wire.errors import Corrupt, Refused
from agent.wire.package import encode_package
from agent.wire.series import MAX_BODY, read_series
from agent.wire.usage import origin_of
from hub.ledger.copies import copy_of
from hub.store import usage
from hub.web.api.route import json_response
from hub.web.parts import parts_of
from hub.web.peer import board_of

SQUEEZE = 3


async def take(request: web.Request) -> web.Response:
    """A board sends entries, or asks what is held."""
    board = _board(request)
    if (request.content_length or 0) > MAX_BODY:
        raise Refused(f"packages have at most {MAX_BODY} bytes", code="too-large")
    packages = read_series(await request.clone(client_max_size=MAX_BODY).read())
    try:
        return json_response(await parts_of(request).witness.take(board, *packages))
    except Corrupt as error:
        raise Refused(str(error), code="invalid") from error  # what does not hold is theirs


async def give(request: web.Request) -> web.Response:
    """A board asks for its own entries."""
    origin = origin_of(_board(request), request.match_info["epoch"])
    text = request.query.get("start", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise Refused(f"start: {text[:40]!r} is not the index of an entry")
    async with parts_of(request).store.read() as tx:
        package = await copy_of(tx, await usage.get_log(tx, origin), int(text))
    body = zlib.compress(encode_package(package), SQUEEZE)
    return web.Response(body=body, content_type=ZLIB_JSON)


def _board(request: web.Request) -> str:
    """The board that the certificate names.  Raises Refused (code "forbidden")."""
    board = board_of(request)
    if not board:
        raise Refused(
            "this is for boards, which show their certificate",
            code="forbidden",
            hint="the log of a board for people and programs is at /tlog/ and in the API",
        )
    return board
