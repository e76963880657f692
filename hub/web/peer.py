"""The board behind a connection, by the certificate that it showed in the TLS handshake.

The guard and the handlers for boards ask it.  OpenSSL has checked by then that the certificate is
this hub's and in its time; whether its board was revoked since, the store says.
"""

from __future__ import annotations

from aiohttp import web

from hub.fleet.revocation import refuse_revoked
from hub.store import boards
from hub.web.parts import parts_of


def board_of(request: web.Request) -> str:
    """The id of the board whose certificate the connection showed; empty without one."""
    shown = request.get_extra_info("peercert") or {}
    names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else ""


async def refuse_revoked_peer(request: web.Request) -> None:
    """Raise Refused (code "revoked") for whatever comes with the certificate of a revoked board."""
    if board := board_of(request):
        async with parts_of(request).store.read() as tx:
            row = await boards.find_board(tx, board)
        if row is not None:
            refuse_revoked(row)
