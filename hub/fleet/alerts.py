"""The problems that the hub itself sees: of its boards, and its own.

Owns what raises and clears them, and their words.  They are in memory first, so that a full disk
can be told of; `run` writes them to the store when it takes them, and `Latest` has them for the
pages at once.  Ingest, the broker's link and the throttle tell what happens; nothing here asks a
board, or decides what is stored.

| code | of | until |
|---|---|---|
| board-silent | a board | it is heard |
| limits-exceeded | a board | it has kept to its limits for 5 minutes |
| messages-refused | a board | 15 minutes without one |
| readings-gap | a board | a day has passed |
| identity-twice | a board | an hour without a sign of the other machine |
| hub-disk-low, hub-disk-full | the hub | there is room again |
| hub-store-failing | the hub | it commits again |
| hub-behind | the hub | a minute without dropping anything |
| broker-down | the hub | its broker answers |

and what others find, by `found`: `hub.ledger.witness` those of usage logs (usage-...).

**Silence** needs no look at each board each second: a look at all of them tells which could be
silent first, and when.  In a fleet that is well that is two intervals away.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from agent.wire import words
from agent.wire.errors import Busy, LichenError, Refused
from agent.wire.messages import Problem
from hub.fleet.commit import WHY, Commit
from hub.fleet.latest import BoardLatest, Latest
from hub.fleet.patience import LOGGED, LOST_HINTS, QUIET_S
from hub.fleet.sightings import Owner, Sightings
from hub.fleet.silence import silent_at_ms
from hub.store import boards, problems
from hub.store.database import Store
from hub.store.problems import ProblemRow, Severity

log = logging.getLogger(__name__)

LOOK_S = 60.0
"""How often to look at what nobody tells: the disk, boards that joined and were never heard."""
PAUSE_S = 1.0
"""Between two transactions, so that many boards share one."""
FRESH_S = 10.0
"""How long a new count or sentence may wait for its row."""
RETRY_S = 10.0
SLICE = 500
"""Boards in one transaction."""
LONGEST = 256
"""Characters of a sentence, as boards may say them."""

LEFT_GRACE_MS = 60_000
"""A board that says goodbye and is back within this time was restarted."""
RETURN_MS = 360_000
"""After the hub, or its broker, was away: boards come back within their longest back-off, 5 minutes."""
BROKER_GRACE_S = 15.0
CLOCK_JUMP_MS = 10_000
DISK_LOW_PART, DISK_LOW_BYTES = 0.05, 2**30


class Alerts:
    """The problems that one hub sees.  Belongs to one event loop.

    ``disk`` tells (free, all) bytes of the file system that the hub's directory is on.
    """

    def __init__(
        self,
        store: Store,
        latest: Latest,
        now_ms: Callable[[], int],
        *,
        disk: Callable[[], tuple[int, int]],
    ) -> None:
        self._store = store
        self._latest = latest
        self._now_ms = now_ms
        self._disk = disk
        self._seen = Sightings()
        self._silent: dict[str, int] = {}  # and since when
        self._unheard: dict[str, int] = {}  # boards that joined and were never heard: when they joined
        self._out: dict[str, tuple[float, float]] = {}  # boards kept out: until when, and for how long
        self._past: list[tuple[Owner, Problem, int]] = []  # over before they were stored
        self._broker_lost_s: float | None = None
        self._listening_ms = now_ms()
        self._clocks = (now_ms(), _clock_s())
        self._look_s = -math.inf
        self._write_fresh_s = math.inf
        self._bell = asyncio.Event()

    # --- what others tell ----------------------------------------------------------------------------

    def learn(self, commit: Commit) -> None:
        """Ingest has committed."""
        for board in self._silent.keys() & commit.believed.keys():
            # What the broker had kept is as old as what was heard last, and a will is no sign of life.
            is_new = commit.believed[board] != self._silent[board]
            if is_new and self._latest.boards[board].presence == "online":
                del self._silent[board]
                self.over(board, "board-silent")
        for board in commit.abouts:  # which may have shortened its interval
            known = self._latest.boards[board]
            if board not in self._silent:
                self._look_by(_clock_s() + (self._silent_at_ms(known) - self._now_ms()) / 1000)
        for gap in commit.gaps:
            lost = f"{gap.count} readings are lost for good: {WHY[gap.reason]}"
            self.found(gap.board, "readings-gap", lost, LOST_HINTS[gap.reason])
        for board in commit.returned:
            sentence = "Two machines use the identity of this board, and push each other out"
            hint = "a card was copied: on one of them remove the state directory, and let it join anew"
            self.found(board, "identity-twice", sentence, hint, "fail")
        for dropped in commit.dropped:
            self.refused(dropped.board, dropped.sentence)
        self._written()

    def failed(self, error: LichenError) -> None:
        """Something could not be written to the store."""
        code = "hub-disk-full" if error.code == "disk-full" else "hub-store-failing"
        sentence = f"The hub cannot write to its database: {error}"
        hint = error.hint or "boards keep what they measure, and send it when it goes on"
        self.found(None, code, sentence, hint, "fail", times=0)

    def refused(self, board: str, sentence: str) -> None:
        """A message of a board was not believed."""
        hint = "a damaged or foreign program uses this board's certificate; if in doubt, revoke the board"
        self.found(board, "messages-refused", f"The hub refuses messages of this board: {sentence}", hint)

    def exceeded(self, board: str, *, out_for_s: float = 0.0) -> None:
        """A message of a board was beyond its limits; ``out_for_s``: nothing more is taken for so long."""
        sentence = "The board sends more than it may, and what is beyond is dropped"
        if out_for_s:
            self._out[board] = (_clock_s() + out_for_s, out_for_s)
        until_s, for_s = self._out.get(board, (-math.inf, 0.0))
        if until_s > _clock_s():  # some messages may still be on their way
            sentence = f"The board went on sending more than it may, so it is kept out for {for_s:.0f} s"
        hint = "look for a program in a loop on it; [limits] in hub.toml says what a board may send"
        self.found(board, "limits-exceeded", sentence, hint, longer_s=out_for_s)

    def behind(self) -> None:
        """Readings were dropped unread, as more comes than can be committed."""
        hint = "boards keep them and send them again; see what else uses this machine's disk and processor"
        self.found(None, "hub-behind", "More comes in than the hub can commit", hint)

    def broker_lost(self) -> None:
        """The hub has no connection to its broker."""
        if self._broker_lost_s is None:
            self._broker_lost_s = _clock_s()
            self._look_by(_clock_s() + BROKER_GRACE_S)

    def broker_found(self) -> None:
        """It has one: from now on boards can be heard."""
        self._broker_lost_s = None
        self._listening_ms = self._now_ms()
        self.over(None, "broker-down")

    def unsaved(self) -> list[ProblemRow]:
        """Problems that no row tells of, because the store takes none; their id is 0."""
        return [
            ProblemRow(
                0, owner, "hub", each.code, each.sentence, each.hint, each.severity, each.since_ms, None,
                each.count,
            )
            for owner, each in self._seen.unsaved()
        ]  # fmt: skip

    # --- the task ------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up what was open when the hub ended.  Called once, before anything else."""
        async with self._store.read() as tx:
            rows = await problems.list_problems(tx, source="hub", limit=100_000)
        for row in reversed(rows):
            problem = Problem(row.code, row.sentence, row.hint, row.severity, row.since_ms, row.count)
            quiet_s = QUIET_S.get(row.code, math.inf)
            self._seen.raised(row.board, problem, now_s=_clock_s(), quiet_s=quiet_s)
            self._seen.note_stored(row.board, [problem])
            if row.code == "board-silent" and row.board is not None:
                self._silent[row.board] = row.since_ms
        for owner in self._seen.owners():
            self._show(owner)
        self._seen.dirty.clear()

    async def run(self) -> NoReturn:
        """Watch over what nobody tells, and keep the store up to date, until cancelled."""
        while True:
            await self._wait()
            if _clock_s() >= self._look_s:
                await self._look()
            for owner, _ in self._seen.expire(_clock_s()):
                self._show(owner)
            if _clock_s() >= self._write_fresh_s:
                self._write_fresh_s = math.inf
                self._seen.dirty |= self._seen.fresh
            written = await self._save() if self._seen.dirty or self._past else True
            await asyncio.sleep(PAUSE_S if written else RETRY_S)

    async def _wait(self) -> None:
        """Until there is something to do."""
        if self._seen.dirty or self._past:
            return
        due_s = min(self._look_s, self._seen.next_end_s, self._write_fresh_s)
        try:
            async with asyncio.timeout(max(due_s - _clock_s(), 0)):
                await self._bell.wait()
        except TimeoutError:
            pass
        self._bell.clear()

    # --- what nobody tells ---------------------------------------------------------------------------

    async def _look(self) -> None:
        """At the fleet, the disk and the broker."""
        self._look_s = _clock_s() + LOOK_S
        self._check_clock()
        try:
            async with self._store.read() as tx:
                self._unheard = await boards.never_heard(tx)
                gone = await problems.boards_to_clear(tx)
            if gone:
                async with self._store.write() as tx:
                    await problems.clear_boards(tx, gone, self._now_ms())
        except (Refused, Busy) as error:
            self.failed(error)
        self._check_disk()
        if self._broker_lost_s is None:
            self._check_silence()
        elif _clock_s() - self._broker_lost_s >= BROKER_GRACE_S:
            sentence = "The hub cannot reach its own broker, so it hears no board"
            hint = "its journal says why: `journalctl -u lichen-hub`, or where `lichen-hub run` prints"
            self.found(None, "broker-down", sentence, hint, "fail", times=0)
        for owner in self._seen.owners():
            if owner is not None and owner not in self._latest.boards and owner not in self._unheard:
                self._silent.pop(owner, None)
                self._seen.forget(owner)

    def _check_clock(self) -> None:
        """When the hub's clock was set, the age of what was heard before says nothing."""
        (wall_ms, clock_s), self._clocks = self._clocks, (self._now_ms(), _clock_s())
        if abs(self._clocks[0] - wall_ms - (self._clocks[1] - clock_s) * 1000) > CLOCK_JUMP_MS:
            self._listening_ms = self._now_ms()

    def _check_disk(self) -> None:
        free, total = self._disk()
        if free >= min(DISK_LOW_PART * total, DISK_LOW_BYTES):
            self.over(None, "hub-disk-low")
            return
        left = words.plain(words.value(free, "By"))
        sentence = f"The hub's disk is nearly full: {left} are left"
        hint = "make room on the file system of the hub's directory; [retention] says what may stay"
        self.found(None, "hub-disk-low", sentence, hint, times=0)

    def _check_silence(self) -> None:
        """Raise what is due, and find out who is next."""
        now_ms, next_ms = self._now_ms(), math.inf
        for board, known in self._latest.boards.items():
            if board in self._silent:
                continue
            at_ms = self._silent_at_ms(known, self._unheard.get(board, now_ms))
            if at_ms <= now_ms:
                self._fall_silent(board, known)
            elif at_ms < next_ms:
                next_ms = at_ms
        for board, joined_ms in self._unheard.items():
            if board not in self._latest.boards and board not in self._silent:
                at_ms = self._silent_at_ms(BoardLatest(), joined_ms)
                if at_ms <= now_ms:
                    self._fall_silent(board, BoardLatest(), joined_ms)
        self._look_s = min(self._look_s, _clock_s() + (next_ms - now_ms) / 1000)

    def _silent_at_ms(self, known: BoardLatest, joined_ms: int = 0) -> int:
        """When a board of which nothing more is heard is a problem; never earlier than for the pages."""
        at_ms = silent_at_ms(known.heard_ms, joined_ms, known.every_ms)
        if known.heard_ms is None:
            return at_ms
        if known.presence == "offline":
            return min(at_ms, known.heard_ms + LEFT_GRACE_MS)
        # Nobody was heard while the hub did not listen.
        return at_ms if known.heard_ms >= self._listening_ms else max(at_ms, self._listening_ms + RETURN_MS)

    def _fall_silent(self, board: str, known: BoardLatest, joined_ms: int = 0) -> None:
        if known.heard_ms is None:
            sentence, since_ms = "The board has joined, and was never heard", joined_ms
        elif known.presence == "offline":
            sentence, since_ms = "The board is offline", known.heard_ms
        else:
            every = words.plain(words.every(known.every_ms))
            sentence, since_ms = f"The board is silent, and should report every {every}", known.heard_ms
        self._silent[board] = since_ms
        hint = "see to its power and its network; `lichen-agent doctor` on it says more"
        self.found(board, "board-silent", sentence, hint, "fail", since_ms=since_ms)

    # --- the bookkeeping -----------------------------------------------------------------------------

    def found(
        self,
        owner: Owner,
        code: str,
        sentence: str,
        hint: str,
        severity: Severity = "warn",
        *,
        since_ms: int | None = None,
        times: int = 1,
        longer_s: float = 0.0,
    ) -> None:
        """A problem is there: it begins, or goes on.

        ``times``: how often it happened since it was found last, 0 for a state that only goes on.
        """
        now_s, since_ms = _clock_s(), self._now_ms() if since_ms is None else since_ms
        problem = Problem(code, sentence[:LONGEST], hint, severity, since_ms)
        quiet_s = QUIET_S.get(code, math.inf) + longer_s
        if self._seen.raised(owner, problem, now_s=now_s, quiet_s=quiet_s, times=times):
            if code in LOGGED:
                log.warning("problem", extra={"board": owner, "code": code, "sentence": sentence})
            self._show(owner)
            self._bell.set()
        elif self._seen.fresh and self._write_fresh_s == math.inf:
            self._write_fresh_s = now_s + FRESH_S
            self._bell.set()

    def over(self, owner: Owner, code: str) -> None:
        """A problem has ended, if there was one."""
        if not self._seen.has(owner, code):
            return
        unsaved = self._seen.cleared(owner, code)
        if unsaved is not None:
            self._past.append((owner, unsaved, self._now_ms()))
        if code in LOGGED:
            log.info("problem is over", extra={"board": owner, "code": code})
        self._show(owner)
        self._bell.set()

    def _written(self) -> None:
        for code in ("hub-disk-full", "hub-store-failing"):
            self.over(None, code)

    def _look_by(self, at_s: float) -> None:
        if at_s < self._look_s:
            self._look_s = at_s
            self._bell.set()

    def _show(self, owner: Owner) -> None:
        self._latest.alert(owner, self._seen.of(owner))

    async def _save(self) -> bool:
        """Let the store have what memory has.  False when it takes nothing."""
        owners = sorted(self._seen.dirty, key=lambda owner: owner or "")
        try:
            while owners or self._past:
                past = list(self._past)
                await self._save_some(owners[:SLICE], past)
                del owners[:SLICE], self._past[: len(past)]
        except (Refused, Busy) as error:
            self._seen.dirty.update(owners)
            self.failed(error)
            return False
        self._written()
        return True

    async def _save_some(self, owners: Sequence[Owner], past: Sequence[tuple[Owner, Problem, int]]) -> None:
        concerned = {owner for owner in (*owners, *(owner for owner, _, _ in past)) if owner is not None}
        async with self._store.write() as tx:
            # A message may be refused before anybody looks whether its board has joined.
            standings = await boards.standings(tx, concerned)
            known = {None, *(board for board, each in standings.items() if not each.revoked)}
            found = {owner: self._seen.of(owner) for owner in owners if owner in known}
            self._seen.dirty.difference_update(owners)
            self._seen.fresh.difference_update(owners)
            await problems.settle_all(tx, "hub", found, self._now_ms())
            await problems.add_past(tx, [each for each in past if each[0] in known])
        for owner, written in found.items():
            self._seen.note_stored(owner, written)
        if not self._seen.fresh:
            self._write_fresh_s = math.inf


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
