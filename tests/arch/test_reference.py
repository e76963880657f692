"""The documents say what the code does, about every key, command, operation and problem."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

from agent.checks import CHECKS
from hub.ledger.witness import HINTS
from support.source import ROOT

CODE = re.compile("[a-z]+(-[a-z]+)+")


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


def test_every_problem_that_the_hub_sees_is_in_the_operators_guide() -> None:
    source = ast.parse((ROOT / "hub" / "fleet" / "alerts.py").read_text())
    words = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    others = {"outbox-full", "disk-full"}  # why readings were lost, and what the store said
    codes = {word for word in words if isinstance(word, str) and CODE.fullmatch(word)} - others | {*HINTS}
    guide = (ROOT / "docs" / "operator.md").read_text().splitlines()
    named = {line.split("`")[1] for line in guide if line.startswith("| `")}
    known = {name for name in named if CODE.fullmatch(name)}
    assert codes == known, f"docs/operator.md lacks {codes - known}, and has {known - codes} for nothing"
