"""Putting a board out of the fleet, in the API."""

from __future__ import annotations

from hub.web.api.route import Call
from hub.web.board import Board, board_of


async def revoke_board(call: Call, board: str) -> Board:
    """Put a board out for good.

    Its connection ends within two seconds, and neither its certificate nor its keys are taken
    again; what it has measured stays. To let the machine in again, give it new keys.
    """
    row = await call.parts.revocation.revoke(board, call.admin)
    return board_of(row, call.parts.latest, call.parts.now_ms())
