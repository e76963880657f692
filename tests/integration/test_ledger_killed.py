"""A process with a usage log is killed at each change of the disk, or in the middle of one; nothing is lost.

`make test` takes a seeded tenth of the moments, `make soak` every one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.usage.ledger import Ledger
from agent.usage.peek import epochs, peek
from support import ledgerlife
from support.ledgers import Bench, numbers, root_of, whole

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1800)]


async def lived(folder: Path, life: str, step: int) -> list[dict[str, Any]]:
    """What a life said until it was killed at ``step``, or ended."""
    command = (sys.executable, ledgerlife.__file__, str(folder), life, str(step))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, told = await process.communicate()
    assert process.returncode == (-9 if step else 0), told.decode()
    return [json.loads(line) for line in out.splitlines()]


def moments(steps: int) -> list[int]:
    """Every step in `make soak`, a seeded tenth of them else."""
    everything = range(1, steps + 1)
    if os.environ.get("LICHEN_SOAK"):
        return list(everything)
    dice = random.Random(int(os.environ.get("LICHEN_SEED", "5")) * 1000 + steps)
    return sorted(dice.sample(everything, steps // 10))


async def checked(bench: Bench, ledger: Ledger, said: list[dict[str, Any]]) -> None:
    """All that was said is true still, each record is there once, and the log goes on."""
    entries = await whole(ledger)
    found, is_pruned = Counter(numbers(entries)), ledger.held_from > 0
    for epoch in epochs(bench.folder):
        if epoch != ledger.epoch:
            old = peek(bench.folder, epoch)
            is_pruned |= old.held_from > 0
            found |= Counter(numbers([entry for _, entry in old.entries(0, old.size)]))
            old.close()
    assert max(found.values(), default=1) == 1
    for each in said:
        if "records" in each:
            held = {number for number in each["records"] if not is_pruned or number >= min(found)}
            assert found.keys() >= held
        if "note" in each:
            checkpoint = bench.opened(each["note"], each["origin"])
            assert checkpoint.root == await root_in(bench, ledger, each["origin"], checkpoint.size)
    bench.made = 900
    await ledger.append(bench.records(1))
    if not ledger.held_from:
        assert await ledger.root() == root_of(await whole(ledger))


async def root_in(bench: Bench, ledger: Ledger, origin: str, size: int) -> bytes:
    if origin == ledger.origin:
        return await ledger.root(size)
    old = peek(bench.folder, origin.rpartition("/")[2])
    try:
        return old.holdings.root_at(size)
    finally:
        old.close()


async def test_a_log_whose_process_is_killed_at_any_step_has_all_that_it_said(tmp_path: Path) -> None:
    unharmed = await lived(tmp_path / "unharmed" / "usage", "alone", 0)
    for step in moments(unharmed[-1]["steps"]):
        bench = Bench(tmp_path / f"{step}" / "usage")
        said = await lived(bench.folder, "alone", step)
        async with bench.open() as ledger:
            await checked(bench, ledger, said)


async def test_a_restored_log_whose_process_is_killed_at_any_step_has_it_all_in_the_end(
    tmp_path: Path,
) -> None:
    await ledgerlife.prepare(Bench(tmp_path / "board" / "usage"), tmp_path / "prepared" / "usage")
    hub, receipt = ledgerlife.held_by_hub(tmp_path / "prepared")
    ledgerlife.copy(tmp_path / "prepared", tmp_path / "unharmed")
    unharmed = await lived(tmp_path / "unharmed" / "usage", "restored", 0)
    for step in moments(unharmed[-1]["steps"]):
        ledgerlife.copy(tmp_path / "prepared", tmp_path / f"{step}")
        bench = Bench(tmp_path / f"{step}" / "usage")
        said = await lived(bench.folder, "restored", step)
        bench.made = 200
        async with bench.open() as ledger:
            await ledgerlife.fetch(bench, ledger, hub, receipt)
            assert (await whole(ledger))[: len(hub)] == hub
            await checked(bench, ledger, said)
