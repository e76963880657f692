"""Where the usage log of this board is kept: what was used goes in, and on to the hub.

`agent.app` makes one.  It owns the ledger (`agent.usage.ledger`), what is written into it
(`agent.usage.meter` for containers, `agent.usage.chronicle` for the rest) and its way to the hub
(`agent.usage.sync`).  The reconciler tells it of containers (`see`), the desk of orders (`note_order`), the
link runs its sync and hands it receipts.  Whatever is wrong with the log never ends the agent: readings and
apps go on, and a problem says what to do.

Each period there is one batch of records, on the disk and sealed before anything else happens.  Between two
batches nothing is written but the end of a container that is gone, for its cgroup waits for that, and an
order that was taken.  A batch that the disk refuses is not made up for: the next one covers its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity
from agent.usage.chronicle import Chronicle, Tally
from agent.usage.frames import Disk
from agent.usage.ledger import Ledger
from agent.usage.sync import Publish, Sync
from agent.wire import words
from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, LinkDown, Refused
from agent.wire.messages import Sensor
from agent.wire.usage import ContainerRecord, EpochRecord, Known

if TYPE_CHECKING:  # what only a board with apps needs
    from agent.runs import Run
    from agent.usage.meter import Draft, Meter

log = logging.getLogger(__name__)

FOLDER = "usage"
CGROUPS = Path("/sys/fs/cgroup")
LOOK_MS = 60_000
"""How often the clock is looked at; on the grid on which the other parts of the agent wake."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
AGAIN_MS = 60_000
"""How soon what a full disk refused is tried again, where somebody waits for it."""
GONE_MS = 50
"""How often to look whether conmon has cleaned up behind a container that is gone."""
OPEN_AGAIN_S = 60.0
LAST_S = 2.0
"""How long a stop may take to write what was used since the last batch."""
LATE_MS = 3 * DAY_MS
"""After how long without a receipt somebody should look."""
MOST_SEEN = 64
Trouble = tuple[str, str, str]
"""What is wrong: the code of a problem, "", and a sentence."""


