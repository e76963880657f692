"""Who was put out of this hub, on every path by which a board could come back."""

from __future__ import annotations

from agent.wire.errors import Refused
from hub.store.boards import BoardRow


def refuse_revoked(row: BoardRow) -> None:
    """Raise Refused (code "revoked") when the board was revoked."""
    if row.revoked_ms is not None:
        raise Refused(
            f"the board {row.id} was revoked on this hub",
            code="revoked",
            hint="to let this machine in again, give it new keys: remove its state directory",
        )
