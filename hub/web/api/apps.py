"""Apps in the API: what there is, where, how far it is, and what was done to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from aiohttp import web

from agent.wire.decode import Range
from agent.wire.order import AppName
from hub.apps.draft import Verdict
from hub.apps.rehearsal import BoardCheck
from hub.apps.secrets import SecretState
from hub.apps.view import AppOnBoard, AppPicture, State, board_picture_of, page_of, picture_of
from hub.store import apps as store
from hub.store import boards
from hub.store.placements import Result, results_of
from hub.web import following
from hub.web.api import table
from hub.web.api.paging import SAYS, After, id_after
from hub.web.api.recipes import RecipeToCheck, wish_of
from hub.web.api.route import Call
from hub.web.api.table import Table
from hub.web.guard import identify
from hub.web.wiring import STREAMS


@dataclass(frozen=True, slots=True)
class AppQuery:
    """Which apps to list."""

    gone: Annotated[int, Range(0, 1)] = field(
        default=0, metadata={"says": "1: those of which only the history is left, too"}
    )
    limit: Annotated[int, Range(1, 500)] = field(default=100, metadata={"says": "Most apps in one answer"})
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class AppSummary:
    """An app in a list; ``boards`` are the names of those that it is on."""

    name: str
    version: str
    state: State
    sentence: str
    revision: int
    author: str
    at_ms: int
    boards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AppPage:
    """Apps by name; ``next`` asks for those after them and is missing on the last page."""

    apps: tuple[AppSummary, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class AppCheck:
    """What deploying would do; without ``problems`` it can be done.

    ``verdicts`` say what becomes of each key of the compose files, ``boards`` what each lacks, ``images``
    the digest of each image for each board, ``difference`` what is new to the app as it is, in lines.
    """

    app: str
    version: str
    verdicts: tuple[Verdict, ...]
    services: tuple[str, ...]
    secrets: tuple[SecretState, ...]
    boards: tuple[BoardCheck, ...]
    images: dict[str, dict[str, str]]
    difference: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which revisions."""

    limit: Annotated[int, Range(1, 200)] = field(
        default=50, metadata={"says": "Most revisions in one answer"}
    )
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class RevisionResult:
    """What became of a revision on a board: running, stopped, failed, refused, gone, dropped (another
    came before it was done), or empty while that is open."""

    board: str
    name: str
    generation: int
    outcome: str
    reason: str
    hint: str
    running: int
    begun_ms: int | None = None
    settled_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """A change of an app: who did what, when and why; ``difference`` to the one before, in lines."""

    revision: int
    at_ms: int
    author: str
    action: str
    message: str
    version: str
    difference: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[RevisionResult, ...]
    cancelled_ms: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The newest revisions first; ``next`` asks for older ones and is missing on the last page."""

    revisions: tuple[Revision, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class RecipeQuery:
    """Of which revision."""

    revision: Annotated[int, Range(0, 2**53)] = field(
        default=0, metadata={"says": "The number of the revision; 0: the newest"}
    )


@dataclass(frozen=True, slots=True)
class StoredRecipe:
    """The files of a recipe, and how they are filled in."""

    revision: int
    files: dict[str, str]
    env: dict[str, str]


@dataclass(frozen=True, slots=True)
class BoardApp:
    """An app on a board."""

    app: str
    version: str
    at: AppOnBoard


@dataclass(frozen=True, slots=True)
class BoardApps:
    """The apps of a board.

    ``generation`` is that of its order (0: it has none), ``reported`` the one that it works by, ``refused``
    a newer one that it does not take, with the reason.  ``engine``: its Podman; ``unknown``: apps
    that it has and this hub knows nothing of.
    """

    board: str
    generation: int
    reported: int
    refused: int
    reason: str
    hint: str
    engine: str
    apps: tuple[BoardApp, ...]
    unknown: tuple[str, ...]
    reported_ms: int | None = None


# --- questions -----------------------------------------------------------------------------------


async def list_apps(call: Call, query: AppQuery) -> AppPage:
    """List apps by name."""
    async with call.parts.store.read() as tx:
        shown = await page_of(
            tx, call.parts.now_ms(), limit=query.limit + 1, after=query.after, with_gone=bool(query.gone)
        )
    page = shown[: query.limit]
    return AppPage(
        tuple(
            AppSummary(
                each.name,
                each.version,
                each.state,
                each.sentence,
                each.revision,
                each.author,
                each.at_ms,
                tuple(place.name for place in each.boards if place.state != "gone"),
            )
            for each in page
        ),
        page[-1].name if len(shown) > len(page) else None,
    )


def table_of(page: AppPage) -> Table:
    """Apps as CSV."""
    return Table(
        ("app", "version", "state", "sentence", "revision", "author", "time", "boards"),
        (
            (
                each.name,
                table.text(each.version),
                each.state,
                table.text(each.sentence),
                each.revision,
                table.text(each.author),
                table.time(each.at_ms),
                table.text(" ".join(each.boards)),
            )
            for each in page.apps
        ),
    )


async def show_app(call: Call, app: AppName) -> AppPicture:
    """Look at one app.

    `is_over` says that no board that is there still works on the newest revision, and `has_failed` that
    some board could not do it, or did not want to.
    """
    async with call.parts.store.read() as tx:
        return await picture_of(tx, app, call.parts.now_ms())


async def follow_app(call: Call, app: AppName) -> web.StreamResponse:
    """Follow an app, as server-sent events.

    `event: app` has what `GET /apps/{app}` answers, at the beginning and whenever it changes.
    """
    await show_app(call, app)  # a name that there is not, before a stream begins
    assert call.principal is not None, "not a public route"
    with call.request.config_dict[STREAMS].hold(call.principal.id) as closing:
        return await following.follow_app(
            call.request, call.parts, app, closing, still_holds=lambda: identify(call.request)
        )


async def check_app(call: Call, body: RecipeToCheck) -> AppCheck:
    """Think a deployment through.

    Nothing is touched. What is wrong with the recipe as such is an error; what is in the way on boards, at
    registries or for want of a secret is listed in `problems`.
    """
    found = await call.parts.desk.rehearsal.check(body.name, wish_of(body))
    return AppCheck(
        app=found.app,
        version=found.version,
        verdicts=found.verdicts,
        services=found.services,
        secrets=found.secrets,
        boards=found.boards,
        images=found.images or {},
        difference=found.difference,
        problems=found.problems,
        notes=found.notes,
    )


async def list_history(call: Call, app: AppName, query: HistoryQuery) -> History:
    """List what was done to an app, by whom, why, and what became of it."""
    before = id_after(query.after)
    async with call.parts.store.read() as tx:
        await store.get_app(tx, app)
        rows = await store.list_revisions(tx, app, limit=query.limit + 1, before=before)
        page = rows[: query.limit]
        numbers = [row.number for row in page]
        results = await results_of(tx, app, numbers)
        differences = await store.read_differences(tx, app, numbers)
        names = {
            id: row.name
            for id in {each.board for each in results}
            if (row := await boards.find_board(tx, id)) is not None
        }
    return History(
        tuple(
            _revision(
                row,
                differences[row.number],
                [each for each in results if each.revision == row.number],
                names,
            )
            for row in page
        ),
        str(page[-1].number) if len(rows) > len(page) else None,
    )


def _revision(
    row: store.RevisionRow, difference: tuple[str, ...], results: list[Result], names: dict[str, str]
) -> Revision:
    return Revision(
        revision=row.number,
        at_ms=row.at_ms,
        author=row.author,
        action=row.action,
        message=row.message,
        version=row.version,
        difference=difference,
        notes=row.notes,
        results=tuple(
            RevisionResult(
                board=each.board,
                name=names.get(each.board, each.board),
                generation=each.generation,
                outcome=each.outcome,
                reason=each.reason,
                hint=each.hint,
                running=each.running,
                begun_ms=each.begun_ms,
                settled_ms=each.settled_ms,
            )
            for each in results
        ),
        cancelled_ms=row.cancelled_ms,
    )


def history_table_of(page: History) -> Table:
    """A history as CSV."""
    return Table(
        ("revision", "time", "author", "action", "message", "version"),
        (
            (
                each.revision,
                table.time(each.at_ms),
                table.text(each.author),
                each.action,
                table.text(each.message),
                table.text(each.version),
            )
            for each in page.revisions
        ),
    )


async def show_recipe(call: Call, app: AppName, query: RecipeQuery) -> StoredRecipe:
    """Look at the files of an app, and at how they are filled in."""
    async with call.parts.store.read() as tx:
        row = await store.get_app(tx, app)
        if query.revision:
            row = await store.get_revision(tx, app, query.revision)
        return StoredRecipe(row.number, await store.read_recipe(tx, row.recipe), row.env)


async def list_board_apps(call: Call, board: str) -> BoardApps:
    """List the apps of a board, and how it stands with its order."""
    async with call.parts.store.read() as tx:
        row = await boards.get_board(tx, board)
        found = await board_picture_of(tx, row, call.parts.now_ms())
    said = found.report.apps if found.report else None
    return BoardApps(
        board=row.id,
        generation=found.order.generation if found.order else 0,
        reported=said.generation if said else 0,
        refused=said.refused if said else 0,
        reason=said.reason if said else "",
        hint=said.hint if said else "",
        engine=said.engine if said else "",
        apps=tuple(BoardApp(revision.app, revision.version, place) for revision, place in found.apps),
        unknown=found.unknown,
        reported_ms=found.report.at_ms if found.report else None,
    )
