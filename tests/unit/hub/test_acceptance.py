"""What of a batch is new: a table of cases, and the one law over random ones."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Refused
from agent.wire.messages import Batch, Gap, Held
from hub.fleet import acceptance, answers
from hub.fleet.acceptance import Hole, accept
from support.stream import Stream

S = "s" * 16
OTHER = "t" * 16


def stream(count: int = 100) -> Stream:
    made = Stream(S)
    made.sample(count)
    return made


@pytest.mark.parametrize("module", [acceptance, answers])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


# (settled before, spans of the blocks, low) -> (settled after, verdict, skip)
CASES = {
    "the first": (0, [(1, 10)], 1, (10, "stored", 0)),
    "the next": (10, [(11, 20)], 11, (20, "stored", 0)),
    "several blocks": (10, [(11, 20), (21, 30)], 11, (30, "stored", 0)),
    "once more": (10, [(1, 10)], 1, (10, "duplicate", 0)),
    "long ago": (90, [(1, 10)], 1, (90, "duplicate", 0)),
    "the last reading of an old one": (10, [(10, 10)], 1, (10, "duplicate", 0)),
    "an overlap": (10, [(1, 10), (11, 20)], 1, (20, "stored", 10)),
    "an overlap within a block": (4, [(1, 10)], 1, (10, "stored", 4)),
    "a hole": (10, [(12, 20)], 1, (10, "stalled", 0)),
    "a hole at the start": (0, [(2, 20)], 1, (0, "stalled", 0)),
    "what is held begins later": (0, [(31, 40)], 31, (40, "stored", 0)),
    "what is held begins later, after some": (10, [(31, 40)], 31, (40, "stored", 0)),
    "held begins later, and the block later still": (10, [(41, 50)], 31, (30, "stalled", 0)),
    "held began later long ago": (60, [(61, 70)], 31, (70, "stored", 0)),
    "no blocks": (10, [], 11, (10, "empty", 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch(name: str) -> None:
    before, spans, low, (after, verdict, skip) = CASES[name]
    decision = accept({S: before} if before else {}, stream().batch(*spans, low=low))
    assert (decision.contiguous[S], decision.verdict, decision.skip) == (after, verdict, skip)


def test_what_is_held_no_more_and_was_never_seen_is_lost() -> None:
    decision = accept({S: 10}, stream().batch((31, 40), low=31))
    end_ms = stream().readings[30].wall_ms
    assert decision.gaps == (Hole(S, 11, 20, "lost", None, end_ms),)


def test_a_declared_gap_counts_as_received_and_keeps_its_span() -> None:
    gap = stream().gap(11, 30)
    decision = accept({S: 10}, stream().batch((31, 40), low=31, gaps=[gap]))
    assert decision.gaps == (Hole(S, 11, 20, "outbox-full", gap.from_ms, gap.to_ms),)
    assert (decision.contiguous[S], decision.verdict) == (40, "stored")


def test_of_a_gap_only_what_is_new_is_recorded() -> None:
    decision = accept({S: 25}, stream().batch((31, 40), low=31, gaps=[stream().gap(11, 30)]))
    assert [(hole.seq0, hole.count) for hole in decision.gaps] == [(26, 5)]
    assert accept({S: 40}, stream().batch(low=31, gaps=[stream().gap(11, 30)])).gaps == ()


def test_what_lies_between_two_gaps_and_is_not_held_is_lost() -> None:
    gaps = [stream().gap(21, 30), stream().gap(1, 10)]
    decision = accept({}, stream().batch((31, 40), low=31, gaps=gaps))
    assert [(hole.seq0, hole.count, hole.reason) for hole in decision.gaps] == [
        (1, 10, "outbox-full"),
        (11, 10, "lost"),
        (21, 10, "outbox-full"),
    ]


def test_a_gap_between_blocks_waits_for_the_blocks_before_it() -> None:
    """A disk that was full for a while leaves a gap behind readings that are still held."""
    gap = stream().gap(11, 20)
    early = accept({}, stream().batch((21, 30), gaps=[gap]))
    assert (early.contiguous[S], early.verdict, early.gaps) == (0, "stalled", ())
    after = accept({}, stream().batch((1, 10), gaps=[gap]))
    assert (after.contiguous[S], after.verdict) == (20, "stored")
    assert [(hole.seq0, hole.count) for hole in after.gaps] == [(11, 10)]


def test_readings_that_come_after_their_gap_are_passed_over() -> None:
    decision = accept({S: 20}, stream().batch((11, 30), low=21))
    assert (decision.contiguous[S], decision.skip) == (30, 10)


def test_every_stream_that_is_named_is_answered() -> None:
    batch = Batch(
        held={S: Held(1, 5), OTHER: Held(8, 8)},
        gaps=(Gap(OTHER, 1, 7, 0, 1),),
    )
    decision = accept({S: 4}, batch)
    assert decision.contiguous == {S: 4, OTHER: 7}
    assert [hole.stream for hole in decision.gaps] == [OTHER]


def test_a_batch_that_contradicts_itself() -> None:
    with pytest.raises(Refused, match="low 9 is beyond next 4"):
        accept({}, Batch(held={S: Held(9, 4)}))


SPANS = st.tuples(st.integers(1, 60), st.integers(0, 20)).map(
    lambda span: (span[0], min(span[0] + span[1], 60))
)
ARRIVALS = st.lists(st.tuples(SPANS, st.integers(1, 60), st.none() | SPANS), max_size=30)


@pytest.mark.soak
@given(ARRIVALS)
def test_each_reading_is_settled_once_whatever_arrives(
    arrivals: list[tuple[tuple[int, int], int, tuple[int, int] | None]],
) -> None:
    """Lost, repeated, late, overlapping, contradictory: never twice, never a hole, never back."""
    made = stream(60)
    settled: dict[str, int] = {}
    once: list[int] = []
    for span, low, gap in arrivals:
        batch = made.batch(span, low=low, gaps=[made.gap(*gap)] if gap else [])
        decision = accept(settled, batch)
        if decision.verdict == "stored":
            once += range(span[0] + decision.skip, span[1] + 1)
        for hole in decision.gaps:
            assert hole.count > 0
            once += range(hole.seq0, hole.seq0 + hole.count)
        assert decision.contiguous[S] >= settled.get(S, 0)
        settled |= decision.contiguous
        assert sorted(once) == list(range(1, settled[S] + 1))
