"""Every file of tests/vectors/compose; support/composing.py says how they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.composing import FOLDER, expectation, outcome, read_case

CASES = sorted(FOLDER.rglob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_recipe_becomes_what_the_file_says(path: Path) -> None:
    case = read_case(path)
    found, wanted = outcome(case), expectation(case)
    for name in sorted(found.keys() | wanted.keys()):
        came = found.get(name)
        shown = came if isinstance(came, str) else json.dumps(came, indent=2)
        assert came == wanted.get(name), f"{path.name}, section {name!r}; what came out:\n{shown}"


def test_every_file_is_a_case_with_a_sentence() -> None:
    assert len(CASES) > 100
    for path in CASES:
        first = path.read_text().partition("\n--- ")[0]
        assert first.strip(), f"{path}: say in its first line what it is about"
        assert read_case(path).expected, f"{path}: nothing is expected"
