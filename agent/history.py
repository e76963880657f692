"""The problems that a board has had: a bounded list in one small file, written rarely.

`agent.health` keeps it, `lichen-agent doctor --history` shows it.  It knows nothing of checks.

A power cut may take what happened since the last writing; nothing else is lost by it, so
the file is written when a problem appears or ends, and then not again for a while.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from agent.base.files import write_file
from agent.checks import Severity
from agent.clock import Clock
from agent.wire.decode import decode
from agent.wire.errors import LichenError
from agent.wire.plain import dumps, loads

FILE = "health.json"
MAX_BYTES = 128 * 1024
MAX_EPISODES = 64
"""About 15 kB.  Written at most each ten minutes, that is 2 MB in a day of nothing but trouble."""
SEVERITIES: tuple[Severity, ...] = ("notice", "warn", "fail")


class Episode(NamedTuple):
    """A problem from its appearance to its end (``to_ms`` None: it goes on).

    ``times``: how often it was found anew in that time.  The monotonic times belong to ``boot``:
    where that is the running one they say more than the wall clock, which may have been wrong then.
    """

    code: str
    subject: str
    severity: Severity
    sentence: str
    boot: str
    from_ms: int
    from_mono_ms: int
    to_ms: int | None = None
    to_mono_ms: int = 0
    times: int = 1


class Tally(NamedTuple):
    """A total, of which the readings above ``base`` went lost in a row that last grew at ``grown_ms``."""

    base: int
    total: int
    grown_ms: int

    def grown(self, total: int, now_ms: int, stay_ms: int) -> Tally:
        """With a newer total; what has not grown for ``stay_ms`` begins anew at it."""
        if total > self.total:
            return Tally(self.base, total, now_ms)
        # A clock that went back makes it stay longer, not for ever.
        grown_ms = min(self.grown_ms, now_ms)
        if total < self.total or now_ms - grown_ms >= stay_ms:
            return Tally(total, total, grown_ms)
        return Tally(self.base, total, grown_ms)

    @property
    def lost(self) -> int:
        """How many in this row."""
        return self.total - self.base


class History(NamedTuple):
    """What the file holds: the episodes, oldest first, and the dropped readings, if any are known."""

    episodes: tuple[Episode, ...] = ()
    dropped: Tally | None = None


def read_history(state_dir: Path) -> History:
    """The history; an empty one when there is none, or none that can be understood."""
    try:
        with (state_dir / FILE).open("rb") as file:
            table = decode(dict[str, Any], loads(file.read(MAX_BYTES + 1), max_bytes=MAX_BYTES))
        rows = decode(tuple[Any, ...], table["episodes"])[-MAX_EPISODES:]
        dropped = decode(tuple[int, ...], table["dropped"])
        return History(tuple(map(_episode, rows)), Tally(*dropped) if dropped else None)
    except (OSError, LichenError, KeyError, TypeError, ValueError):
        return History()


def _episode(row: list[Any]) -> Episode:
    """An episode as it was written: its fields in order.  Raises ValueError, TypeError, LichenError."""
    code, subject, severity, sentence, boot = decode(tuple[str, ...], row[:5])
    from_ms, from_mono_ms, to_ms, to_mono_ms, times = decode(tuple[int | None, ...], row[5:])
    return Episode(
        code, subject, SEVERITIES[SEVERITIES.index(severity)], sentence, boot,
        from_ms or 0, from_mono_ms or 0, to_ms, to_mono_ms or 0, times or 1,
    )  # fmt: skip


def write_history(state_dir: Path, history: History) -> None:
    """Replace the file; blocks.  Raises Refused (code "disk-full"), ConfigError."""
    table = {"episodes": history.episodes, "dropped": history.dropped or ()}
    write_file(state_dir / FILE, dumps(table))


def dated(episode: Episode, clock: Clock) -> Episode:
    """The episode with the times that the wall clock would have shown, had it always been right."""
    if episode.boot != clock.boot:
        return episode
    shift_ms = clock.wall_ms() - clock.mono_ms()
    to_ms = None if episode.to_ms is None else episode.to_mono_ms + shift_ms
    return episode._replace(from_ms=episode.from_mono_ms + shift_ms, to_ms=to_ms)