class Usage:
    """The usage log of one board at one hub.  ``changed`` rings when `troubles` says something else."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        identity: Identity,
        *,
        deliveries: Tally,
        sensors: Callable[[], Sequence[Sensor]],
        cgroups: Path = CGROUPS,
        rmdir: Callable[[Path], None] = os.rmdir,
        disk: Disk | None = None,
    ) -> None:
        """``sensors`` tells the units of readings.  ``cgroups``, ``rmdir`` and ``disk``: others than those of
        the machine."""
        self.changed = asyncio.Event()
        self._config, self._clock, self._identity = config, clock, identity
        self._deliveries, self._sensors = deliveries, sensors
        self._pace_s = config.report.every_s if config.report.profile == "metered" else 0.0
        self._cgroups, self._rmdir, self._disk = cgroups, rmdir, disk
        self._bell = asyncio.Event()
        self._seen: deque[Sequence[Run]] = deque(maxlen=MOST_SEEN)
        self._orders: deque[tuple[int, str, bool, str]] = deque(maxlen=MOST_SEEN)
        self._opened, self._closing = asyncio.Event(), asyncio.Event()
        self._in_use = asyncio.Lock()  # by a session of the link
        self._ledger: Ledger | None = None
        self._sync: Sync | None = None
        self._meter: Meter | None = None
        self._last: dict[str, ContainerRecord] = {}  # of each run of this boot, as the log has it
        self._fault: LichenError | None = None
        self._since: EpochRecord | None = None  # of the log, which began then
        self._again_ms = 0
        self._has_taken = False  # an order, which is to be written at once
        self._is_writing = False  # a batch, and nobody knows yet what becomes of it
        self._pruned_ms: int | None = None
        self._told: list[Trouble] = []

    # --- what it is told ---------------------------------------------------------------------------

    def see(self, runs: Sequence[Run]) -> None:
        """These containers are there (`agent.runs.Account`)."""
        self._seen.append(tuple(runs))
        self._bell.set()

    def note_order(self, generation: int, sha256: str, accepted: bool, reason: str = "") -> None:
        """An order that the hub has signed came, and was taken or refused."""
        self._orders.append((generation, sha256, accepted, reason))
        self._bell.set()

    async def keep(self, publish: Publish) -> NoReturn:
        """Bring the log to the hub while a session of the link lasts.  Raises LinkDown."""
        while True:
            await self._opened.wait()
            try:
                async with self._in_use, asyncio.TaskGroup() as group:
                    if self._sync is not None:
                        group.create_task(self._sync.keep(publish), name="usage sync")
                        await self._closing.wait()
                    raise _Closed
            except* _Closed:
                pass

    def heard(self, payload: bytes) -> None:
        """The hub says what it holds.  Raises Refused."""
        if self._sync is not None:
            self._sync.heard(payload)

    # --- what is wrong -----------------------------------------------------------------------------

    def troubles(self) -> list[Trouble]:
        """What a person should know, for the board's problems."""
        fault, found = self._fault, []
        if isinstance(fault, Corrupt | ConfigError):
            found.append(("usage-stopped", "", f"Nothing is written into the usage log: {_end(str(fault))}"))
        elif fault is not None:
            found.append(("usage-disk-full", "", f"Usage cannot be written down: {_end(str(fault))}"))
        if self._ledger is not None and (late := self._late()):
            found.append(("usage-unreceipted", "", late))
        return found

    def _late(self) -> str:
        """Why the hub has not countersigned for too long; empty when it has, or when nobody can tell."""
        assert self._ledger is not None
        ledger, trouble = self._ledger, None if self._sync is None else self._sync.trouble
        if trouble is not None and not isinstance(trouble, LinkDown):
            return f"The hub does not take the usage log: {_end(str(trouble))}"
        size, at_ms = ledger.cosigned or (0, 0 if self._since is None else self._since.wall1_ms)
        now_ms = self._clock.known_ms()
        if ledger.size <= size or now_ms is None or now_ms - at_ms < LATE_MS:
            return ""
        since = f"since {words.utc(at_ms)}" if size else "yet"
        wait = f"{ledger.size - size} records wait"
        return f"The hub has countersigned nothing of the usage log {since}; {wait}."

    def _fail(self, error: LichenError) -> None:
        if str(error) != str(self._fault):
            log.error("usage log cannot be written", extra={"error": str(error)})
        self._fault = error
        self._tell()

    def _tell(self) -> None:
        if (now := self.troubles()) != self._told:
            self._told = now
            self.changed.set()

    # --- the ledger --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the log until cancelled."""
        while True:
            try:
                await self._keep()
            except (Corrupt, ConfigError) as error:
                self._fail(error)
                await asyncio.Event().wait()  # nothing that a machine can mend
            except (Refused, Busy) as error:
                self._fail(error)
                await asyncio.sleep(OPEN_AGAIN_S)

    async def _keep(self) -> None:
        """Open the log, and write into it.  Raises Corrupt, ConfigError, Refused, Busy."""
        folder, clock = self._config.state_dir / FOLDER, self._clock
        opening = Ledger.open(folder, log_key=self._identity.log_key, clock=clock, disk=self._disk)
        async with opening as ledger:
            chronicle = self._open_chronicle(ledger)
            link = self._config.link
            self._ledger = ledger
            self._sync = Sync(
                ledger,
                self._identity,
                clock,
                resend_s=link.resend_s,
                high_s=link.backoff_high_s,
                pace_s=self._pace_s,
            )
            self._fault, self._is_writing = None, False
            self._closing.clear()
            self._opened.set()
            self._tell()
            try:
                await self._write_down(ledger, chronicle)
            finally:
                self._opened.clear()
                self._closing.set()
                async with self._in_use:  # until nobody asks it anything any more
                    self._ledger = self._sync = self._meter = None

    def _open_chronicle(self, ledger: Ledger) -> Chronicle:
        latest, boot = dict(ledger.latest), self._clock.boot
        self._last = {run: record for run, record in ledger.last.items() if record.boot == boot}
        epoch = latest.get("epoch")
        self._since = epoch if isinstance(epoch, EpochRecord) else None
        if self._last:
            latest["container"] = max(self._last.values(), key=lambda record: record.seq)
        ledger.latest, ledger.last = {}, {}  # what they were for is done
        return Chronicle(
            self._clock,
            disk=self._config.state_dir,
            deliveries=self._deliveries,
            sensors=self._sensors,
            latest=latest,
        )

    # --- writing -----------------------------------------------------------------------------------

    async def _write_down(self, ledger: Ledger, chronicle: Chronicle) -> None:
        """Write what is due when it is, and once more at the end.  Raises Corrupt."""
        before_ms = self._clock.mono_ms()
        try:
            while True:
                self._bell.clear()
                self._hand_over(chronicle)
                now_ms = self._clock.mono_ms()
                chronicle.look()
                if self._meter is not None:
                    self._meter.sample()
                is_hour = now_ms // HOUR_MS > before_ms // HOUR_MS
                if is_hour or now_ms // self._period_ms > before_ms // self._period_ms:
                    await self._write(ledger, chronicle, hour=is_hour)
                    await self._prune(ledger, now_ms)
                elif self._is_urgent and now_ms >= self._again_ms:
                    await self._write(ledger, chronicle, urgent=True)
                before_ms = now_ms
                await self._rest()
        finally:
            # A batch that was being written is written; what is behind it, the next agent finds.
            if not self._is_writing:
                with contextlib.suppress(LichenError, TimeoutError):
                    async with asyncio.timeout(LAST_S):
                        await self._write(ledger, chronicle)

    @property
    def _period_ms(self) -> int:
        return self._config.usage.period_s * 1000

    @property
    def _is_urgent(self) -> bool:
        return self._has_taken or (self._meter is not None and self._meter.is_urgent)

    def _hand_over(self, chronicle: Chronicle) -> None:
        """Pass on what was told meanwhile: while a batch is written, nothing that it is about may change."""
        while self._orders:
            generation, sha256, accepted, reason = self._orders.popleft()
            is_new = chronicle.note_order(generation, sha256, accepted=accepted, reason=reason)
            self._has_taken |= is_new and accepted
        while self._seen:
            runs = self._seen.popleft()
            if self._meter is None and (runs or self._has_left()):
                self._meter = self._open_meter()
            if self._meter is not None:
                self._meter.see(runs)

    def _has_left(self) -> bool:
        """Whether there are cgroups of containers, of ours perhaps."""
        return any(next(self._cgroups.glob(place), None) for place in ("lichen", "*/lichen"))

    def _open_meter(self) -> Meter:
        # Only where there is something to measure.
        from agent.parents import Parents
        from agent.usage.meter import Meter

        return Meter(
            self._clock,
            self._identity.board,
            payer=self._identity.document().hub,
            sample_ms=self._config.usage.mem_sample_s * 1000,
            last=self._last,
            parents=Parents(self._cgroups, self._rmdir),
        )

    async def _write(
        self, ledger: Ledger, chronicle: Chronicle, *, hour: bool = False, urgent: bool = False
    ) -> None:
        """One batch of all that is due; ``urgent``: of what cannot wait.  Raises Corrupt."""
        others, written = chronicle.draft(hour=hour)
        drafts: list[Draft] = [] if self._meter is None else self._meter.draft(urgent=urgent)
        records: list[Known] = [*others, *(draft.record for draft in drafts)]
        if records:
            self._is_writing = True
            try:
                await ledger.append(records)
            except (Refused, Busy) as error:
                self._is_writing = False
                self._again_ms = self._clock.mono_ms() + AGAIN_MS
                self._fail(error)
                return
            self._is_writing = False
            self._has_taken = False
            self._fault = None
            self._tell()
        written()
        for draft in drafts:
            draft.written()
        if self._meter is not None:
            self._meter.tidy()

    async def _prune(self, ledger: Ledger, now_ms: int) -> None:
        """Let go of what the hub has had for long enough, once a day, by a clock that is right."""
        wall_ms = self._clock.known_ms()
        if wall_ms is None or (self._pruned_ms is not None and now_ms - self._pruned_ms < DAY_MS):
            return
        self._pruned_ms = now_ms
        try:
            await ledger.prune(wall_ms, self._config.usage.keep_days)
        except (Refused, Busy) as error:
            log.warning("usage log is not pruned", extra={"error": str(error)})

    async def _rest(self) -> None:
        """Wait until something is due, or is told."""
        now_ms = self._clock.mono_ms()
        paces = [LOOK_MS, self._period_ms, HOUR_MS]
        if self._meter is not None and self._meter.has_work:
            paces.append(self._config.usage.mem_sample_s * 1000)
        due_ms = min((now_ms // pace + 1) * pace for pace in paces)
        if self._is_urgent:
            due_ms = min(due_ms, max(now_ms + GONE_MS, self._again_ms))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((due_ms - now_ms) / 1000):
                await self._bell.wait()


class _Closed(Exception):
    """The ledger is about to be closed."""


def _end(text: str) -> str:
    """A sentence with one full stop."""
    return f"{text.rstrip('.')}."
