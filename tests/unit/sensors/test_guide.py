"""docs/sensors.md names every key, kind and unit, and shows the example driver as it is."""

from __future__ import annotations

import dataclasses

import pytest

from agent.sensors.driver import KINDS, SensorConfig
from agent.wire import words
from support.source import ROOT

GUIDE = (ROOT / "docs/sensors.md").read_text()
EXAMPLE = ROOT / "tests/packages/lichen_psi"


def test_every_key_kind_and_unit_is_named() -> None:
    keys = [field.name for field in dataclasses.fields(SensorConfig)]
    for word in (*keys, *KINDS, *filter(None, words.UNITS)):
        assert f"`{word}`" in GUIDE, f"docs/sensors.md does not name {word!r}"


@pytest.mark.parametrize("file", ["pyproject.toml", "lichen_psi.py"])
def test_the_driver_that_is_shown_is_the_one_that_is_tested(file: str) -> None:
    assert f"\n{(EXAMPLE / file).read_text()}```\n" in GUIDE
