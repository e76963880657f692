"""What boards say of their apps, taken in; and whoever waits to hear of it.

Owns when a change counts as over on a board, and what follows.  Ingest hands every ``up/apps`` over inside
of its transaction (`take`), and rings after the commit (`tell`).  Level, not edge: each report is held
against what is asked for now, so one that was lost, or came twice, changes nothing.

    with reports.watch("demo") as watch:
        picture = ...read it, and say which boards matter: watch.boards = ...
        await watch.bell.wait()
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from agent.wire.apps import Apps, AppState
from hub.apps.orders import Orders
from hub.apps.view import what_is_left
from hub.store import app_reports, events, orders, placements
from hub.store.database import Tx
from hub.store.orders import OrderRow
from hub.store.placements import OpenResult, Result

MOST = 2**52
"""A generation beyond this is nobody's: there would be none left above it."""
WORKING = ("updating", "removing")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a change ended on a board."""

    outcome: Literal["running", "stopped", "failed", "refused", "gone"]
    reason: str = ""
    hint: str = ""
    running: int = 0


@dataclass(eq=False, slots=True)
class Watch:
    """Somebody who looks at an app, or at all with an empty ``app``; ``boards`` are the ids of those that
    it is on, None all."""

    app: str
    boards: frozenset[str] | None = frozenset()
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class Reports:
    """Takes what boards say of apps.  Belongs to one event loop."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._watches: set[Watch] = set()
        self._has_work = False  # for whoever makes and publishes orders

    # --- what ingest tells -------------------------------------------------------------------------

    async def take(
        self, tx: Tx, said: Mapping[str, Apps], at_ms: int, *, heard_ms: Mapping[str, int]
    ) -> None:
        """Store what boards say, and what follows from it for changes under way."""
        await app_reports.save_reports(tx, said, heard_ms)
        found = await orders.find_orders(tx, said)
        for board, order in found.items():
            await self._hear(tx, order, said[board])
        for open in await placements.open_results(tx, found):
            self._has_work |= await _consider(tx, open, said[open.result.board], at_ms)

    async def _hear(self, tx: Tx, order: OrderRow, apps: Apps) -> None:
        """Note which order a board has, and whether it has missed the last one."""
        if order.reported < apps.generation < MOST:
            await orders.note_reported(tx, order.board, apps.generation)
            self._has_work |= order.generation < apps.generation
        knows = max(apps.generation, apps.refused) >= order.generation
        is_out = order.published == order.generation
        if not knows and is_out and self._orders.may_repeat(order.board, order.generation):
            await orders.forget_published(tx, [order.board])
            self._has_work = True

    def tell(self, boards: Collection[str]) -> None:
        """These boards have said something, or came or went, and it is committed."""
        if self._has_work:
            self._has_work = False
            self._orders.wake()
        for watch in self._watches:
            if watch.boards is None or not watch.boards.isdisjoint(boards):
                watch.bell.set()

    # --- who waits -----------------------------------------------------------------------------------

    def changed(self, app: str) -> None:
        """Somebody has asked for something new of an app."""
        for watch in self._watches:
            if watch.app in ("", app):
                watch.bell.set()

    @contextmanager
    def watch(self, app: str, boards: frozenset[str] | None = frozenset()) -> Iterator[Watch]:
        """Hear of everything that happens to an app, or (empty) to any, while the block runs."""
        watch = Watch(app, boards)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)


# --- what a report says of a change ----------------------------------------------------------------


def judge(result: Result, apps: Apps, *, leaving: bool) -> Verdict | None:
    """How a change ended on a board by what it says; None while that is open.  Pure."""
    if apps.generation < result.generation:
        if apps.refused >= result.generation:
            return Verdict("refused", apps.reason, apps.hint, _running(apps, result.app))
        return None
    state = _state(apps, result.app)
    if leaving:
        return Verdict("gone") if state is None else None
    if state is None or state.revision != result.revision or state.state in (*WORKING, "waiting"):
        return None
    failure = state.failure
    if failure is not None and failure.revision == result.revision:
        return Verdict("failed", failure.reason, failure.hint, failure.rolled_back_to or state.running)
    if state.state == "failed":
        return Verdict("failed", state.step, "", state.running)
    if state.state == "stopped":
        return Verdict("stopped", running=state.running)
    return Verdict("running", running=state.running) if state.running == result.revision else None


async def _consider(tx: Tx, open: OpenResult, apps: Apps, at_ms: int) -> bool:
    """Hold a report against what is asked for; whether the order of the board has to be made anew."""
    result = open.result
    if result.generation == 0:
        return False  # no order has it yet
    verdict = judge(result, apps, leaving=open.leaving)
    if verdict is None:
        state = _state(apps, result.app)
        begun = state is not None and state.state in WORKING and apps.generation >= result.generation
        if begun and result.begun_ms is None:
            await placements.begin_result(tx, result, at_ms)
        return False
    # What was said once is said again with every report.  A board may change its mind for the better:
    # it has learned of the key that signed its order, say.
    if verdict.outcome == result.outcome or (result.outcome, verdict.outcome) == ("failed", "refused"):
        return False
    await placements.settle_result(
        tx,
        result,
        at_ms,
        outcome=verdict.outcome,
        reason=verdict.reason,
        hint=verdict.hint,
        running=verdict.running,
    )
    if verdict.outcome == "gone":
        await placements.remove_placement(tx, result.app, result.board)
        if open.is_ordered:  # what had to be purged is, so the order says nothing of the app any more
            await orders.mark_stale(tx, [result.board])
    await events.add_event(
        tx,
        at_ms=at_ms,
        kind=f"app-{verdict.outcome}",
        text=_sentence(result, verdict, _state(apps, result.app)),
        board=result.board,
        actor="board",
    )
    return verdict.outcome == "gone" and open.is_ordered


def _sentence(result: Result, verdict: Verdict, said: AppState | None) -> str:
    what = f"revision {result.revision} of {result.app}"
    match verdict.outcome:
        case "gone":
            return f"the app {result.app} is gone"
        case "running":
            return f"{what} runs"
        case "stopped":
            return f"{what} is stopped"
        case "refused":
            return f"refused {what}: {verdict.reason or 'no reason given'}"
    left = what_is_left(result.revision, verdict.running, said)
    return f"{what} failed: {verdict.reason or 'no reason given'}; {left}"


def _state(apps: Apps, name: str) -> AppState | None:
    return next((each for each in apps.apps if each.name == name), None)


def _running(apps: Apps, name: str) -> int:
    state = _state(apps, name)
    return state.running if state else 0
