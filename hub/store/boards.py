"""Boards: who they are, what they are called, what they last said of themselves.

Owns the tables `boards` and `sensors`.  Joining adds boards, ingest keeps what they say, the
web layer lists and names them.  Checks the form of names and labels here, so that no caller
can forget it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, String, and_, bindparam, cast, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.wire.decode import nearest, plain
from agent.wire.errors import Refused
from agent.wire.messages import About
from hub.store.schema import boards, sensors
from hub.store.sensors import describe_sensors

PresenceState = Literal["online", "offline"]
LatestValues = dict[str, tuple[float | None, int]]

LONGEST_NAME = 64
MOST_LABELS = 32
_LABEL_KEY = re.compile(r"[a-z0-9][a-z0-9_./-]{0,62}", re.ASCII)
_LONGEST_LABEL = 128


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A board.  ``latest``: sensor name to (value, wall time in ms), as of the last fold."""

    id: str
    name: str
    labels: dict[str, str]
    log_key: str
    seal_key: str
    joined_ms: int
    revoked_ms: int | None
    presence: PresenceState
    presence_ms: int | None
    heard_ms: int | None
    about: dict[str, Any] | None
    latest: LatestValues
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class SensorRow:
    """A sensor of a board; ``unit`` and ``quantity`` are empty until its board has described it."""

    id: int
    board: str
    name: str
    kind: str
    unit: str
    quantity: str
    interval_ms: int
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What ingest has to know of a board before it believes a message."""

    revoked: bool
    presence: PresenceState
    nonce: str


# --- questions -----------------------------------------------------------------------------------


async def list_boards(
    tx: AsyncConnection,
    *,
    search: str = "",
    labels: Mapping[str, str] | None = None,
    ids: Collection[str] | None = None,
    revoked: bool = False,
    limit: int = 200,
    after: str = "",
) -> list[BoardRow]:
    """A page of boards by name.

    ``search``: a part of the name or of a label, or the beginning of the id; ``labels``: all of
    these must match; ``ids``: only these; ``after``: the name that the page before ended with;
    ``revoked``: those, instead.
    """
    asked = select(boards).where(_matching(search, labels, ids, revoked)).order_by(boards.c.name).limit(limit)
    if after:
        asked = asked.where(boards.c.name > after)
    return [_board(row) for row in await tx.execute(asked)]


async def count_boards(
    tx: AsyncConnection,
    *,
    search: str = "",
    labels: Mapping[str, str] | None = None,
    ids: Collection[str] | None = None,
    presence: PresenceState | None = None,
    revoked: bool = False,
) -> int:
    """How many boards `list_boards` would list over all pages, or those of one presence."""
    asked = select(func.count()).select_from(boards).where(_matching(search, labels, ids, revoked))
    if presence is not None:
        asked = asked.where(boards.c.presence == presence)
    return (await tx.execute(asked)).scalar_one()


async def get_board(tx: AsyncConnection, id_or_name: str) -> BoardRow:
    """One board, revoked or not; an id wins over a name.

    Raises Refused (code "not-found"), whose hint names the nearest names.
    """
    asked = select(boards).where(or_(boards.c.id == id_or_name, boards.c.name == id_or_name))
    found = [_board(row) for row in await tx.execute(asked)]
    if not found:
        raise Refused(
            f"there is no board {id_or_name[:LONGEST_NAME]!r}",
            code="not-found",
            hint=await _nearest_name(tx, id_or_name) or "`lichen board ls` lists them",
        )
    return max(found, key=lambda board: board.id == id_or_name)


async def find_board(tx: AsyncConnection, id: str) -> BoardRow | None:
    """The board with this very id, revoked or not; None when it never joined."""
    row = (await tx.execute(select(boards).where(boards.c.id == id))).one_or_none()
    return _board(row) if row else None


async def joined_times(tx: AsyncConnection) -> dict[str, int]:
    """When each board that may speak joined, by id; for counting the whole fleet in one go."""
    asked = select(boards.c.id, boards.c.joined_ms).where(boards.c.revoked_ms.is_(None))
    return {row.id: row.joined_ms for row in await tx.execute(asked)}


async def never_heard(tx: AsyncConnection) -> dict[str, int]:
    """The boards that joined and of which nothing is stored, by id, with when they joined."""
    asked = select(boards.c.id, boards.c.joined_ms)
    asked = asked.where(boards.c.revoked_ms.is_(None), boards.c.heard_ms.is_(None))
    return {row.id: row.joined_ms for row in await tx.execute(asked)}


async def list_names(tx: AsyncConnection) -> list[str]:
    """What each board that may speak is called, in order."""
    asked = select(boards.c.name).where(boards.c.revoked_ms.is_(None)).order_by(boards.c.name)
    return list((await tx.execute(asked)).scalars())


async def list_abouts(tx: AsyncConnection) -> dict[str, dict[str, Any]]:
    """What each board that may speak last said of itself, by id; those that said nothing are left out."""
    asked = select(boards.c.id, boards.c.about).where(boards.c.revoked_ms.is_(None))
    return {id: about for id, about in await tx.execute(asked) if about is not None}


async def list_sensors(tx: AsyncConnection, board: str) -> list[SensorRow]:
    """The sensors of a board (by id) that ever reported or were described, by name."""
    asked = select(sensors).where(sensors.c.board == board).order_by(sensors.c.name)
    return [SensorRow(*row) for row in await tx.execute(asked)]


async def standings(tx: AsyncConnection, ids: Collection[str]) -> dict[str, Standing]:
    """What ingest needs to know of these boards; ids that never joined are left out."""
    columns = (boards.c.id, boards.c.revoked_ms, boards.c.presence, boards.c.nonce)
    rows = await tx.execute(select(*columns).where(boards.c.id.in_(ids)))
    return {id: Standing(revoked_ms is not None, presence, nonce) for id, revoked_ms, presence, nonce in rows}


# --- changes -------------------------------------------------------------------------------------


async def add_board(
    tx: AsyncConnection,
    *,
    id: str,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    log_key: str,
    seal_key: str,
    joined_ms: int,
) -> BoardRow:
    """Add a board that has just joined; offline until it says something.

    A name that is taken gets a number ("greenhouse-2"), because one token may let many
    boards in; without a name the board is called by its id.  Raises Refused ("conflict")
    when the board is there already.
    """
    row = BoardRow(
        id=id,
        name=await _free_name(tx, check_name(name) if name else id),
        labels=check_labels(labels or {}),
        log_key=log_key,
        seal_key=seal_key,
        joined_ms=joined_ms,
        revoked_ms=None,
        presence="offline",
        presence_ms=None,
        heard_ms=None,
        about=None,
        latest={},
    )
    try:
        await tx.execute(
            insert(boards).values(nonce="", **{column: getattr(row, column) for column in BoardRow.__slots__})
        )
    except IntegrityError as error:
        raise Refused(f"the board {id} has joined already", code="conflict") from error
    return row


async def rekey_board(tx: AsyncConnection, id: str, seal_key: str) -> None:
    """Note the sealing key of a board that joined once more."""
    await tx.execute(update(boards).where(boards.c.id == id).values(seal_key=seal_key))


async def revoke_board(tx: AsyncConnection, id: str, at_ms: int) -> bool:
    """Mark a board as revoked for good; False when it was already."""
    asked = update(boards).where(boards.c.id == id, boards.c.revoked_ms.is_(None))
    return (await tx.execute(asked.values(revoked_ms=at_ms))).rowcount == 1


async def retire_board(tx: AsyncConnection, row: BoardRow, successor: str, at_ms: int) -> str:
    """Revoke a board whose place ``successor`` takes, and free its name; returns its new one."""
    name = await _free_name(tx, f"{row.name[: LONGEST_NAME - 9]}-replaced")
    revoked_ms = func.coalesce(boards.c.revoked_ms, at_ms)
    asked = update(boards).where(boards.c.id == row.id)
    await tx.execute(asked.values(name=name, revoked_ms=revoked_ms, replaced_by=successor))
    return name


async def rename_board(tx: AsyncConnection, id: str, name: str) -> None:
    """Call a board ``name``.  Raises Refused: "conflict" when another is called so, or for its form."""
    try:
        await tx.execute(update(boards).where(boards.c.id == id).values(name=check_name(name)))
    except IntegrityError as error:
        raise Refused(
            f"another board is called {name!r}",
            code="conflict",
            hint="choose another name, or rename that one",
        ) from error


async def label_board(
    tx: AsyncConnection, id: str, set: Mapping[str, str], unset: Iterable[str] = ()
) -> dict[str, str]:
    """Set and remove labels; returns what the board has then.  Raises Refused for their form."""
    labels = dict((await get_board(tx, id)).labels)
    for key in unset:
        labels.pop(key, None)
    labels = check_labels(labels | dict(set))
    await tx.execute(update(boards).where(boards.c.id == id).values(labels=labels))
    return labels


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A board came or went, at ``at_ms`` by the hub's clock, in the session called ``nonce``."""

    board: str
    state: PresenceState
    nonce: str
    at_ms: int


