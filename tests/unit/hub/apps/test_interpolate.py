"""The grammar of variables, form by form, and what is refused."""

from __future__ import annotations

import pytest

from agent.wire.errors import Refused
from hub.apps.interpolate import MAX_CHARACTERS, interpolate

ENV = {"A": "1", "EMPTY": "", "_x9": "y", "DOLLAR": "$A"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain {text} }", "plain {text} }"),
        ("$A", "1"),
        ("${A}", "1"),
        ("a${A}b$A-c", "a1b1-c"),
        ("$_x9${_x9}", "yy"),
        ("$$A $${A} $$$A", "$A ${A} $1"),
        ("$NONE.${NONE}", "."),
        ("${DOLLAR}", "$A"),
        ("${A:-d}${A-d}", "11"),
        ("${NONE:-d}${NONE-e}", "de"),
        ("${EMPTY:-d}${EMPTY-e}", "d"),
        ("${NONE:-}${NONE-}", ""),
        ("${A:+d}${A+e}", "de"),
        ("${NONE:+d}${NONE+e}", ""),
        ("${EMPTY:+d}${EMPTY+e}", "e"),
        ("${A:?m}${A?m}${EMPTY?m}", "11"),
        ("${NONE:-${EMPTY:-${A}}}", "1"),
        ("${NONE:-a $A b}", "a 1 b"),
        ("${NONE:-$$A}", "$A"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-http://x/?a=b}", "http://x/?a=b"),
        ("${A:-${MUST:?not asked for}}", "1"),
        ("${A:+${A:+${A:+x}}}", "x"),
        # As in compose, a brace of its own ends the variable.
        ('${NONE:-{"a": 1}', '{"a": 1'),
        ("${NONE:-a\nb}", "a\nb"),
    ],
)
def test_a_text_with_variables(text: str, value: str) -> None:
    assert interpolate(text, ENV) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$", "no name follows the '$' in '$'"),
        ("$1", "no name follows the '$' in '$1'"),
        ("a $-b", "no name follows the '$' in '$-b'"),
        ("${}", "'${}' names no variable"),
        ("${1}", "'${1}' names no variable"),
        ("${A", "no '}' ends '${A'"),
        ("${NONE:-${A}", "no '}' ends '${NONE:-${A}'"),
        ("${A B}", "'${A B}' has ' ' after its name"),
        ("${A:}", "'${A:}' has ':' after its name"),
        ("${A!x}", "'${A!x}' has '!' after its name"),
        ("${NONE:?}", "NONE must be set"),
        ("${NONE?}", "NONE must be set"),
        ("${NONE:?give $A}", "NONE must be set: give 1"),
        ("${EMPTY:?is empty}", "EMPTY must be set: is empty"),
        ("${NONE:-${NONE:?inner}}", "NONE must be set: inner"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        interpolate(text, ENV)
    assert str(caught.value) == reason
    assert caught.value.hint


def test_variables_that_are_missing_are_told() -> None:
    told: list[str] = []
    interpolate("$A ${A:-x} ${B:-x} $C ${B:-$D} ${B+$E}", ENV, unset=told.append)
    assert told == ["C", "D"]


def test_it_ends() -> None:
    deep = "${N:-" * 100 + "x" + "}" * 100
    with pytest.raises(Refused, match="more than 16 deep"):
        interpolate(deep, {})
    with pytest.raises(Refused, match="longer than"):
        interpolate("$A" * 1_000, {"A": "x" * (MAX_CHARACTERS // 100)})
    assert interpolate("${A}" * 50_000, {"A": ""}) == ""
