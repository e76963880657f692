"""What every test shares: how Hypothesis draws, and a folder with a short path.

Shared code lives in tests/support, fakes of the four edges in tests/fakes; both are imported
by name (`from support.lab import Lab`), never through fixtures that a reader has to hunt for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A run must not depend on luck: the same examples every time, and no deadline on a busy machine.
# `make soak` draws new ones, and many.
settings.register_profile(
    "test",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("soak", settings.get_profile("test"), derandomize=False, max_examples=2_000)
settings.load_profile("soak" if os.environ.get("LICHEN_SOAK") else "test")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder whose path leaves room for a Unix socket (107 bytes); pytest's does not."""
    with tempfile.TemporaryDirectory(prefix="lichen-") as name:
        yield Path(name)
