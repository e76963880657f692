"""Sets of leaf indexes as text: there and back, and one way to write each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Refused
from hub.ledger.leaves import MAX_LEAVES, read, write

indexes = st.sets(st.integers(0, 500) | st.integers(0, 2**50), max_size=80)


@given(indexes)
def test_what_was_written_is_read(found: set[int]) -> None:
    assert read(write(found)) == sorted(found)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([0, 1], "0-1"),
        ([0, 2], "0,2"),
        ([0, 2, 4], "0-4/2"),
        ([0, 1, 2, 3, 5, 7, 9], "0-3,5-9/2"),
        ([1, 4, 7, 8, 9, 10], "1-7/3,8-10"),
    ],
)
def test_how_it_looks(found: list[int], text: str) -> None:
    assert write(found) == text
    assert read(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "1,0",
        "0,1",
        "1-1",
        "3-1",
        "0-4/1",
        "0-5/2",
        "0-2/2",
        "00",
        "-1",
        "1-",
        "1,",
        ",1",
        "1 ,2",
        "1,1",
        "٣",
        "0-1,2",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        read(text)


def test_more_than_a_log_can_have_is_not_even_counted_out() -> None:
    with pytest.raises(Refused, match="over"):
        read(f"0-{MAX_LEAVES}")
    with pytest.raises(Refused, match="over"):
        read("0-9999999999999999")
