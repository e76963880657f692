"""When something was used: clocks that were right, became right, jumped, or never were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.ledger.times import Span, Stamp, Times, boots_of

HOUR_MS = 3_600_000
T0 = 1_795_000_000_000
YEAR_MS = 365 * 24 * HOUR_MS


def stamp(
    seq: int, boot: str, mono_ms: int, wall_ms: int, clock: str = "synced", length_ms: int = HOUR_MS
) -> Stamp:
    return Stamp(seq, boot, mono_ms - length_ms, mono_ms, wall_ms, clock)  # type: ignore[arg-type]


def spans(*stamps: Stamp) -> list[Span]:
    times = Times(boots_of(stamps))
    return [times.span(each) for each in stamps]


def ends(*stamps: Stamp) -> list[tuple[int, bool]]:
    return [(span.to_ms, span.is_certain) for span in spans(*stamps)]


def test_a_trusted_clock_is_believed() -> None:
    assert spans(stamp(0, "a", 2 * HOUR_MS, T0)) == [Span(T0 - HOUR_MS, T0, True)]
    assert spans(stamp(0, "a", 2 * HOUR_MS, T0, "hub"))[0].is_certain


def test_what_was_before_the_clock_was_set_gets_its_time() -> None:
    """A board that starts in 1970 and hears of the time after two hours."""
    assert ends(
        stamp(0, "a", HOUR_MS, HOUR_MS, "unsynced"),
        stamp(1, "a", 2 * HOUR_MS, 2 * HOUR_MS, "unsynced"),
        stamp(2, "a", 3 * HOUR_MS, T0 + 3 * HOUR_MS),
    ) == [(T0 + HOUR_MS, True), (T0 + 2 * HOUR_MS, True), (T0 + 3 * HOUR_MS, True)]


def test_a_boot_keeps_its_time_when_the_clock_is_no_longer_trusted() -> None:
    """The wall clock may be set to anything then; the clock of the boot goes on."""
    assert ends(
        stamp(0, "a", HOUR_MS, T0 + HOUR_MS),
        stamp(1, "a", 2 * HOUR_MS, T0 + YEAR_MS, "unsynced"),
        stamp(2, "a", 3 * HOUR_MS, 5, "unsynced"),
    ) == [(T0 + HOUR_MS, True), (T0 + 2 * HOUR_MS, True), (T0 + 3 * HOUR_MS, True)]


def test_the_first_trusted_record_of_a_boot_counts() -> None:
    """Whatever comes later: what was once found stays so."""
    early = stamp(0, "a", HOUR_MS, 5, "unsynced")
    first = stamp(1, "a", 2 * HOUR_MS, T0 + 2 * HOUR_MS)
    jumped = stamp(2, "a", 3 * HOUR_MS, T0 + YEAR_MS)
    assert ends(early, first)[0] == ends(early, first, jumped)[0] == (T0 + HOUR_MS, True)


def test_a_boot_that_never_knew_is_uncertain_and_counts_for_the_time_before() -> None:
    found = ends(
        stamp(0, "a", HOUR_MS, T0),
        stamp(1, "a", 2 * HOUR_MS, T0 + HOUR_MS),
        stamp(2, "b", HOUR_MS, 5, "unsynced"),
        stamp(3, "b", 2 * HOUR_MS, 6, "unsynced"),
        stamp(4, "c", HOUR_MS, T0 + YEAR_MS),
    )
    assert found[2:4] == [(T0 + HOUR_MS, False)] * 2


def test_boots_that_lie_within_each_other_have_a_time_all_the_same() -> None:
    """No board writes such a log; somebody else may."""
    found = ends(
        stamp(0, "a", HOUR_MS, T0),
        stamp(1, "b", HOUR_MS, 5, "unsynced"),
        stamp(2, "a", 2 * HOUR_MS, T0 + HOUR_MS),
    )
    assert found[1] == (T0, False)


def test_a_log_that_begins_without_time_counts_for_the_first_that_is_known() -> None:
    assert ends(
        stamp(0, "a", HOUR_MS, 5, "unsynced"),
        stamp(1, "b", HOUR_MS, T0),
        stamp(2, "c", HOUR_MS, T0 + YEAR_MS),
    )[0] == (T0, False)


def test_a_log_without_any_time_has_what_the_clock_said() -> None:
    assert ends(stamp(0, "a", HOUR_MS, 5, "unsynced")) == [(5, False)]


def test_a_clock_that_is_set_makes_nothing_longer() -> None:
    """Ten minutes by the clock of the boot, a year by the wall."""
    [span] = spans(stamp(0, "a", HOUR_MS, T0 + YEAR_MS, length_ms=600_000))
    assert span.to_ms - span.from_ms == 600_000


# --- any log ---------------------------------------------------------------------------------------

logs = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["synced", "hub", "unsynced"]), st.integers(0, 2**45)),
    max_size=12,
)


@given(logs, st.integers(0, 12))
def test_what_was_certain_stays_as_it_was(rows: list[tuple[str, str, int]], cut: int) -> None:
    """However the log goes on: a record with a time keeps it, one without may get one."""
    stamps = [stamp(seq, boot, seq * HOUR_MS, wall, clock) for seq, (boot, clock, wall) in enumerate(rows)]
    before, after = spans(*stamps[:cut]), spans(*stamps)
    for one, other in zip(before, after, strict=False):
        assert not one.is_certain or one == other


@given(logs)
def test_the_order_of_asking_does_not_matter(rows: list[tuple[str, str, int]]) -> None:
    stamps = [stamp(seq, boot, seq * HOUR_MS, wall, clock) for seq, (boot, clock, wall) in enumerate(rows)]
    times = Times(boots_of(stamps))
    forward = {each.seq: times.span(each) for each in stamps}
    assert forward == {each.seq: Times(boots_of(stamps)).span(each) for each in reversed(stamps)}
