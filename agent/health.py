"""Which problems the board has: from facts that come and go to what a person is told.

Owns the time in it: a finding of `agent.checks` becomes a problem when it has lasted for its grace
time, stays while it flutters, ends by itself, and is kept in the history (`agent.history`).
`agent.app` runs it; `agent.portrait` tells it what has changed and shows `problems`.

Facts are told, or taken once a minute on the sampler's grid (disk, supply, heat), so that looking
costs no wake-up of its own.  Judging them is a function call.  What is read may hang, and is read
in a lane of the sampler's threads.

`problems` changes when something appears, ends or gets worse; while only figures change, at
most each REFRESH_MS, because each change travels to the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from agent.checks import CHECKS, Check, Facts, Fault, Finding, Trouble
from agent.clock import Clock
from agent.history import MAX_EPISODES, SEVERITIES, Episode, History, Tally, read_history, write_history
from agent.identity import Identity
from agent.sensors.driver import RunBlocking
from agent.sensors.grid import next_tick
from agent.sensors.sampler import Sampler
from agent.status import LinkState
from agent.vitals import Gauges, Vitals
from agent.wire.errors import LichenError
from agent.wire.messages import OutboxState, Problem

log = logging.getLogger(__name__)

LOOK_MS = 60_000
LOOK_TIMEOUT_S = 10.0
REFRESH_MS = 15 * 60_000
SAVE_MS = 10 * 60_000
"""How often the history may be written: a flash card counts its writes."""
STAY_MS = 24 * 3_600_000
"""How long lost readings are told of: whoever looks once a day sees it."""
RESUME_S = 120.0
"""How long what a former run found may take to be found again: by then every sensor was asked."""
MAX_TEXT = 256


class _Case:
    """What one check finds about one subject: from its first finding to the end of the episode.

    ``since_ms`` by the monotonic clock of ``boot``; a case of another boot has "" and 0, and only
    ``from_ms``, by the wall clock.  ``left_ms``: since when it is not found any more, None while it is.
    """

    __slots__ = (
        "boot", "check", "count", "from_ms", "left_ms", "resumed", "sentence", "severity", "since_ms",
        "subject", "told",
    )  # fmt: skip

    def __init__(self, check: Check, subject: str, boot: str, since_ms: int, from_ms: int) -> None:
        self.check, self.subject = check, subject
        self.boot, self.since_ms, self.from_ms = boot, since_ms, from_ms
        self.sentence, self.severity, self.count = "", check.severity, 1
        self.told = self.resumed = False
        self.left_ms: int | None = None

    @property
    def clear_ms(self) -> int:
        return round(1000 * (max(self.check.clear_s, RESUME_S) if self.resumed else self.check.clear_s))

    def found(self, finding: Finding) -> None:
        if self.left_ms is not None:
            self.left_ms = None
            self.count += not self.resumed
            self.resumed = False
        self.sentence = finding.sentence[:MAX_TEXT]
        severity = finding.severity or self.check.severity
        # An episode is as severe as its worst moment: what flutters would be said again each time.
        self.severity = max(self.severity, severity, key=SEVERITIES.index) if self.told else severity

    def due_ms(self) -> int | None:
        """When time alone changes it: it is told, or over."""
        if self.left_ms is not None:
            return self.left_ms + self.clear_ms
        return None if self.told else self.since_ms + round(1000 * self.check.grace_s)

    def episode(self) -> Episode:
        return Episode(
            self.check.code, self.subject, self.severity, self.sentence,
            self.boot, self.from_ms, self.since_ms, times=self.count,
        )  # fmt: skip


class Health:
    """The problems of a running board.  ``changed`` rings when `problems` says something else."""

    def __init__(
        self,
        clock: Clock,
        state_dir: Path,
        *,
        gauges: Gauges,
        lane: Callable[[], RunBlocking],
        gather: Callable[[], Facts],
        alarm: Path | None = None,
        checks: Sequence[Check] = CHECKS,
    ) -> None:
        """``gather`` collects what costs nothing to ask; ``alarm`` is a file that announces a low supply."""
        self.changed = asyncio.Event()
        self._clock = clock
        self._state_dir = state_dir
        self._gauges, self._gather, self._checks = gauges, gather, checks
        self._look_lane, self._save_lane = lane(), lane()
        self._alarm = alarm
        self._alarmed = asyncio.Event()
        self._refusal = ""
        self._vitals = Vitals()
        self._link = LinkState("connecting", clock.wall_ms())
        self._outbox: OutboxState | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._problems: tuple[Problem, ...] = ()
        self._told: list[object] = []
        self._told_ms = 0
        history = read_history(state_dir)
        self._dropped, self._unsaved = history.dropped, Tally(0, 0, 0)
        self._cases = {(case.check.code, case.subject): case for case in self._resume(history)}
        self._ended = deque(
            (each for each in history.episodes if (each.code, each.subject) not in self._cases),
            maxlen=MAX_EPISODES,
        )
        self._saved_ms: int | None = None
        self._unsaved_history = False

    async def run(self) -> None:
        """Look once a minute, and when the supply sags, until cancelled."""
        try:
            with self._watching():
                while True:
                    await self._look()
                    await self._save()
                    await self._until(next_tick(self._clock.mono_ms(), LOOK_MS))
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._unsaved_history:
                with contextlib.suppress(LichenError):
                    write_history(self._state_dir, self.history())

    def tell(self, link: LinkState, outbox: OutboxState) -> None:
        """What is known of the link and of the outbox, whenever it has changed."""
        self._link, self._outbox = link, outbox
        self._judge()

    def problems(self) -> tuple[Problem, ...]:
        """What a person should know, one for each code, the first to mend first."""
        return self._problems

    def worst(self) -> Problem | None:
        """The one to show where there is room for one."""
        return max(self._problems, key=lambda problem: SEVERITIES.index(problem.severity), default=None)

    def history(self) -> History:
        """All episodes that are kept, those that go on at the end."""
        going_on = [case.episode() for case in self._cases.values() if case.told]
        return History((*self._ended, *going_on)[-MAX_EPISODES:], self._dropped)

    # --- looking

    def _watching(self) -> contextlib.AbstractContextManager[None]:
        if self._alarm is None:
            return contextlib.nullcontext()
        from agent.alarm import watching  # only where there is something to watch

        return watching(self._alarm, self._alarmed.set)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                self._vitals = await self._look_lane(self._gauges.read)
        except (TimeoutError, OSError, LichenError) as error:
            # A disk that hangs or is gone: what was known of it stays.
            log.debug("vitals not taken", extra={"error": str(error)})
        self._judge()

    async def _until(self, at_ms: int) -> None:
        """Wait until ``at_ms`` or for the alarm."""
        self._alarmed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (at_ms - self._clock.mono_ms()) / 1000)):
                await self._alarmed.wait()

    # --- judging

    def _facts(self) -> Facts:
        now_ms, facts = self._clock.wall_ms(), self._gather()
        outbox = self._outbox or OutboxState()
        if self._outbox is not None:
            known = self._dropped or Tally(outbox.dropped, outbox.dropped, now_ms)
            self._dropped = known.grown(outbox.dropped, now_ms, STAY_MS)
        self._unsaved = self._unsaved.grown(facts.unsaved, now_ms, STAY_MS)
        if facts.refusal != self._refusal:
            self._refusal = facts.refusal
            self._alarmed.set()  # the disk has something to tell before its minute
        return facts._replace(
            vitals=self._vitals,
            link=self._link,
            outbox=outbox,
            dropped=self._dropped.lost if self._dropped is not None else 0,
            unsaved=self._unsaved.lost,
            seen=self._seen(),
        )

    def _seen(self) -> Collection[str]:
        """The codes that this boot has known."""
        boot = self._clock.boot
        seen = {each.code for each in self._ended if each.boot == boot}
        return seen | {case.check.code for case in self._cases.values() if case.told and case.boot == boot}

    def _judge(self) -> None:
        facts, now_ms = self._facts(), self._clock.mono_ms()
        for check in self._checks:
            cases = {case.subject: case for case in self._cases.values() if case.check is check}
            known = [subject for subject, case in cases.items() if case.told]
            found = {finding.subject: finding for finding in check.look(facts, known)}
            for subject, finding in found.items():
                case = cases.get(subject) or self._new(check, subject, now_ms)
                case.found(finding)
            for subject, case in cases.items():
                if subject not in found and case.left_ms is None:
                    case.left_ms = now_ms
        for case in list(self._cases.values()):
            self._pass_time(case, now_ms)
        self._publish(now_ms)
        self._set_timer(now_ms)

    def _new(self, check: Check, subject: str, now_ms: int) -> _Case:
        case = _Case(check, subject, self._clock.boot, now_ms, self._clock.wall_ms())
        self._cases[check.code, subject] = case
        return case

    def _pass_time(self, case: _Case, now_ms: int) -> None:
        due_ms = case.due_ms()
        if due_ms is None or now_ms < due_ms:
            return
        if case.left_ms is None:
            case.told = True
            log.warning("problem", extra={"code": case.check.code, "sentence": case.sentence})
        else:
            del self._cases[case.check.code, case.subject]
            if not case.told:
                return
            ago_ms = now_ms - case.left_ms
            to_ms, to_mono_ms = self._clock.wall_ms() - ago_ms, case.left_ms
            self._ended.append(case.episode()._replace(to_ms=to_ms, to_mono_ms=to_mono_ms))
            log.info("problem is over", extra={"code": case.check.code, "sentence": case.sentence})
        self._unsaved_history = True

    def _set_timer(self, now_ms: int) -> None:
        """Judge again when a grace or a hysteresis ends, if that is before the next look."""
        if self._timer is not None:
            self._timer.cancel()
        due = [due_ms for case in self._cases.values() if (due_ms := case.due_ms()) is not None]
        loop, wait_ms = asyncio.get_running_loop(), min(due, default=now_ms + LOOK_MS) - now_ms
        self._timer = loop.call_later(max(1, wait_ms) / 1000, self._judge) if wait_ms < LOOK_MS else None

    # --- telling

    def _publish(self, now_ms: int) -> None:
        told = [(case.check.code, case.subject, case.severity) for case in self._cases.values() if case.told]
        if told == self._told and now_ms - self._told_ms < REFRESH_MS:
            return
        problems = tuple(self._compose(now_ms))
        self._told, self._told_ms = list(told), now_ms
        if problems != self._problems:
            self._problems = problems
            self.changed.set()

    def _compose(self, now_ms: int) -> Iterator[Problem]:
        began_ms = self._clock.wall_ms() - now_ms
        for check in self._checks:
            cases = [case for case in self._cases.values() if case.check is check and case.told]
            if not cases:
                continue
            since = [case.since_ms + began_ms if case.boot else case.from_ms for case in cases]
            yield Problem(
                check.code,
                joined([case.sentence for case in cases]),
                check.hint,
                max((case.severity for case in cases), key=SEVERITIES.index),
                min(since),
                sum(case.count for case in cases),
            )

    # --- the history

    def _resume(self, history: History) -> Iterator[_Case]:
        """What a former run of the agent left open goes on, if it is found again."""
        checks = {check.code: check for check in self._checks}
        for each in history.episodes:
            if each.to_ms is not None or each.code not in checks:
                continue
            same = each.boot == self._clock.boot
            # The monotonic times of another boot mean nothing here.
            case = _Case(
                checks[each.code], each.subject, each.boot if same else "",
                each.from_mono_ms if same else 0, each.from_ms,
            )  # fmt: skip
            case.sentence, case.severity, case.count = each.sentence, each.severity, each.times
            case.told = case.resumed = True
            case.left_ms = self._clock.mono_ms()
            yield case

    async def _save(self) -> None:
        now_ms = self._clock.mono_ms()
        if not self._unsaved_history or (self._saved_ms is not None and now_ms - self._saved_ms < SAVE_MS):
            return
        history, self._unsaved_history, self._saved_ms = self.history(), False, now_ms
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self._save_lane(lambda: write_history(self._state_dir, history))
        except (TimeoutError, LichenError) as error:
            self._unsaved_history = True  # a full disk is a problem itself; the next look tries again
            log.debug("history not written", extra={"error": str(error)})


def gathered(
    clock: Clock, sampler: Sampler, identity: Identity, troubles: Sequence[tuple[str, str, str]] = ()
) -> Facts:
    """The facts that cost nothing to ask.  ``troubles`` with apps: code, subject and sentence of each."""
    until_ms = None
    with contextlib.suppress(LichenError):  # the link says what is wrong with it
        until_ms = identity.certificate_until_ms()
    refusal, latest = sampler.refusal, sampler.latest()
    return Facts(
        wall_ms=clock.wall_ms(),
        clock=clock.state(),
        faults=tuple(
            Fault(name, each.error, each.code == "implausible") for name, each in latest.items() if each.error
        ),
        refusal=refusal.code if refusal is not None else "",
        unsaved=sampler.dropped,
        certificate_until_ms=until_ms,
        troubles=tuple(Trouble(*trouble) for trouble in troubles),
    )


def joined(sentences: Sequence[str]) -> str:
    """Sentences as one text of at most MAX_TEXT characters.

    >>> joined(["A fails.", "B fails."])
    'A fails. B fails.'
    """
    text = sentences[0]
    for count, sentence in enumerate(sentences[1:], 1):
        if len(text) + len(sentence) + 1 > MAX_TEXT - len(" And 999 more."):
            return f"{text[: MAX_TEXT - 14]} And {len(sentences) - count} more."
        text = f"{text} {sentence}"
    return text
