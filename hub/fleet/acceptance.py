"""What of a batch is new: the rule that stores each reading exactly once.  Pure.

A stream is settled from its beginning: up to ``contiguous`` every seq is committed, or is in
a gap.  Ingest asks `accept` inside the transaction that also stores what it decides, so two
batches never see the same ``contiguous``.

1.  Gaps first: what the board declared, then what it no longer holds (``held.low``) and nobody
    has: lost.  Both only move ``contiguous`` on from where it is.  What lies in a gap is
    settled; if a reading of it turns up after all, it is passed over.
2.  Blocks that begin at or below ``contiguous + 1`` are stored, without those that are settled.
3.  Blocks that begin later leave a hole: nothing is stored, and the board, told where it
    stands, sends from there (go-back-N).  So nothing has to be kept for when the hole closes.

A batch speaks only for the streams it names.  Receiving one again, late, or out of order
changes nothing, as rules 1 and 2 only ever add behind ``contiguous``.

>>> from agent.wire.messages import Batch, Held
>>> accept({}, Batch(held={"s" * 16: Held(low=4, next=9)})).gaps
(Hole(stream='ssssssssssssssss', seq0=1, count=3, reason='lost', from_ms=None, to_ms=None),)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.wire.errors import Refused
from agent.wire.messages import Batch, Gap

Verdict = Literal["stored", "duplicate", "stalled", "empty"]


@dataclass(frozen=True, slots=True)
class Hole:
    """Readings ``seq0 .. seq0 + count - 1`` of ``stream`` that will not come; None: time unknown."""

    stream: str
    seq0: int
    count: int
    reason: Literal["outbox-full", "lost"]
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a batch.

    ``contiguous``: of every stream that it names, as it is afterwards.  ``gaps``: to record.
    ``verdict``: of its blocks; when "stored", all but their first ``skip`` readings count.
    """

    contiguous: dict[str, int]
    gaps: tuple[Hole, ...]
    verdict: Verdict
    skip: int = 0


def accept(contiguous: Mapping[str, int], batch: Batch) -> Decision:
    """Decide about a batch, where ``contiguous`` holds what is settled (missing: nothing).

    Raises Refused for a batch that contradicts itself.
    """
    settled: dict[str, int] = {}
    found: list[Hole] = []
    first = batch.blocks[0] if batch.blocks else None
    streams = dict.fromkeys([*batch.held, *(gap.stream for gap in batch.gaps)])
    if first is not None:
        streams.setdefault(first.stream)
    for stream in streams:
        declared = sorted((gap for gap in batch.gaps if gap.stream == stream), key=lambda gap: gap.seq0)
        settled[stream] = _settle(stream, contiguous.get(stream, 0), _low(batch, stream), declared, found)
    if first is None:
        return Decision(settled, tuple(found), "empty")

    # The loss in front of a block ended when the block's first reading was made.
    found = [_until(hole, first.stream, first.seq0, first.wall_ms[0]) for hole in found]
    stands, end = settled[first.stream], batch.blocks[-1].next - 1
    if first.seq0 > stands + 1:
        return Decision(settled, tuple(found), "stalled")
    if end <= stands:
        return Decision(settled, tuple(found), "duplicate")
    skip = stands + 1 - first.seq0
    after = [gap for gap in batch.gaps if gap.stream == first.stream and gap.seq0 > stands]
    settled[first.stream] = _settle(first.stream, end, 1, sorted(after, key=lambda gap: gap.seq0), found)
    return Decision(settled, tuple(found), "stored", skip)


def _low(batch: Batch, stream: str) -> int:
    held = batch.held.get(stream)
    if held is None:
        return 1
    if held.low > held.next:
        raise Refused(f"held.{stream}: low {held.low} is beyond next {held.next}")
    return held.low


def _settle(stream: str, stands: int, low: int, declared: Sequence[Gap], found: list[Hole]) -> int:
    """Move on over declared gaps, and over what lies below ``low``; adds to ``found``."""
    for gap in declared:
        end = gap.seq0 + gap.count - 1
        if gap.seq0 > stands + 1 and gap.seq0 <= low:
            found.append(Hole(stream, stands + 1, gap.seq0 - stands - 1, "lost", to_ms=gap.from_ms))
            stands = gap.seq0 - 1
        if gap.seq0 <= stands + 1 <= end:
            found.append(Hole(stream, stands + 1, end - stands, gap.reason, gap.from_ms, gap.to_ms))
            stands = end
    if low > stands + 1:
        found.append(Hole(stream, stands + 1, low - stands - 1, "lost"))
        stands = low - 1
    return stands


def _until(hole: Hole, stream: str, seq0: int, at_ms: int) -> Hole:
    if hole.to_ms is None and (hole.stream, hole.seq0 + hole.count) == (stream, seq0):
        return Hole(hole.stream, hole.seq0, hole.count, hole.reason, hole.from_ms, at_ms)
    return hole
