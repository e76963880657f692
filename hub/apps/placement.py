"""On which boards an app is to be, and what each of them lacks for it.

Owns how boards are chosen (by name, by id, by labels), and everything that can be known to be in the way
before anything is touched.  What only the board itself can tell (ports, devices, room on its disk, its
own policy) it checks before it stops anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.wire import words
from agent.wire.errors import Refused
from agent.wire.order import App
from hub.apps.draft import Draft
from hub.apps.images import platforms_of
from hub.store import boards
from hub.store.boards import BoardRow
from hub.store.database import Tx

MOST_BOARDS = 1_000


async def choose_boards(tx: Tx, names: Sequence[str], labels: Mapping[str, str]) -> list[BoardRow]:
    """The boards of these names or ids, and all with these labels, by name.

    Raises Refused: "not-found", "revoked", or for labels that no board has.
    """
    found = {row.id: row for row in [await boards.get_board(tx, name) for name in names]}
    for row in found.values():
        if row.revoked_ms is not None:
            raise Refused(f"the board {row.name} was put out of this fleet", code="revoked")
    if labels:
        alike = await boards.list_boards(tx, labels=labels, limit=MOST_BOARDS + 1)
        if not alike:
            wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
            raise Refused(
                f"no board has the labels {wanted}", code="not-found", hint="`lichen board ls` shows labels"
            )
        found |= {row.id: row for row in alike}
    if len(found) > MOST_BOARDS:
        raise Refused(f"an app may be on {MOST_BOARDS} boards, and these are {len(found)}", code="too-many")
    return sorted(found.values(), key=lambda row: row.name)


async def successors(tx: Tx, ids: Iterable[str]) -> list[BoardRow]:
    """The boards on which an app was, or those that took their places; what was put out is left out."""
    found: dict[str, BoardRow] = {}
    for id in ids:
        row = await boards.find_board(tx, id)
        while row is not None and row.replaced_by is not None:
            row = await boards.find_board(tx, row.replaced_by)
        if row is not None and row.revoked_ms is None:
            found[row.id] = row
    return sorted(found.values(), key=lambda row: row.name)


def lacks(draft: Draft, board: BoardRow) -> list[str]:
    """What is in the way of an app on a board, in sentences; empty when nothing is known to be."""
    found = []
    about = board.about or {}
    arch = str(about.get("arch", ""))
    if not arch:
        found.append(f"{board.name} has not said yet what it is; wait until it was online once")
    elif not platforms_of(arch):
        found.append(f"{board.name} calls its architecture {arch!r}, and this hub knows no images for that")
    for key, value in draft.placement.items():
        if board.labels.get(key) != value:
            has = f"{key}={board.labels[key]}" if key in board.labels else f"no label {key}"
            found.append(f"{board.name} has {has}, and the recipe asks for {key}={value}")
    needed, there = reserved_bytes(draft.app), int(about.get("memory_bytes") or 0)
    if there and needed > there:
        sizes = f"{words.value(there, 'By')} of memory, and the app reserves {words.value(needed, 'By')}"
        found.append(f"{board.name} has {sizes}")
    return found


def reserved_bytes(app: App) -> int:
    """The memory that an app reserves, all replicas together."""
    return sum(each.limits.reserve_memory_bytes * each.replicas for each in app.services)


def refuse_unfit(draft: Draft, rows: Iterable[BoardRow]) -> None:
    """Raise Refused (code "placement") naming every board that lacks something, and what."""
    found = [sentence for row in rows for sentence in lacks(draft, row)]
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise Refused(
            f"{'; '.join(found[:5])}{more}",
            code="placement",
            hint="choose other boards, or change their labels",
        )
