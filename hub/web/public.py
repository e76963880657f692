"""What anybody may ask: is the hub there, its certificate authority, and joining.

Boards come here without a login; what they say is decided on by `hub.fleet.joining`.
"""

from __future__ import annotations

from aiohttp import web

from agent.wire.decode import decode_json
from agent.wire.errors import Refused
from agent.wire.joining import JoinRequest
from hub.store import boards
from hub.web.api.route import json_response
from hub.web.parts import parts_of

MAX_JOIN = 32 * 1024
"""Largest join request in bytes: two texts of 8 KiB, two keys, a token, and JSON's escapes."""


async def show_health(request: web.Request) -> web.Response:
    """200 when the hub answers and its database does."""
    async with parts_of(request).store.read() as tx:
        await boards.count_boards(tx)
    return web.Response(text="ok\n")


async def show_ca(request: web.Request) -> web.Response:
    """The certificate authority that boards check the hub against; its hash is in the join file."""
    return web.Response(text=parts_of(request).ca_pem, content_type="application/x-pem-file")


async def join(request: web.Request) -> web.Response:
    """A board asks to join."""
    if (request.content_length or 0) > MAX_JOIN:
        raise Refused(f"a join request has at most {MAX_JOIN} bytes", code="too-large")
    wanted = decode_json(JoinRequest, await request.read(), max_bytes=MAX_JOIN)
    return json_response(await parts_of(request).joining.join(wanted, request.remote or ""))
