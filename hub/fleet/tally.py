"""What ingest counts, and the log lines about boards that send what cannot be believed.

Ingest counts here, `/metrics` and the bench read `Counters`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from hub.fleet.commit import Commit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the start.

    ``messages``: committed, by leaf of the topic; ``duplicates`` and ``stalled``: batches that
    brought nothing new, or began behind a hole; ``lost``: readings in gaps; ``refused``: messages
    dropped, by reason; ``offenders``: the same by board, for those who sent what cannot be
    believed; ``waiting``: messages, now.
    """

    messages: Mapping[str, int]
    readings: int
    duplicates: int
    stalled: int
    gaps: int
    lost: int
    acks: int
    commits: int
    commit_seconds: float
    refused: Mapping[str, int]
    offenders: Mapping[str, int]
    waiting: int


class Tally:
    """Counts.  Plain numbers, because a hub counts a thousand times a second."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.readings = self.duplicates = self.stalled = self.gaps = self.lost = 0
        self.acks = self.commits = 0
        self.commit_seconds = 0.0
        self.refused: Counter[str] = Counter()
        # The broker lets a board write on its own topics only, so this is no longer than the fleet.
        self.offenders: Counter[str] = Counter()
        self._offending: set[str] = set()
        self._failing = ""
        self._behind = False

    def counters(self, waiting: int) -> Counters:
        """A copy that stays as it is."""
        kept = {
            field.name: getattr(self, field.name) for field in fields(Counters) if field.name != "waiting"
        }
        kept |= {name: dict(value) for name, value in kept.items() if isinstance(value, Counter)}
        return Counters(**kept, waiting=waiting)

    def refuse(self, board: str, reason: str, sentence: str) -> None:
        """Count a message of a board that was dropped; says so when the board begins with it."""
        self.refused[reason] += 1
        self.offenders[board] += 1
        if board not in self._offending:
            self._offending.add(board)
            log.warning("refusing messages", extra={"board": board, "reason": reason, "error": sentence})

    def fail(self, reason: str, messages: int, sentence: str) -> None:
        """Count messages that were dropped because they could not be committed."""
        self.refused[reason] += messages
        if self._failing != reason:
            self._failing = reason
            log.error("cannot commit", extra={"reason": reason, "error": sentence})

    def limit(self, board: str) -> None:
        """Count a message of a board that was dropped unread because the board sends too much."""
        self.refused["limits"] += 1
        self.offenders[board] += 1

    def shed(self) -> None:
        """Count readings that were dropped unread because too much waits for its commit."""
        self.refused["behind"] += 1
        if not self._behind:
            self._behind = True
            log.error("more comes than can be committed", extra={"hint": "boards keep it and send it again"})

    def keep_up(self) -> None:
        """Nothing waits any more."""
        if self._behind:
            self._behind = False
            log.info("keeping up again", extra={"dropped": self.refused["behind"]})

    def commit(self, commit: Commit, seconds: float) -> None:
        """Count what a transaction did."""
        self.commits += 1
        self.commit_seconds += seconds
        self.messages.update(commit.messages)
        self.readings += sum(batch.count for batch in commit.stored)
        self.duplicates += commit.duplicates
        self.stalled += commit.stalled
        self.gaps += len(commit.gaps)
        self.lost += sum(gap.count for gap in commit.gaps)
        self._believe(commit.believed)
        for dropped in commit.dropped:
            self.refuse(dropped.board, dropped.reason, dropped.sentence)
        if self._failing:
            log.info("commits again", extra={"reason": self._failing})
            self._failing = ""

    def _believe(self, boards: Iterable[str]) -> None:
        for board in self._offending.intersection(boards):
            self._offending.discard(board)
            log.info("messages are good again", extra={"board": board, "refused": self.offenders[board]})
