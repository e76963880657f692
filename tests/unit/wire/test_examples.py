"""The examples in the docstrings are right: each module of the contract and of the base is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import agent.base
import agent.wire

PACKAGES = (agent.wire, agent.base)
MODULES = [
    info.name
    for package in PACKAGES
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]
WIRE = [name for name in MODULES if name.startswith("agent.wire.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0, f"python -m doctest says what is wrong in {name}"


@pytest.mark.parametrize("name", WIRE)
def test_every_module_of_the_contract_shows_an_example(name: str) -> None:
    docstring = importlib.import_module(name).__doc__ or ""
    assert doctest.DocTestParser().get_examples(docstring), (
        f"{name} is its own specification: show an example"
    )
