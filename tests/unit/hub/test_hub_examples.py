"""The examples in the hub's docstrings are right."""

from __future__ import annotations

import doctest
import importlib

import pytest

from support.source import modules

SHOWING = [module.name for module in modules("hub") if ">>> " in module.text]


@pytest.mark.parametrize("name", SHOWING)
def test_examples_are_right(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0, f"python -m doctest says what is wrong in {name}"