async def save_presence(tx: AsyncConnection, changes: Sequence[PresenceChange]) -> None:
    """Note which boards came or went."""
    rows = [
        {"p_id": change.board, "presence": change.state, "nonce": change.nonce, "presence_ms": change.at_ms}
        for change in changes
    ]
    if rows:
        await tx.execute(update(boards).where(boards.c.id == bindparam("p_id")), rows)


async def all_offline(tx: AsyncConnection) -> None:
    """Take no board for online until it says so itself: after a restore nothing else is known."""
    await tx.execute(update(boards).values(presence="offline"))


async def save_abouts(
    tx: AsyncConnection, abouts: Mapping[str, About], at_ms: int, *, most_sensors: int
) -> None:
    """Keep what boards say of themselves, and what their sensors measure.

    A board that has ``most_sensors`` already gets no row for another one.
    """
    rows = [{"b_id": board, "about": plain(about), "heard_ms": at_ms} for board, about in abouts.items()]
    if rows:
        await tx.execute(update(boards).where(boards.c.id == bindparam("b_id")), rows)
    await describe_sensors(tx, abouts, most_sensors)


# --- the form of names and labels ------------------------------------------------------------------


def check_name(name: str) -> str:
    """Return ``name`` if a board may be called so.  Raises Refused."""
    shown = 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()
    if not shown or "/" in name or name in (".", ".."):  # in an address these three lead elsewhere
        raise Refused(
            f"{name[:LONGEST_NAME]!r} is not a name for a board",
            hint=f"1 to {LONGEST_NAME} printable characters, no '/', no space at either end, not '.' or '..'",
        )
    return name


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return ``labels`` as a dict in order of its keys.  Raises Refused."""
    if len(labels) > MOST_LABELS:
        raise Refused(f"{len(labels)} labels are more than the {MOST_LABELS} that a board may have")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise Refused(
                f"{key[:63]!r} is not a key for a label",
                hint="lower-case letters, digits and _ . / - between, at most 63",
            )
        if len(value) > _LONGEST_LABEL or not value.isprintable():
            raise Refused(f"label {key}: at most {_LONGEST_LABEL} printable characters")
    return dict(sorted(labels.items()))


# ---------------------------------------------------------------------------------------------------


def _matching(
    search: str, labels: Mapping[str, str] | None, ids: Collection[str] | None, revoked: bool
) -> ColumnElement[bool]:
    """The condition that a list and its count share."""
    parts: list[ColumnElement[bool]] = [
        boards.c.revoked_ms.is_not(None) if revoked else boards.c.revoked_ms.is_(None)
    ]
    if search:
        parts.append(
            or_(
                boards.c.name.icontains(search, autoescape=True),
                boards.c.id.istartswith(search, autoescape=True),
                cast(boards.c.labels, String).icontains(search, autoescape=True),
            )
        )
    if ids is not None:
        parts.append(boards.c.id.in_(sorted(ids)))
    # The keys become part of a JSON path, so their form matters.
    for key, value in check_labels(labels or {}).items():
        parts.append(boards.c.labels[key].as_string() == value)
    return and_(*parts)


async def _nearest_name(tx: AsyncConnection, wanted: str) -> str:
    near = nearest(wanted, await list_names(tx))
    return f"did you mean {near!r}?" if near else ""


async def _free_name(tx: AsyncConnection, wish: str) -> str:
    # Cut, so that what a long name is shortened to below is found as well.
    alike = boards.c.name.startswith(wish[: LONGEST_NAME - 8], autoescape=True)
    taken = set((await tx.execute(select(boards.c.name).where(alike))).scalars())
    name, number = wish, 1
    while name in taken:
        number += 1
        suffix = f"-{number}"
        name = wish[: LONGEST_NAME - len(suffix)] + suffix
    return name


def _board(row: Row[Any]) -> BoardRow:
    fields = dict(row._mapping)
    del fields["nonce"]
    fields["latest"] = {sensor: (value, wall_ms) for sensor, (value, wall_ms) in fields["latest"].items()}
    return BoardRow(**fields)
