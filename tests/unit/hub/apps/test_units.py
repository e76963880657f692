"""Durations, sizes, numbers and modes, as compose writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hub.apps import units

Read = Callable[[str], float]

GOOD: list[tuple[Read, str, float]] = [
    (units.duration_ms, "0", 0), (units.duration_ms, "30s", 30_000), (units.duration_ms, "1m30s", 90_000),
    (units.duration_ms, "1h1m1s1ms", 3_661_001), (units.duration_ms, "1.5h", 5_400_000),
    (units.duration_ms, "300us", 1), (units.duration_ms, "100ns", 1), (units.duration_ms, "0.1s", 100),
    (units.duration_ms, "2d", 172_800_000), (units.duration_ms, "1w", 604_800_000),
    (units.size_bytes, "1", 1), (units.size_bytes, "64b", 64), (units.size_bytes, "64k", 65_536),
    (units.size_bytes, "64kb", 65_536), (units.size_bytes, "64KiB", 65_536),
    (units.size_bytes, "1.5g", 1_610_612_736),
    (units.size_bytes, "2 GB", 2 * 2**30), (units.size_bytes, "1T", 2**40), (units.size_bytes, "0", 0),
    (units.whole, "12", 12), (units.whole, "-1", -1), (units.whole, "+5", 5), (units.whole, "0x10", 16),
    (units.whole, "010", 8), (units.whole, "0o10", 8), (units.whole, "0b101", 5),
    (units.whole, "1_000", 1000),
    (units.number, "0.5", 0.5), (units.number, "-1e3", -1000.0), (units.number, ".25", 0.25),
    (units.mode, "0440", 0o440), (units.mode, "440", 0o440), (units.mode, "0o440", 0o440),
    (units.mode, "1777", 0o1777), (units.mode, "01777", 0o1777),
]  # fmt: skip

BAD: list[tuple[Read, tuple[str, ...]]] = [
    (units.duration_ms, ("", "30", "s", "1x", "1s 2s", "-1s", "1s2", ".s")),
    (units.size_bytes, ("", "m", "1x", "-1", "1.2.3", "1mm", "k1")),
    (units.whole, ("", "x", "1.5", "0x", "1e3", "08", "9" * 30, "--1")),
    (units.number, ("", "x", "1e999", "nan", "inf", "1.2.3")),
    (units.mode, ("", "9", "0888", "12345", "rwx", "-440")),
]


@pytest.mark.parametrize(("read", "text", "value"), GOOD)
def test_what_is_understood(read: Read, text: str, value: float) -> None:
    assert read(text) == value


@pytest.mark.parametrize(("read", "text"), [(read, text) for read, texts in BAD for text in texts])
def test_what_is_not(read: Read, text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        read(text)
