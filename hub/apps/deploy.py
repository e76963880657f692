"""What an operator can do with an app: deploy, roll back, scale, restart, stop, start, remove it.

Owns what each of these means, as a `Content` that is wanted next; `hub.apps.changes` makes it so.  Each is a
revision with an author and a reason.  Called by the API and by pages.

The base of a change is the newest revision that did not fail: when a board has rolled back by itself, a
restart must not ask for the bad version again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.wire.errors import Refused
from hub.apps.changes import Base, Change, Changed, Changes, Standing
from hub.apps.content import Content, difference
from hub.apps.placement import successors
from hub.apps.wish import Wish, check_name, wanted, wished_boards
from hub.store import apps, placements
from hub.store.database import Store, Tx

MOST_REPLICAS = 64


@dataclass(frozen=True, slots=True)
class Way:
    """Where going back would lead: to the revision ``number`` (0: to nothing), on these boards by name, with
    this difference to the newest."""

    number: int
    boards: tuple[str, ...]
    difference: tuple[str, ...]


class Deploy:
    """The operator's hand on the apps of one hub."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes

    async def deploy(self, app: str, wish: Wish, author: str, *, new: bool | None = None) -> Changed:
        """Deploy an app; ``new``: only if it is there not yet, or only if it is.

        Raises Refused ("not-found", "conflict", and for whatever is in the way), Busy.
        """
        check_name(app)
        with self._changes.turn(app, author):
            async with self._store.read() as tx:
                standing = await self._changes.find(tx, app)
                self._check_new(app, standing, new)
                rows = await wished_boards(tx, standing, wish)
            if standing is not None:
                self._changes.refuse_busy(standing)
            if not rows:
                raise Refused(
                    f"on which board is {app} to be?", hint="name one, or labels of some: --board NAME"
                )
            content = wanted(standing, wish, rows)
            return await self._make(
                app, standing, content, "deploy", "deployed", author, wish.message, fresh=True, generate=True
            )

    @staticmethod
    def _check_new(app: str, standing: Standing | None, new: bool | None) -> None:
        is_there = standing is not None and (standing.is_there or not standing.picture.is_over)
        if new is True and is_there:
            raise Refused(
                f"there is an app {app} already",
                code="conflict",
                hint="deploy that one anew, or choose another name",
            )
        if new is False and standing is None:
            raise Refused(
                f"there is no app {app!r}",
                code="not-found",
                hint="`lichen app ls` lists them; a new one needs files",
            )

    async def rollback(self, app: str, author: str, *, to: int = 0, message: str = "") -> Changed:
        """Go back to what an earlier revision was, its images included; 0: to the one before.

        Raises Refused (code "not-found" when there is none), Busy.
        """
        with self._changes.turn(app, author):
            async with self._store.read() as tx:
                standing = await self._changes.standing(tx, app)
                target = await self._target(tx, standing, to)
            self._changes.refuse_busy(standing)
            content = _as_before(standing, target)
            message = message or f"back to revision {target.number}"
            return await self._make(app, standing, content, "rollback", "rolled back", author, message)

    async def way_back(self, app: str, *, to: int = 0) -> Way:
        """Where `rollback` would lead.  Raises Refused (code "not-found")."""
        async with self._store.read() as tx:
            standing = await self._changes.standing(tx, app)
            target = await self._target(tx, standing, to)
            return await self._way(tx, standing, target.number, _as_before(standing, target))

    async def _way(self, tx: Tx, standing: Standing, number: int, content: Content) -> Way:
        before = await self._changes.read(tx, standing.newest)
        rows = await successors(tx, content.boards)
        names = {row.id: row.name for row in (*await successors(tx, before.boards), *rows)}
        lines = difference(before, content, names)
        return Way(number, tuple(row.name for row in rows), tuple(lines))

    async def _target(self, tx: Tx, standing: Standing, to: int) -> Base:
        app, base = standing.newest.app, standing.base
        if to:
            row = await apps.get_revision(tx, app, to)
            return Base(row.number, await self._changes.read(tx, row))
        if base.number != standing.newest.number:
            return base  # the newest has failed: what runs is the one before
        for row in await apps.list_revisions(tx, app, before=base.number):
            if not row.boards or row.cancelled_ms is not None or await self._changes.has_failed(tx, row):
                continue
            content = await self._changes.read(tx, row)
            if (content.files, content.env, content.pins) != (
                base.content.files,
                base.content.env,
                base.content.pins,
            ):
                return Base(row.number, content)
        raise Refused(
            f"{app} has no earlier version to go back to",
            code="not-found",
            hint=f"`lichen app history {app}` shows what there was",
        )

    async def scale(
        self, app: str, services: Mapping[str, int], author: str, *, message: str = ""
    ) -> Changed:
        """Have so many replicas of these services.  Raises Refused (code "scale"), Busy."""
        for name, count in services.items():
            if not 0 <= count <= MOST_REPLICAS:
                raise Refused(f"{name}={count}: 0 to {MOST_REPLICAS} replicas are possible", code="scale")
        with self._changes.turn(app, author):
            standing = await self._there(app)
            await self._services(app, standing, services)
            content = standing.base.content
            content = replace(content, scale={**content.scale, **services})
            message = message or ", ".join(f"{name}={count}" for name, count in services.items())
            return await self._make(app, standing, content, "scale", "scaled", author, message)

    async def restart(
        self, app: str, author: str, *, services: Sequence[str] = (), message: str = ""
    ) -> Changed:
        """Make the containers of these services anew, or all.  Raises Refused, Busy."""
        with self._changes.turn(app, author):
            standing = await self._there(app)
            names = await self._services(app, standing, services)
            content = standing.base.content
            times = {name: content.restarted.get(name, 0) + 1 for name in services or names}
            content = replace(content, restarted={**content.restarted, **times}, stopped=False)
            message = message or ", ".join(services)
            return await self._make(app, standing, content, "restart", "restarted", author, message)

    async def stop(self, app: str, author: str, *, message: str = "") -> Changed:
        """Let everything stay, and nothing run.  Raises Refused, Busy."""
        return await self._turn_off(app, author, message, stopped=True)

    async def start(self, app: str, author: str, *, message: str = "") -> Changed:
        """Let it run again.  Raises Refused, Busy."""
        return await self._turn_off(app, author, message, stopped=False)

    async def _turn_off(self, app: str, author: str, message: str, *, stopped: bool) -> Changed:
        with self._changes.turn(app, author):
            standing = await self._there(app)
            content = standing.base.content
            if content.stopped is stopped:
                raise Refused(f"{app} is {'stopped' if stopped else 'started'} already", code="conflict")
            action, verb = ("stop", "stopped") if stopped else ("start", "started")
            content = replace(content, stopped=stopped)
            return await self._make(app, standing, content, action, verb, author, message)

    async def undeploy(self, app: str, author: str, *, volumes: bool = False, message: str = "") -> Changed:
        """Take an app off its boards; ``volumes``: with all that it has stored there.

        Raises Refused (code "not-found"), Busy.
        """
        with self._changes.turn(app, author):
            async with self._store.read() as tx:
                standing = await self._changes.standing(tx, app)
                left = [] if standing.is_there or not volumes else await self._left(tx, standing)
            if not standing.is_there and not left:
                raise _not_there(app)
            self._changes.refuse_busy(standing)
            content = replace(standing.base.content, boards=())
            return await self._make(
                app, standing, content, "undeploy", "removed", author, message, purge=volumes, left=left
            )

    async def _left(self, tx: Tx, standing: Standing) -> list[str]:
        """The boards that an app has gone from: what it has stored may still be there."""
        results = await placements.results_of(tx, standing.newest.app, [standing.newest.number])
        return [row.id for row in await successors(tx, [each.board for each in results])]

    async def cancel(self, app: str, author: str, *, message: str = "") -> Changed:
        """Give up the change that is under way, and go back to what was before it.

        Raises Refused (code "conflict") when none is.
        """
        with self._changes.turn(app, author):
            async with self._store.read() as tx:
                standing = await self._changes.standing(tx, app)
                if not any(place.is_pending for place in standing.picture.boards):
                    raise Refused(f"no change of {app} is under way", code="conflict")
                number, content = await self._given_up(tx, standing)
            message = message or f"revision {standing.newest.number} is given up" + (
                f", back to {number}" if number else ""
            )
            return await self._make(
                app, standing, content, "cancel", "cancelled a change of", author, message
            )

    async def way_out(self, app: str) -> Way:
        """Where `cancel` would lead."""
        async with self._store.read() as tx:
            standing = await self._changes.standing(tx, app)
            number, content = await self._given_up(tx, standing)
            return await self._way(tx, standing, number, content)

    async def _given_up(self, tx: Tx, standing: Standing) -> tuple[int, Content]:
        """What there was before the newest revision; nothing (0), when that was the first."""
        before = await self._changes.before(tx, standing.newest)
        if before is None:
            return 0, replace(standing.base.content, boards=())
        return before.number, before.content

    # ---------------------------------------------------------------------------------------------------

    async def _there(self, app: str) -> Standing:
        """Where an app stands that some board has.  Raises Refused (code "not-found"), Busy."""
        async with self._store.read() as tx:
            standing = await self._changes.standing(tx, app)
        if not standing.is_there:
            raise _not_there(app)
        self._changes.refuse_busy(standing)
        return standing

    async def _services(
        self, app: str, standing: Standing, wanted: Mapping[str, int] | Sequence[str]
    ) -> list[str]:
        """The services of an app.  Raises Refused (code "scale") for one that is wanted and not there."""
        draft = await self._changes.manifests.compile(app, standing.base.content)
        names = [service.name for service in draft.app.services]
        for name in wanted:
            if name not in names:
                raise Refused(
                    f"{app} has no service {name[:128]!r}", code="scale", hint=f"it has {', '.join(names)}"
                )
        return names

    async def _make(
        self,
        app: str,
        standing: Standing | None,
        content: Content,
        action: str,
        verb: str,
        author: str,
        message: str,
        *,
        fresh: bool = False,
        generate: bool = False,
        purge: bool = False,
        left: Sequence[str] = (),
    ) -> Changed:
        async with self._store.read() as tx:
            before = await self._changes.read(tx, standing.newest) if standing else None
        number = standing.newest.number if standing else 0
        change = Change(
            app, action, verb, author, message, content, before, number, fresh, generate, purge, tuple(left)
        )
        return await self._changes.make(change)


def _as_before(standing: Standing, target: Base) -> Content:
    """What the target was, where the app is now, with the replicas of now."""
    now = standing.base.content
    return replace(
        target.content,
        boards=now.boards or target.content.boards,
        scale=now.scale,
        restarted=now.restarted,
        stopped=now.stopped,
    )


def _not_there(app: str) -> Refused:
    return Refused(
        f"{app} is on no board", code="not-found", hint=f"deploy it: lichen app deploy ... --name {app}"
    )
