"""Periods: every moment in exactly one month, and in exactly one day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Refused
from hub.ledger.period import DAY_MS, Period, month_of

moments = st.integers(-(10**13), 10**14)


@given(moments)
def test_a_moment_belongs_to_one_month(at_ms: int) -> None:
    month = Period.parse(month_of(at_ms))
    assert at_ms in month
    before, after = Period.parse(month_of(month.start_ms)), Period.parse(month_of(month.end_ms + 1))
    assert before.end_ms == month.start_ms
    assert after.start_ms == month.end_ms
    assert at_ms not in before
    assert at_ms not in after


def test_a_month_is_its_days() -> None:
    month = Period.parse("2024-02")
    days = [Period.parse(f"2024-02-{day:02}") for day in range(1, 30)]
    assert days[0].start_ms == month.start_ms
    assert days[-1].end_ms == month.end_ms
    assert all(day.end_ms - day.start_ms == DAY_MS for day in days)
    assert [day.end_ms for day in days[:-1]] == [day.start_ms for day in days[1:]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "2026-11-31",
        "2026-11-1",
        "26-11",
        "２０２６-11",
        "9999-12",
        "0000-01",
        "2026-11 ",
    ],
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is no period") as caught:
        Period.parse(text)
    assert "2026-11" in caught.value.hint
