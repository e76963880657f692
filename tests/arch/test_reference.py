"""docs/reference says what the code does, about every key, command and operation."""

from __future__ import annotations

import subprocess
import sys

from support.source import ROOT


def test_the_reference_is_what_the_code_says() -> None:
    """Fails, too, when a key of a configuration has no sentence below it."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
