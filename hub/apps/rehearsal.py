"""A deployment that is only thought through: what it would do, and everything that is in its way.

Owns the answer to `lichen app check` and to the form of a page.  It takes the same steps as a deployment
(`hub.apps.changes`), but collects what that would stop at, and touches nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.wire.errors import LinkDown, Refused
from hub.apps import compile as compiler
from hub.apps.changes import Changes
from hub.apps.content import Content, difference
from hub.apps.draft import Draft, Verdict
from hub.apps.images import choose
from hub.apps.manifests import Pinned, arch_of
from hub.apps.placement import lacks, successors
from hub.apps.recipe import Recipe
from hub.apps.secrets import Secrets, SecretState
from hub.apps.wish import Wish, check_name, wanted, wished_boards
from hub.store.apps import Pins
from hub.store.boards import BoardRow
from hub.store.database import Store


@dataclass(frozen=True, slots=True)
class BoardCheck:
    """A board, and in sentences what is in the way there."""

    board: str
    name: str
    presence: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a deployment would do.

    ``images``: of each image as the recipe has it, board to digest.  ``difference``: to the app as it is, in
    lines; none for a new one.  ``problems`` are what it would be refused for, those of the boards among
    them; none: it can be deployed.  ``draft`` is there unless a key is refused.
    """

    app: str
    version: str
    verdicts: tuple[Verdict, ...]
    services: tuple[str, ...] = ()
    secrets: tuple[SecretState, ...] = ()
    boards: tuple[BoardCheck, ...] = ()
    images: dict[str, dict[str, str]] | None = None
    difference: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    draft: Draft | None = None


class Rehearsal:
    """Thinks deployments through for one hub."""

    def __init__(self, store: Store, changes: Changes, secrets: Secrets) -> None:
        self._store = store
        self._changes = changes
        self._secrets = secrets

    async def check(self, app: str, wish: Wish, *, images: bool = True) -> Checked:
        """What deploying this would do, without doing anything.  Without boards only the recipe is looked at.

        Not ``images``: no registry is asked, as somebody is still typing.  Raises Refused for a recipe that
        cannot be read ("compose", "env", "recipe").
        """
        check_name(app)
        async with self._store.read() as tx:
            standing = await self._changes.find(tx, app)
            rows = await wished_boards(tx, standing, wish)
            there = await successors(tx, standing.base.content.boards) if standing else []
        content = wanted(standing, wish, rows)
        verdicts = await asyncio.to_thread(compiler.check, Recipe(content.files), content.env, app=app)
        refused = [each for each in verdicts if each.verdict == "refused"]
        if refused:
            problems = tuple(f"{each.file}:{each.line}: {each.key}: {each.reason}" for each in refused)
            return Checked(app, "", verdicts, problems=problems)
        draft = await self._changes.manifests.compile(app, content)
        checked, pins = await self._look(app, content, draft, verdicts, rows, look_up=images)
        if standing is None:
            return checked
        names = {row.id: row.name for row in (*there, *rows)}
        lines = difference(standing.base.content, replace(content, pins=pins), names)
        return replace(checked, difference=tuple(lines))

    async def _look(
        self,
        app: str,
        content: Content,
        draft: Draft,
        verdicts: tuple[Verdict, ...],
        rows: Sequence[BoardRow],
        *,
        look_up: bool,
    ) -> tuple[Checked, Pins]:
        """What there is to say of the draft, and the images that it would have."""
        boards = tuple(BoardCheck(row.id, row.name, row.presence, tuple(lacks(draft, row))) for row in rows)
        problems = [sentence for board in boards for sentence in board.lacks]
        fit = [row for row, board in zip(rows, boards, strict=True) if not board.lacks]
        images: dict[str, dict[str, str]] | None = None
        pinned = Pinned(content.pins)
        try:
            if look_up:
                pinned = await self._changes.manifests.pin(draft, fit, content.pins, fresh=True)
                images = {
                    image: {row.name: choose(digests, arch_of(row)) for row in fit}
                    for image, digests in pinned.pins.items()
                }
        except (Refused, LinkDown) as error:
            problems.append(str(error))
        async with self._store.read() as tx:
            secrets = await self._secrets.states(tx, app, draft.secrets)
        problems += [
            f"the secret {each.name} ({each.version}) has to be set: lichen secret set {app} {each.name}"
            for each in secrets
            if each.state == "missing"
        ]
        services = tuple(service.name for service in draft.app.services)
        checked = Checked(
            app,
            draft.version,
            verdicts,
            services,
            tuple(secrets),
            boards,
            images,
            problems=tuple(problems),
            notes=pinned.notes,
            draft=draft,
        )
        return checked, pinned.pins
