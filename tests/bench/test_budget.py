"""The table, the verdicts and the meters, without running a benchmark."""

from __future__ import annotations

import doctest
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import budget, meter, packets
from bench.budget import Row, page, read, table, write


@pytest.mark.parametrize("module", [budget, packets])
def test_examples_are_right(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a", 33.0, "MB", 33, 28), "ok"),
        (Row("a", 33.1, "MB", 33, 28), "MISSED"),
        (Row("a", 28.0, "MB", 33, 28), "aim"),
        (Row("a", 2000, "/s", 2000, 10_000, "more"), "ok"),
        (Row("a", 1999, "/s", 2000, 10_000, "more"), "MISSED"),
        (Row("a", 10_000, "/s", 2000, 10_000, "more"), "aim"),
        (Row("a", 0, "", 0), "ok"),
        (Row("a", 7, ""), ""),
        (Row("a", math.nan, "s", 1.0), "MISSED"),
    ],
)
def test_a_budget_is_kept_or_missed(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_the_table_and_the_file_say_the_same(tmp_path: Path) -> None:
    rows = [Row("first", 1234.5, "MB", 2000, note="why"), Row("second", math.nan, "s", 1)]
    rows[0] = replace(rows[0], aim=1000)
    lines = table(rows).splitlines()
    assert lines[2].split() == ["first", "1,234", "MB", "2,000", "1,000", "23", "%", "over", "ok"]
    assert lines[3].split() == ["second", "none", "s", "1", "MISSED"]
    assert lines[-1] == "- first: why"
    write({"agent": rows}, tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [row["value"] for row in written["rows"]] == [1234.5, None]
    assert [row["from_aim"] for row in written["rows"]] == ["23 % over", ""]
    assert written["machine"]["cores"] == os.cpu_count()
    shown = page(rows).splitlines()
    assert "| first | 1,234 MB | 2,000 | 1,000 | 23 % over | ok |" in shown
    assert "| second | none s | 1 |  |  | MISSED |" in shown
    assert "- first: why" in shown


def test_parts_that_were_measured_before_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert read(file) == {}
    parts = {"agent": [Row("first", 7.0, "/s", 5, 9, "more", "why")], "hub": [Row("second", 1.0, "s")]}
    write(parts, file)
    assert read(file) == parts
    write({"agent": [Row("first", math.nan, "s")]}, file)
    assert math.isnan(read(file)["agent"][0].value)


@pytest.mark.parametrize(
    ("row", "distance"),
    [
        (Row("a", 28.0, "MB", 33, 28), "reached"),
        (Row("a", 35, "MB", 33, 28), "25 % over"),
        (Row("a", 7500, "/s", 2000, 10_000, "more"), "25 % short"),
        (Row("a", 12_000, "/s", 2000, 10_000, "more"), "reached"),
        (Row("a", 7, "", 8), ""),
        (Row("a", math.nan, "", 8, 7), ""),
    ],
)
def test_the_way_to_the_aim_is_told(row: Row, distance: str) -> None:
    assert row.distance == distance


def test_a_process_is_measured() -> None:
    pid = os.getpid()
    before = meter.cpu_s(pid)
    ended = time.process_time() + 0.05
    while time.process_time() < ended:
        pass
    assert 0.04 < meter.cpu_s(pid) - before < 5
    assert 10 < meter.rss_mb(pid) < 10_000
    assert meter.wake_ups(pid) >= 0
