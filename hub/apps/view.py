"""An app as people and programs see it: what was asked for, where, and how far it is.

Owns the judgement of a state in one word and one sentence, from the newest revision, what became of it
(`hub.store.placements`) and what boards last said.  API and pages show it, `hub.apps.changes` asks it who
is still at work.  It changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.wire import words
from agent.wire.apps import AppState
from hub.store import apps as store
from hub.store import boards
from hub.store.app_reports import AppReport, find_reports
from hub.store.apps import RevisionRow
from hub.store.boards import BoardRow
from hub.store.database import Tx
from hub.store.orders import OrderRow, find_orders
from hub.store.placements import Placement, Result, gone_results, newest_results, placements_of

State = Literal[
    "sent", "updating", "removing", "failed", "refused", "degraded", "waiting", "running", "stopped", "gone"
]
"""In the order in which the state of one board becomes that of the app.

sent: the order is on its way; waiting: for a board that is away, or on the board for its hour."""
ORDER: tuple[State, ...] = (
    "updating", "removing", "sent", "failed", "refused", "degraded", "waiting", "running", "stopped", "gone",
)  # fmt: skip
WORKING = frozenset({"updating", "removing"})


@dataclass(frozen=True, slots=True)
class AppOnBoard:
    """An app on a board: ``revision`` is asked for, ``running`` runs (0: none).

    ``since_ms`` is when the board went offline, if it is.  ``is_pending``: the board has not said yet what
    became of the revision.  ``reported`` is what it last said of the app, at ``reported_ms``.
    """

    board: str
    name: str
    revision: int
    running: int
    state: State
    sentence: str
    hint: str
    presence: str
    since_ms: int | None
    is_pending: bool
    generation: int
    reported: AppState | None = None
    reported_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AppPicture:
    """An app with its newest revision.

    ``is_over``: no board that is there still works on it.  ``has_failed``: some board could not, or
    would not, do it.
    """

    name: str
    version: str
    state: State
    sentence: str
    revision: int
    action: str
    author: str
    at_ms: int
    message: str
    is_over: bool
    has_failed: bool
    boards: tuple[AppOnBoard, ...]
    scale: dict[str, int]
    images: dict[str, dict[str, str]]
    notes: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoardPicture:
    """The ``apps`` that a board has, or still has to let go, by name; ``unknown`` are those that it has and
    this hub knows nothing of.  ``order`` and ``report`` are None where there is none yet."""

    apps: tuple[tuple[RevisionRow, AppOnBoard], ...]
    unknown: tuple[str, ...]
    order: OrderRow | None
    report: AppReport | None


async def picture_of(tx: Tx, name: str, now_ms: int) -> AppPicture:
    """One app.  Raises Refused (code "not-found")."""
    row = await store.get_app(tx, name)
    [picture] = await pictures_of(tx, [row], now_ms)
    return picture


async def pictures_of(tx: Tx, rows: Sequence[RevisionRow], now_ms: int) -> list[AppPicture]:
    """Several apps, by their newest revisions."""
    names = [row.app for row in rows]
    placed = {(each.app, each.board): each for each in await placements_of(tx, names=names)}
    # Where they are, or are to go from; and where they have gone by the last change.
    found = {(each.app, each.board): each for each in await gone_results(tx, names)}
    found |= {(each.app, each.board): each for each in await newest_results(tx, names=names)}
    scene = await _scene(tx, {board for _, board in found}, now_ms)
    places: dict[str, list[AppOnBoard]] = {name: [] for name in names}
    for key, result in found.items():
        if result.board in scene.boards:
            places[result.app].append(_place(result, placed.get(key), scene))
    return [_picture(row, sorted(places[row.app], key=lambda place: place.name)) for row in rows]


async def page_of(
    tx: Tx, now_ms: int, *, limit: int, after: str = "", search: str = "", with_gone: bool = False
) -> list[AppPicture]:
    """So many apps by name, of which something is left or, ``with_gone``, only the history."""
    found: list[AppPicture] = []
    while len(found) < limit:
        more = limit - len(found)
        rows = await store.list_apps(tx, limit=more, after=after, search=search, placed=not with_gone)
        pictures = await pictures_of(tx, rows, now_ms)
        found += [picture for picture in pictures if with_gone or not is_gone(picture)]
        if len(rows) < more:
            break
        after = rows[-1].app
    return found


async def board_picture_of(tx: Tx, board: BoardRow, now_ms: int) -> BoardPicture:
    """The apps of a board."""
    placed = {each.app: each for each in await placements_of(tx, board=board.id)}
    scene = await _scene(tx, {board.id}, now_ms)
    apps = [
        (await store.get_revision(tx, result.app, result.revision), _place(result, placed[result.app], scene))
        for result in await newest_results(tx, board=board.id)
    ]
    known = {row.app for row, _ in apps}
    report = scene.reports.get(board.id)
    unknown = tuple(each.name for each in report.apps.apps if each.name not in known) if report else ()
    return BoardPicture(tuple(apps), unknown, scene.orders.get(board.id), report)


def is_gone(picture: AppPicture) -> bool:
    """Whether nothing is left of an app but its history."""
    return all(place.state == "gone" for place in picture.boards)


def _picture(row: RevisionRow, places: Sequence[AppOnBoard]) -> AppPicture:
    state: State = min((place.state for place in places), key=ORDER.index, default="gone")
    first = next((place for place in places if place.state == state), None)
    sentence = f"{first.name}: {first.sentence}" if first else "It is on no board"
    more = sum(place.state == state for place in places) - 1
    return AppPicture(
        name=row.app,
        version=row.version,
        state=state,
        sentence=sentence + (f"; {more} more {'is' if more == 1 else 'are'} {state}" if more > 0 else ""),
        revision=row.number,
        action=row.action,
        author=row.author,
        at_ms=row.at_ms,
        message=row.message,
        is_over=not any(is_at_work(place) for place in places),
        has_failed=any(place.state in ("failed", "refused") for place in places),
        boards=tuple(places),
        scale=row.scale,
        images=row.pins,
        notes=row.notes,
        env=row.env,
    )


def is_at_work(place: AppOnBoard) -> bool:
    """Whether a change must not be made under the hands of this board.

    A board that is away and has not begun, or that waits for its hour, can as well get another one; and so
    can one for which no order could be made.
    """
    if not place.is_pending:
        return False
    return place.state in WORKING or (place.presence == "online" and place.state == "sent")


# --- one board -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is known of some boards now."""

    boards: Mapping[str, BoardRow]
    orders: Mapping[str, OrderRow]
    reports: Mapping[str, AppReport]
    now_ms: int


