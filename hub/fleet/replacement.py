"""A board in the place of another: a new card, or a new machine, under the old name.

Owns what a join token with ``replaces`` does when it is used; `hub.fleet.joining` calls it inside
the transaction of the join, and lets `hub.fleet.revocation` end the old board's session after it.
Name, labels and apps move.  What the old board has measured stays with it: it was another machine.
"""

from __future__ import annotations

from agent.wire.errors import Refused
from hub.store import boards, events, placements
from hub.store.boards import BoardRow
from hub.store.database import Tx
from hub.store.tokens import Token


async def predecessor(tx: Tx, token: Token, board: str) -> BoardRow | None:
    """The board whose place ``board`` takes with this token; None when it takes nobody's.

    The very board that was to be replaced has kept its log key, so it only joins again.
    Raises Refused (code "conflict") when another has taken the place.
    """
    if token.replaces in (None, board):
        return None
    row = await boards.get_board(tx, token.replaces)
    refuse_replaced(row)
    return row


def refuse_replaced(row: BoardRow) -> None:
    """Raise Refused (code "conflict") when another board has taken the place of this one."""
    if row.replaced_by is not None:
        raise Refused(
            f"the board {row.id} has been replaced by {row.replaced_by} already",
            code="conflict",
            hint=f"to replace that one: lichen token new --replaces {row.replaced_by}",
        )


async def hand_over(tx: Tx, old: BoardRow, new: str, now_ms: int) -> None:
    """Revoke ``old`` and free its name for the board ``new``, which is not stored yet."""
    name = await boards.retire_board(tx, old, new, now_ms)
    text = f"replaced by {new}; {old.name} is called {name} from now on"
    await events.add_event(tx, at_ms=now_ms, kind="replaced", text=text, board=old.id, actor="hub")


async def take_apps(tx: Tx, old: BoardRow, new: str, now_ms: int) -> None:
    """Give the apps of ``old`` to the board ``new``, which is stored by now."""
    moved = await placements.move_board(tx, old.id, new, now_ms)
    if moved:
        text = f"takes over {', '.join(moved)} from {old.id}"
        await events.add_event(tx, at_ms=now_ms, kind="apps-moved", text=text, board=new, actor="hub")
