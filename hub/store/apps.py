"""Apps and their revisions: what operators asked for, and when.

Owns the tables `apps`, `recipes` and `revisions`.  `hub.apps.deploy` adds to them; where an app is,
and what became of it, is in `hub.store.placements`.  A revision is never changed, so a history can be
relied on; only that it was cancelled is noted on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from agent.wire.decode import dumps, nearest
from agent.wire.errors import Refused
from hub.store.database import Tx, upsert
from hub.store.schema import apps, placements, recipes, revisions

Pins = dict[str, dict[str, str]]
"""Of each image as the recipe has it: platform to digest."""


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One change of an app; ``recipe`` is the digest of its files, ``boards`` are ids.

    What is new in it is not here: it is long, and only a history shows it (`read_differences`).
    """

    app: str
    number: int
    at_ms: int
    author: str
    action: str
    message: str
    version: str
    recipe: str
    env: dict[str, str]
    pins: Pins
    scale: dict[str, int]
    restarted: dict[str, int]
    stopped: bool
    boards: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cancelled_ms: int | None = None


_COLUMNS = tuple(revisions.c[name] for name in RevisionRow.__slots__)
_NEWEST = (revisions.c.app == apps.c.name) & (revisions.c.number == apps.c.revision)


async def list_apps(
    tx: Tx, *, limit: int, after: str = "", search: str = "", placed: bool = False
) -> list[RevisionRow]:
    """The newest revision of every app that there ever was, by the app's name.

    ``search`` is a part of the name; ``placed``: only those that are, or still have to go from, somewhere.
    """
    asked = select(*_COLUMNS).join(apps, _NEWEST).order_by(apps.c.name).limit(limit)
    if after:
        asked = asked.where(apps.c.name > after)
    if search:
        asked = asked.where(apps.c.name.contains(search.lower(), autoescape=True))
    if placed:
        asked = asked.where(select(placements.c.app).where(placements.c.app == apps.c.name).exists())
    return [_revision(row) for row in await tx.execute(asked)]


async def find_app(tx: Tx, name: str) -> RevisionRow | None:
    """The newest revision of an app; None when there never was one of that name."""
    asked = select(*_COLUMNS).join(apps, _NEWEST).where(apps.c.name == name)
    row = (await tx.execute(asked)).one_or_none()
    return _revision(row) if row else None


async def get_app(tx: Tx, name: str) -> RevisionRow:
    """The newest revision of an app.  Raises Refused (code "not-found"), whose hint names the nearest."""
    found = await find_app(tx, name)
    if found is None:
        near = nearest(name, list((await tx.execute(select(apps.c.name))).scalars()))
        hint = f"did you mean {near!r}?" if near else "`lichen app ls` lists them"
        raise Refused(f"there is no app {name[:40]!r}", code="not-found", hint=hint)
    return found


async def get_revision(tx: Tx, app: str, number: int) -> RevisionRow:
    """One revision of an app.  Raises Refused (code "not-found")."""
    asked = select(*_COLUMNS).where(revisions.c.app == app, revisions.c.number == number)
    row = (await tx.execute(asked)).one_or_none()
    if row is None:
        raise Refused(
            f"{app} has no revision {number}", code="not-found", hint=f"`lichen app history {app}` lists them"
        )
    return _revision(row)


async def list_revisions(
    tx: Tx, app: str, *, limit: int = 50, before: int | None = None
) -> list[RevisionRow]:
    """The newest revisions of an app first; ``before``: only those with a lower number."""
    asked = select(*_COLUMNS).where(revisions.c.app == app).order_by(revisions.c.number.desc()).limit(limit)
    if before is not None:
        asked = asked.where(revisions.c.number < before)
    return [_revision(row) for row in await tx.execute(asked)]


async def read_differences(tx: Tx, app: str, numbers: Collection[int]) -> dict[int, tuple[str, ...]]:
    """What was new in these revisions of an app, in lines."""
    asked = select(revisions.c.number, revisions.c.difference)
    asked = asked.where(revisions.c.app == app, revisions.c.number.in_(numbers))
    return {row.number: tuple(row.difference) for row in await tx.execute(asked)}


async def read_recipe(tx: Tx, digest: str) -> dict[str, str]:
    """The files of a recipe, by path."""
    asked = select(recipes.c.files).where(recipes.c.digest == digest)
    return dict((await tx.execute(asked)).scalar_one())


async def save_recipe(tx: Tx, files: Mapping[str, str]) -> str:
    """Keep the files of a recipe; returns their digest.  The same files are kept once."""
    kept = dict(sorted(files.items()))
    digest = hashlib.sha256(dumps(kept)).hexdigest()
    await tx.execute(upsert(tx, recipes).values(digest=digest, files=kept).on_conflict_do_nothing())
    return digest


async def add_revision(tx: Tx, row: RevisionRow, difference: Sequence[str] = ()) -> None:
    """Add the newest revision of an app, and the app when it is its first."""
    app = upsert(tx, apps).values(name=row.app, revision=row.number)
    await tx.execute(app.on_conflict_do_update(index_elements=["name"], set_={"revision": row.number}))
    values = {name: getattr(row, name) for name in RevisionRow.__slots__}
    values["stopped"] = int(row.stopped)
    for name in ("boards", "notes"):
        values[name] = list(values[name])
    values["difference"] = list(difference)
    await tx.execute(insert(revisions).values(values))


async def cancel_revision(tx: Tx, app: str, number: int, at_ms: int) -> None:
    """Note that a revision was cancelled."""
    asked = update(revisions).where(revisions.c.app == app, revisions.c.number == number)
    await tx.execute(asked.values(cancelled_ms=at_ms))


def _revision(row: Row[Any]) -> RevisionRow:
    fields = dict(row._mapping)
    fields["stopped"] = bool(fields["stopped"])
    for name in ("boards", "notes"):
        fields[name] = tuple(fields[name])
    return RevisionRow(**fields)
