"""Ingest: what boards say, into the store, exactly once; then the acknowledgement.

Owns the way from the broker to the database.  `hub.app` makes one `Ingest` and runs it on each
connection to the broker; the picture of the newest values (`Latest`) is told after each commit.

    messages -> read (unpack, decode, check) -> waiting -> one transaction -> acks, Latest

1.  A transaction takes what waits, of all boards.  It begins when the one before has ended, and
    at most every ``commit_every_ms``.  So a quiet hub answers at once and a busy one writes few,
    large transactions; nothing polls.
2.  What is new is decided inside the transaction (`hub.fleet.commit`), from what the database
    says and never from memory.
3.  An ack goes out after the commit.  It is retained, so a board that comes back finds where it
    stands.  It goes at QoS 0: one that is lost costs a resend by the board, which is answered
    again, while a thousand PUBACKs a second would be waited for by every board.
4.  Roll-ups and latest values come together in memory and are written every ``fold_every_s``,
    or ``MOST_UNFOLDED`` batches, with a transaction, and with the id of the last batch that they
    contain.  `recover` makes them again from the batches behind that id, so a kill at any moment
    loses nothing and counts nothing twice.  When a transaction did not end well, memory is not
    trusted: `recover` first.
5.  Readings whose times are not known yet (`hub.fleet.boots`) are in no roll-up.  Once they are,
    `hub.fleet.corrections` adds them, and only those at or below that id: so none counts twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from agent.base.broker import Message, Session
from agent.wire import topics
from agent.wire.apps import Apps
from agent.wire.errors import Busy, LinkDown, Refused
from agent.wire.messages import About, Ack, Problem
from agent.wire.plain import dumps
from hub.fleet.alerts import Alerts
from hub.fleet.answers import Answers
from hub.fleet.arrivals import Arrival, ReadingsCame
from hub.fleet.boots import BootNews, KnownBoots
from hub.fleet.commands import Commands
from hub.fleet.commit import Commit, Stored
from hub.fleet.corrections import Corrections
from hub.fleet.gate import Gate, TakesUsage
from hub.fleet.latest import Latest, newest
from hub.fleet.limits import Allowances
from hub.fleet.rollup import Fold
from hub.fleet.tally import Counters, Tally
from hub.store import batches
from hub.store.database import Store, Tx
from hub.store.facts import read_fact, write_fact
from hub.store.problems import settle_all
from hub.store.rollups import add_parts

MOST_WAITING = 8192
"""Messages read but not committed.  Beyond them readings are dropped unread, as their boards send them again;
presence and about come once, so they are always taken."""
MOST_AT_ONCE = 1024
"""Messages in one transaction, so that other writers get their turn."""
RETRY_S = 0.5
"""After a transaction that failed: the next one begins with the work of `recover`."""
MOST_UNFOLDED = 30_000
"""Batches whose roll-ups are only in memory: `recover` folds them again in some seconds."""


class TakesApps(Protocol):
    """Who cares for what boards say of their apps (`hub.apps.reports`)."""

    async def take(
        self, tx: Tx, said: Mapping[str, Apps], at_ms: int, *, heard_ms: Mapping[str, int]
    ) -> None:
        """Store it, in the transaction of all the rest; ``heard_ms``: of each board when it said so."""

    def tell(self, boards: Collection[str]) -> None:
        """These have spoken of apps, or came or went, and that is committed."""


class Ingest:
    """Takes what boards say.  Belongs to one event loop; runs on one session at a time."""

    def __init__(
        self,
        store: Store,
        latest: Latest,
        now_ms: Callable[[], int],
        *,
        alerts: Alerts,
        commands: Commands,
        apps: TakesApps,
        usage: TakesUsage,
        allowances: Allowances,
        commit_every_ms: int = 100,
        fold_every_s: float = 60.0,
        repeat_every_ms: int = 10_000,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._store = store
        self._latest = latest
        self._now_ms = now_ms
        self.corrections = Corrections(store)
        self._boots = KnownBoots()
        self._commit_every_s = commit_every_ms / 1000
        self._fold_every_s = fold_every_s
        self._answers = Answers(repeat_every_ms)
        self._tally = Tally()
        self._alerts, self._commands, self._allowances = alerts, commands, allowances
        self._apps = apps
        self._gate = Gate(
            latest,
            now_ms,
            alerts=alerts,
            commands=commands,
            allowances=allowances,
            tally=self._tally,
            usage=usage,
        )
        self._fold = Fold()
        self._fold_due_s = 0.0  # by the loop's clock
        self._last_id = 0  # of the batches that are committed, and so are in the fold or were
        self._folded_id = 0  # of those whose roll-ups are in the store
        self._sound = False  # whether fold and Latest hold what the database says
        self._waiting: list[Arrival] = []
        self._bell = asyncio.Event()  # something waits, or nothing more will come
        self._most_waiting = most_waiting
        self._ended: LinkDown | None = None
        self._missed = False  # whether a presence or an about could not be written

    def counters(self) -> Counters:
        """What has been counted since the start."""
        return self._tally.counters(waiting=len(self._waiting))

    def refused(self, board: str, why: Refused) -> None:
        """The broker has cut a board off for what it sent."""
        self._gate.refuse(board, why)

    async def recover(self) -> None:
        """Bring roll-ups and `Latest` up to the last committed batch; nothing, when they are.

        Called at the start, so that pages show what was committed before the broker is there.
        """
        if self._sound:
            return
        self._fold = Fold()
        async with self._store.read() as tx:
            self._last_id = self._folded_id = await read_fact(tx, "fold")
            await self._boots.load(tx)
        async for id, row, offset_ms in batches.batches_after(self._store, self._last_id):
            blocks = [each.block for each in row.blocks(offset_ms)]
            self._show(Stored(row.board, row.received_ms, blocks, row.skip, pending=bool(row.pending)))
            self._last_id = id
        self._fold_due_s = asyncio.get_running_loop().time() + self._fold_every_s
        self._sound = True

    async def run(self, session: Session) -> None:
        """Take what comes from ``session`` until its link ends.  Raises LinkDown then."""
        await self.recover()
        self._ended = None
        self._answers.clear()  # a broker that was restarted has lost what it kept
        await session.subscribe(topics.up_all())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(session), name="ingest: read")
                tasks.create_task(self._commit(session), name="ingest: commit")
        finally:
            if self._sound:  # saves the next start the work of `recover`
                await self._try((), fold=True)
        if self._ended is not None:
            raise self._ended

    # --- read ------------------------------------------------------------------------------------

    async def _read(self, session: Session) -> None:
        """Read until the link ends.  What has been read by then is committed all the same."""
        try:
            async for message in session.messages():
                self._take(message)
        except LinkDown as error:
            self._ended = error
            self._bell.set()

    def _take(self, message: Message) -> None:
        arrival = self._gate.take(message, crowded=len(self._waiting) >= self._most_waiting)
        if arrival is not None:
            self._waiting.append(arrival)
            self._bell.set()

    # --- commit ----------------------------------------------------------------------------------

    async def _commit(self, session: Session) -> None:
        """Commit what waits, until the link has ended and nothing waits any more."""
        clock = asyncio.get_running_loop().time
        while self._waiting or self._ended is None:
            await self._wait()
            began_s = clock()
            arrivals, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            if not self._waiting and self._ended is None:
                self._bell.clear()
                self._tally.keep_up()
            await self._commit_arrivals(session, arrivals)
            if self._ended is None:
                pause_s = self._commit_every_s if self._sound else max(self._commit_every_s, RETRY_S)
                await asyncio.sleep(max(began_s + pause_s - clock(), 0))

    async def _wait(self) -> None:
        """Until something waits, or until what is only in memory is to be written."""
        left_s = None
        if self._fold or self._latest.unsaved:
            left_s = max(self._fold_due_s - asyncio.get_running_loop().time(), 0)
        try:
            async with asyncio.timeout(left_s):
                await self._bell.wait()
        except TimeoutError:
            pass

    async def _commit_arrivals(self, session: Session, arrivals: Sequence[Arrival]) -> None:
        late = asyncio.get_running_loop().time() >= self._fold_due_s
        due = late or self._last_id - self._folded_id >= MOST_UNFOLDED
        if not arrivals and not due:
            return
        commit = await self._try(arrivals, fold=due)
        if commit is None:
            return
        await self._answer(session, commit)
        if self._missed and self._ended is None:
            # They come once, but the broker has the last ones, and tells whoever subscribes again.
            self._missed = False
            await session.subscribe(topics.up_all())

    async def _try(self, arrivals: Sequence[Arrival], *, fold: bool) -> Commit | None:
        """Write, or say why not: there is no room, or a backup holds the database.

        Then nothing is acknowledged, so the boards keep what they sent and send it again.
        """
        began_s = asyncio.get_running_loop().time()
        try:
            await self.recover()
            commit = await self._write(arrivals, fold=fold)
        except (Refused, Busy) as error:
            self._tally.fail(error.code, len(arrivals), str(error))
            self._alerts.failed(error)
            self._missed = self._missed or any(not isinstance(each, ReadingsCame) for each in arrivals)
            return None
        self._tally.commit(commit, asyncio.get_running_loop().time() - began_s)
        return commit

    async def _write(self, arrivals: Sequence[Arrival], *, fold: bool) -> Commit:
        """The transaction, and then what memory learns from it."""
        commit = Commit(self._now_ms(), BootNews(self._boots), allowances=self._allowances)
        known = {
            arrival.board: self._latest.boards[arrival.board].values.keys()
            for arrival in arrivals
            if arrival.board in self._latest.boards
        }
        self._sound = False
        async with self._store.write() as tx:
            if fold:
                await self._save(tx)
            await commit.apply(tx, arrivals, known)
            await settle_all(tx, "board", self._said(commit.abouts), commit.at_ms)
            if commit.apps:
                await self._apps.take(tx, commit.apps, commit.at_ms, heard_ms=commit.believed)
            last_id = await batches.last_id(tx)
        if fold:
            self._folded_id = self._last_id
            self._fold = Fold()
            self._fold_due_s = asyncio.get_running_loop().time() + self._fold_every_s
        self._last_id = max(last_id, self._last_id)
        self._learn(commit)
        self._boots.learn(commit.boots.offsets)
        self.corrections.tell(commit.boots.learned, folded=fold)
        self._sound = True
        return commit

    async def _save(self, tx: Tx) -> None:
        """Write what came together in memory by the transactions before this one."""
        await add_parts(tx, self._fold.parts())
        await batches.save_latest(tx, self._latest.take_unsaved())
        await write_fact(tx, "fold", self._last_id)

    def _said(self, abouts: Mapping[str, About]) -> dict[str | None, Sequence[Problem]]:
        """What boards find wrong with themselves, of those that do or did."""
        said: dict[str | None, Sequence[Problem]] = {}
        for board, about in abouts.items():
            known = self._latest.boards.get(board)
            if about.problems or (known is not None and known.said):
                said[board] = about.problems if about.clock != "unsynced" else _undated(about.problems)
        return said

    # --- after the commit --------------------------------------------------------------------------

    def _learn(self, commit: Commit) -> None:
        for board, at_ms in commit.believed.items():
            self._latest.heard(board, at_ms)
        for board, readings in commit.waiting.items():
            self._latest.holds(board, readings)
        for stored in commit.stored:
            self._show(stored)
        for change in commit.presences:
            self._latest.presence(change.board, change.state, change.at_ms)
            if change.state == "online":
                self._commands.born(change.board)
        for board, about in commit.abouts.items():
            self._latest.about(board, about, commit.believed[board])
            if about.clock == "unsynced":
                self._commands.tell_time(board)
        if touched := {*commit.apps, *(change.board for change in commit.presences)}:
            self._apps.tell(touched)
        self._alerts.learn(commit)
        if not self._waiting:
            self._allowances.forget_new_sensors()

    def _show(self, stored: Stored) -> None:
        if not stored.pending:
            self._fold.add(stored.board, stored.blocks, stored.skip)
        readings = newest(stored.blocks, stored.skip)
        self._latest.update(stored.board, readings, stored.at_ms, clocked=not stored.pending)

    async def _answer(self, session: Session, commit: Commit) -> None:
        for board, answer in commit.answers.items():
            if not self._answers.due(board, answer.streams, answer.stalled, commit.at_ms):
                continue
            ack = Message(topics.down(board, "ack"), dumps(Ack(answer.streams)), qos=0, retain=True)
            try:
                await session.publish(ack)
            except LinkDown:
                return  # `_read` hears of it too; the boards ask again
            self._tally.acks += 1


def _undated(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of a board that does not know the time: they began when they were heard of."""
    return [replace(problem, since_ms=0) for problem in problems]
