"""Figures and states in words: the Python side of the vectors that the browser is held to as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.wire import words
from hub.cli.output import print_table
from hub.web import state
from hub.web.state import Seen

VECTORS = Path(__file__).parents[2] / "vectors"
FORMAT: list[dict[str, Any]] = json.loads((VECTORS / "words.json").read_text())
STATE: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "state.json").read_text())


@pytest.mark.parametrize("vector", FORMAT, ids=lambda vector: f"{vector['fn']}{vector['args']}")
def test_figures_read_as_the_vectors_say(vector: dict[str, Any]) -> None:
    # The vectors are written with plain spaces, so that people can read them.
    assert getattr(words, vector["fn"])(*vector["args"]).replace(words.SPACE, " ") == vector["text"]


def test_each_unit_has_a_vector_by_which_the_browser_is_held() -> None:
    shown = {vector["args"][1] for vector in FORMAT if vector["fn"] == "value"}
    assert words.UNITS.keys() <= shown


@pytest.mark.parametrize("vector", STATE["judge"], ids=lambda vector: vector["sentence"])
def test_states_are_judged_as_the_vectors_say(vector: dict[str, Any]) -> None:
    judgement = state.judge(Seen(**vector["seen"]), vector["now_ms"])
    assert judgement.state == vector["state"]
    assert judgement.sentence.replace(words.SPACE, " ") == vector["sentence"]


@pytest.mark.parametrize("vector", STATE["stale"])
def test_values_grow_stale_as_the_vectors_say(vector: dict[str, Any]) -> None:
    assert state.is_stale(vector["at_ms"], vector["interval_ms"], vector["now_ms"]) is vector["stale"]


def test_the_worst_problem_speaks_and_a_notice_asks_nobody() -> None:
    assert state.worst([("notice", "an update is there")]) == ""
    assert state.worst([("warn", "disk nearly full"), ("fail", "no clock"), ("fail", "later")]) == "no clock"


@given(
    some.floats(allow_nan=False, allow_infinity=False), some.sampled_from(["%", "By", "Cel", "1", "V", "s"])
)
def test_any_number_can_be_shown(value: float, unit: str) -> None:
    text = words.value(value, unit)
    assert text
    assert not text.startswith("-0" + words.SPACE)


@given(some.integers(-(2**60), 2**60))
def test_any_time_can_be_shown(at_ms: int) -> None:
    assert words.iso(at_ms).endswith("Z")
    assert words.utc(at_ms).endswith("UTC")


def test_what_boards_say_gives_no_orders_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("sensor", "error"), [("room", "no answer\x1b]0;owned\x07\x1b[2J")])
    told = capsys.readouterr().out
    assert "no answer" in told
    assert all(line.isprintable() for line in told.splitlines())
