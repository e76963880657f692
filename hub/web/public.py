"""What anybody may ask: is the hub there, its certificate authority, joining and renewing.

Boards come here without a login; what they say is decided on by `hub.fleet.joining` and
`hub.fleet.renewal`.  A refusal is a problem document (RFC 9457) whose type ends in its code.

| request | answer | refused as |
|---|---|---|
| POST /join, `JoinRequest` | `JoinAnswer` | forbidden, revoked, expired, invalid, too-many |
| GET /renew | `Challenge`, for a minute | |
| POST /renew, `RenewRequest` | `RenewAnswer` | the same |

The HTTPS port asks for a client certificate and takes a connection without one.  With a valid
certificate of a board, `RenewRequest` needs only ``csr_pem``.  A certificate that has ended fails
the TLS handshake, so a board whose own has ended connects without it, and sends ``board`` and
``proof``.
"""

from __future__ import annotations

from aiohttp import web

from agent.wire.decode import decode_json
from agent.wire.errors import Refused
from agent.wire.joining import JoinRequest, RenewRequest
from hub.store import boards
from hub.web.api.route import json_response
from hub.web.parts import parts_of
from hub.web.peer import board_of

MAX_JOIN = 32 * 1024
"""Largest request of a board in bytes: two texts of 8 KiB, two keys, a token, and JSON's escapes."""


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
    wanted = decode_json(JoinRequest, await _body(request), max_bytes=MAX_JOIN)
    return json_response(await parts_of(request).joining.join(wanted, request.remote or ""))


async def draw_challenge(request: web.Request) -> web.Response:
    """A board whose certificate has ended asks what to sign."""
    return json_response(parts_of(request).renewal.challenge())


async def renew(request: web.Request) -> web.Response:
    """A board asks for its next certificate."""
    wanted = decode_json(RenewRequest, await _body(request), max_bytes=MAX_JOIN)
    renewal = parts_of(request).renewal
    return json_response(await renewal.renew(wanted, peer=board_of(request), remote=request.remote or ""))


async def _body(request: web.Request) -> bytes:
    if (request.content_length or 0) > MAX_JOIN:
        raise Refused(f"a request of a board has at most {MAX_JOIN} bytes", code="too-large")
    return await request.read()
