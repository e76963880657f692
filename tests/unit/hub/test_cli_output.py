"""What `lichen` prints as JSON, whatever boards and containers say."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.cli.output import json_text, print_json


@given(st.text())
@example("\x1b]0;x\x07 \x9b2J \u202e\u2066 \u2028 \U000e0001 °C 木\n")
def test_json_is_the_same_and_gives_no_orders_to_a_terminal(text: str) -> None:
    for line in (True, False):
        written = json_text({"text": text}, line=line)
        assert json.loads(written) == {"text": text}
        assert all(letter.isprintable() for letter in written.replace("" if line else "\n", ""))
    assert "\n" not in json_text({"text": text}, line=True)


def test_letters_are_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": "°C 木"}, line=True)
    print_json([])
    assert capsys.readouterr().out == '{"text": "°C 木"}\n[]\n'
