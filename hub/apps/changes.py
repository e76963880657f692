"""A change of an app, from what is wanted to rows that are committed: one at a time for each app.

Owns the order of things in a change, and who has to wait.  `hub.apps.deploy` says what is wanted; here it
is made in one transaction, or nothing is touched:

1.  whoever else changes the app right now, or boards that are at work on it, are named (Busy);
2.  compile, look at the boards, pin the images (`hub.apps.manifests`): all that can be refused;
3.  one transaction: secrets, the revision with its difference, placements, the orders of all boards;
4.  the bells: orders go out, whoever looks at the app hears of it.

A board that is away and has not begun is no reason to wait: it gets what is newest when it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agent.wire import words
from agent.wire.decode import plain
from agent.wire.errors import Busy, Refused
from agent.wire.order import App
from hub.access.vault import Vault
from hub.apps.content import Content, content_of, difference
from hub.apps.draft import Draft
from hub.apps.manifests import Manifests, Pinned
from hub.apps.orders import Orders
from hub.apps.placement import refuse_unfit, successors
from hub.apps.reports import Reports
from hub.apps.secret_texts import keep
from hub.apps.secrets import Secrets
from hub.apps.view import AppPicture, is_at_work, pictures_of
from hub.store import apps, events, placements
from hub.store.app_reports import find_reports
from hub.store.apps import RevisionRow
from hub.store.boards import BoardRow
from hub.store.database import Store, Tx
from hub.store.placements import Placement, results_of

LOOKED_BACK = 100
"""Revisions that are looked through for one that did not fail."""


@dataclass(frozen=True, slots=True)
class Base:
    """A revision that a change starts from."""

    number: int
    content: Content


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an app stands: its ``newest`` revision, and the ``base`` of the next change, which is the newest
    that was neither cancelled nor failed wherever it was tried."""

    newest: RevisionRow
    base: Base
    picture: AppPicture

    @property
    def is_there(self) -> bool:
        """Whether some board has it, or is to have it."""
        return bool(self.newest.boards)


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted.  ``fresh``: ask what tags are now; ``generate``: make up secrets that are missing;
    ``purge``: where it goes, its volumes go too, and so they do on the boards that it has ``left`` before;
    ``number``: the newest revision that its author knew."""

    app: str
    action: str
    verb: str
    author: str
    message: str
    content: Content
    before: Content | None
    number: int
    fresh: bool = False
    generate: bool = False
    purge: bool = False
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """A change that was made; ``generated`` names the secrets that were made up for it."""

    app: str
    revision: int
    notes: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """Everything that a change needs before its transaction."""

    boards: Sequence[BoardRow]
    draft: Draft | None = None
    pinned: Pinned = field(default_factory=lambda: Pinned({}))


class Changes:
    """The changes of one hub's apps.  Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        manifests: Manifests,
        secrets: Secrets,
        orders: Orders,
        reports: Reports,
        vault: Vault,
        now_ms: Callable[[], int],
    ) -> None:
        self.manifests = manifests
        self._store = store
        self._secrets = secrets
        self._orders = orders
        self._reports = reports
        self._vault = vault
        self._now_ms = now_ms
        self._under_way: dict[str, tuple[str, int]] = {}  # of each app: who changes it here, and since when

    # --- whose turn it is --------------------------------------------------------------------------

    @contextmanager
    def turn(self, app: str, author: str) -> Iterator[None]:
        """Hold an app while a change of it is being made.  Raises Busy naming who does."""
        if app in self._under_way:
            who, since_ms = self._under_way[app]
            age = words.duration(self._now_ms() - since_ms)
            raise Busy(
                f"{who} has been changing {app} for {age}: its images are being looked up",
                hint="try again in a moment",
            )
        self._under_way[app] = (author, self._now_ms())
        try:
            yield
        finally:
            del self._under_way[app]

    async def standing(self, tx: Tx, app: str) -> Standing:
        """Where an app stands.  Raises Refused (code "not-found")."""
        newest = await apps.get_app(tx, app)
        [picture] = await pictures_of(tx, [newest], self._now_ms())
        base = await self._base(tx, newest)
        return Standing(newest, Base(base.number, await self.read(tx, base)), picture)

    async def find(self, tx: Tx, app: str) -> Standing | None:
        """Where an app stands; None when there never was one of that name."""
        return await self.standing(tx, app) if await apps.find_app(tx, app) else None

    async def read(self, tx: Tx, row: RevisionRow) -> Content:
        """The content of a revision."""
        return content_of(row, await apps.read_recipe(tx, row.recipe))

    async def _base(self, tx: Tx, newest: RevisionRow) -> RevisionRow:
        for row in await apps.list_revisions(tx, newest.app, limit=LOOKED_BACK):
            if row.cancelled_ms is None and not await self.has_failed(tx, row):
                return row
        return newest

    async def has_failed(self, tx: Tx, row: RevisionRow) -> bool:
        """Whether no board that was to have a revision has come up with it."""
        found = await results_of(tx, row.app, [row.number])
        asked = [each for each in found if each.board in row.boards and each.outcome != "dropped"]
        return bool(asked) and all(each.outcome in ("failed", "refused") for each in asked)

    async def before(self, tx: Tx, newest: RevisionRow) -> Base | None:
        """What there was before the newest revision and did not fail; None when there was nothing."""
        for row in await apps.list_revisions(tx, newest.app, limit=LOOKED_BACK, before=newest.number):
            if row.cancelled_ms is None and not await self.has_failed(tx, row):
                return Base(row.number, await self.read(tx, row))
        return None

    def refuse_busy(self, standing: Standing) -> None:
        """Raise Busy while boards are at work on the newest revision, naming who asked and since when."""
        working = [place.name for place in standing.picture.boards if is_at_work(place)]
        if not working:
            return
        row = standing.newest
        names = ", ".join(working[:3]) + (f" and {len(working) - 3} more" if len(working) > 3 else "")
        age = words.duration(self._now_ms() - row.at_ms)
        raise Busy(
            f"{row.author} has been changing {row.app} for {age} ({row.action}, revision {row.number}):"
            f" {names} {'is' if len(working) == 1 else 'are'} not done yet",
            hint=f"wait for it, or cancel it: lichen app cancel {row.app}",
        )

    # --- make --------------------------------------------------------------------------------------

    async def make(self, change: Change) -> Changed:
        """Make a change.  Raises Refused and Busy; then nothing has been touched."""
        made = await self._prepare(change)
        async with self._store.write() as tx:
            changed = await self._commit(tx, change, made)
        self._orders.wake()
        self._reports.changed(change.app)
        return changed

    async def _prepare(self, change: Change) -> _Made:
        async with self._store.read() as tx:
            boards = await successors(tx, change.content.boards)
        if not change.content.boards:
            return _Made(boards)
        if not boards:
            raise Refused(
                f"all boards of {change.app} were put out of the fleet",
                code="not-found",
                hint="deploy it to others: --board NAME",
            )
        draft = await self.manifests.compile(change.app, change.content)
        refuse_unfit(draft, boards)
        pinned = await self.manifests.pin(draft, boards, change.content.pins, fresh=change.fresh)
        return _Made(boards, draft, pinned)

    async def _commit(self, tx: Tx, change: Change, made: _Made) -> Changed:
        newest = await apps.find_app(tx, change.app)
        if newest is not None and newest.number != change.number:
            raise Busy(
                f"{newest.author} has changed {change.app} meanwhile (revision {newest.number})",
                hint="look at it, then try again",
            )
        left = await successors(tx, change.left)
        number = await self._next_number(tx, change.app, newest, [*made.boards, *left])
        there = {board.id: Placement(change.app, board.id, number, None, leaving=True) for board in left}
        there |= {row.board: row for row in await placements.placements_of(tx, names=[change.app])}
        rows, generated = await self._placements(tx, change, made, number)
        now_ms = self._now_ms()  # not before the secrets that were made for it
        leaving = _leaving(change, there, made.boards, number)
        content = replace(change.content, boards=tuple(board.id for board in made.boards))
        if made.draft is not None:
            names = {service.name for service in made.draft.app.services}
            content = replace(
                content,
                pins=made.pinned.pins,
                scale={name: count for name, count in content.scale.items() if name in names},
                restarted={name: count for name, count in content.restarted.items() if name in names},
            )
        if change.action == "cancel":
            await apps.cancel_revision(tx, change.app, change.number, now_ms)
        await self._add_revision(tx, change, content, made, number, now_ms)
        await placements.supersede(tx, change.app, number, now_ms)
        await placements.place(tx, [*rows, *leaving])
        await self._orders.renew(tx, [row.board for row in (*rows, *leaving)])
        await self._note(tx, change, made, leaving, number)
        return Changed(change.app, number, made.pinned.notes, generated)

    async def _next_number(
        self, tx: Tx, app: str, newest: RevisionRow | None, wanted: Sequence[BoardRow]
    ) -> int:
        """One more than the last one that was made here, or that a board has heard of before a restore."""
        boards = {row.board for row in await placements.placements_of(tx, names=[app])}
        boards |= {row.id for row in wanted}
        reported = [
            max(state.revision, state.running, state.failure.revision if state.failure else 0)
            for report in (await find_reports(tx, boards)).values()
            for state in report.apps.apps
            if state.name == app
        ]
        return max([newest.number if newest else 0, *(each for each in reported if each < 2**52)]) + 1

    async def _placements(
        self, tx: Tx, change: Change, made: _Made, number: int
    ) -> tuple[list[Placement], tuple[str, ...]]:
        """What is to be on each board.  Raises Refused (codes "secret", "template")."""
        if made.draft is None:
            return [], ()
        filled = await self._secrets.fill(
            tx, change.app, made.draft.secrets, change.author, generate=change.generate
        )
        texts = self.manifests.secret_texts(made.draft, filled.secrets)
        kept = keep(self._vault, change.app, texts)
        rows = [
            Placement(
                change.app,
                board.id,
                number,
                plain(self.manifests.manifest(made.draft, made.pinned, board, number)),
                kept,
            )
            for board in made.boards
        ]
        return rows, filled.generated

    async def _add_revision(
        self, tx: Tx, change: Change, content: Content, made: _Made, number: int, now_ms: int
    ) -> None:
        before = change.before
        ids = {*content.boards, *(before.boards if before else ())}
        names = {row.id: row.name for row in await successors(tx, ids)}
        row = RevisionRow(
            app=change.app,
            number=number,
            at_ms=now_ms,
            author=change.author,
            action=change.action,
            message=change.message,
            version=made.draft.version if made.draft else "",
            recipe=await apps.save_recipe(tx, content.files),
            env=dict(content.env),
            pins=content.pins,
            scale=dict(content.scale),
            restarted=dict(content.restarted),
            stopped=content.stopped,
            boards=content.boards,
            notes=made.pinned.notes,
        )
        await apps.add_revision(tx, row, difference(before, content, names))

    async def _note(
        self, tx: Tx, change: Change, made: _Made, leaving: Sequence[Placement], number: int
    ) -> None:
        version = f" {made.draft.version}" if made.draft and made.draft.version else ""
        why = f": {change.message}" if change.message else ""
        gone = await successors(tx, [row.board for row in leaving])
        said = [(board, f"{change.verb} {change.app}{version} on {board.name}") for board in made.boards]
        said += [(board, f"removed {change.app} from {board.name}") for board in gone]
        rows = [
            {
                "at_ms": self._now_ms(),
                "board": board.id,
                "actor": change.author,
                "kind": f"app-{change.action}",
                "text": f"{text} (revision {number}){why}",
            }
            for board, text in said
        ]
        await events.add_events(tx, rows)


def _leaving(
    change: Change, there: Mapping[str, Placement], boards: Sequence[BoardRow], number: int
) -> list[Placement]:
    """Where the app is and is not to be any more.  What was to be purged still is."""
    wanted = {board.id for board in boards}
    purge = plain(App(change.app, number, purge=True))
    return [
        Placement(
            change.app,
            board,
            number,
            purge if change.purge or (row.leaving and row.manifest is not None) else None,
            leaving=True,
        )
        for board, row in sorted(there.items())
        if board not in wanted
    ]