async def _scene(tx: Tx, ids: Collection[str], now_ms: int) -> _Scene:
    rows = await boards.list_boards(tx, ids=ids, limit=len(ids))
    known = {row.id: row for row in rows}
    return _Scene(known, await find_orders(tx, ids), await find_reports(tx, ids), now_ms)


def _place(result: Result, placement: Placement | None, scene: _Scene) -> AppOnBoard:
    board, report = scene.boards[result.board], scene.reports.get(result.board)
    said = next((each for each in report.apps.apps if each.name == result.app), None) if report else None
    leaving = placement is None or placement.leaving
    state, sentence, hint = _judge(board, result, said, leaving=leaving, now_ms=scene.now_ms)
    order = scene.orders.get(result.board)
    if state == "sent" and order is not None and order.failure:
        state, sentence, hint = "failed", f"no order could be made: {order.failure}", "see the log of the hub"
    return AppOnBoard(
        board=board.id,
        name=board.name,
        revision=result.revision,
        running=said.running if said else result.running,
        state=state,
        sentence=sentence,
        hint=hint,
        presence=board.presence,
        since_ms=board.presence_ms if board.presence == "offline" else None,
        is_pending=result.settled_ms is None,
        generation=result.generation,
        reported=said,
        reported_ms=report.at_ms if report else None,
    )


def _judge(
    board: BoardRow, result: Result, said: AppState | None, *, leaving: bool, now_ms: int
) -> tuple[State, str, str]:
    """State, sentence and hint."""
    if result.settled_ms is not None:
        return _settled(result, said)
    current = said if said is not None and (said.revision == result.revision or leaving) else None
    if current is not None and current.state in ("updating", "removing"):
        away = f"; the board is offline{_for(board, now_ms)}" if board.presence == "offline" else ""
        return _WORKING[current.state], f"{current.step or current.state}{away}", ""
    if board.presence == "offline":
        what = "removes it" if leaving else f"takes revision {result.revision}"
        return "waiting", f"offline{_for(board, now_ms)}; it {what} when it is back", ""
    if current is not None and current.state == "waiting":
        return "waiting", current.step or "it waits", ""
    return (
        "sent",
        "the order is on its way",
        "a board without answer may lack Podman, or an agent that knows apps",
    )


_WORKING: Mapping[str, State] = {"updating": "updating", "removing": "removing"}


def _settled(result: Result, said: AppState | None) -> tuple[State, str, str]:
    if result.outcome in ("gone", "dropped"):
        return "gone", "nothing of it runs", ""
    if result.outcome == "refused":
        return "refused", result.reason or "the board does not take the order", result.hint
    if result.outcome == "failed":
        left = what_is_left(result.revision, result.running, said)
        return "failed", f"{result.reason or 'it did not come up'}; {left}", result.hint
    if said is not None and said.revision == result.revision:
        if said.state in ("degraded", "failed"):
            return said.state, said.step or "not all of it runs", ""
        if said.state in ("updating", "waiting"):  # once more, after a restart of the board for instance
            return said.state, said.step or said.state, ""
        if said.state == "stopped":
            return "stopped", "stopped", ""
    return ("stopped", "stopped", "") if result.outcome == "stopped" else ("running", "running", "")


def what_is_left(revision: int, running: int, said: AppState | None) -> str:
    """What there is of an app on a board where a revision failed, in a clause.

    ``running`` is what the board named when it did; what it has ``said`` since is newer, if it is about that.

    >>> what_is_left(2, 1, None), what_is_left(1, 0, None)
    ('revision 1 runs', 'nothing of it runs')
    """
    failure = said.failure if said is not None and said.revision == revision else None
    if said is None or failure is None or failure.revision != revision:
        return f"revision {running} runs" if running else "nothing of it runs"
    if back := failure.rolled_back_to:
        if said.state == "updating":
            return f"it goes back to revision {back}"
        which = "which" if said.state == "running" else "and not all of it"
        return f"rolled back to revision {back}, {which} runs"
    # A first revision that failed is cleared away; any other was told to stay (`failure_action`).
    return "it is left as it is" if said.running or said.state != "failed" else "nothing of it runs"


def _for(board: BoardRow, now_ms: int) -> str:
    """How long a board has been offline, as far as that is known."""
    return f" for {words.duration(now_ms - board.presence_ms)}" if board.presence_ms is not None else ""
