"""The documents say what the code does, about every key, command, operation and problem."""

from __future__ import annotations

import subprocess
import sys

from agent.checks import CHECKS
from support.source import ROOT


def test_the_reference_is_what_the_code_says() -> None:
    """Fails, too, when a key of a configuration has no sentence below it."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_problem_is_in_the_technicians_guide() -> None:
    """With what it means and what to do, word for word as the board says it."""
    guide = (ROOT / "docs" / "technician.md").read_text().splitlines()
    rows = [f"| `{check.code}` | {check.meaning} | {check.hint} |" for check in CHECKS]
    missing = [row for row in rows if row not in guide]
    assert not missing, "\n".join(["docs/technician.md lacks, or says otherwise:", *missing])
    codes = {row.split("`")[1] for row in rows}
    known = {line.split("`")[1] for line in guide if line.startswith("| `")}
    assert known <= codes, f"docs/technician.md knows problems that no check finds: {known - codes}"
