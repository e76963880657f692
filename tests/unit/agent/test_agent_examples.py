"""The examples in the docstrings of the agent's own modules are right."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["agent.outbox", "agent.window"])
def test_examples_are_right(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert results.failed == 0, f"python -m doctest says what is wrong in {name}"
