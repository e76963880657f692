"""A usage log lives through all that there is, in a process that may be killed at any change of the disk.

    python ledgerlife.py FOLDER LIFE STEP

plays LIFE on the log in FOLDER and dies at that step; with 0 at none, and prints how many there are.  Each
line is JSON, and was true when it was printed: records that are in the log, notes that were signed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from agent.usage.ledger import Ledger
from support.ledgers import DAY_MS, Bench, Killing, whole


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def append(bench: Bench, ledger: Ledger, count: int) -> None:
    records = bench.records(count)
    await ledger.append(records)
    say(records=[record.cpu_us for record in records])


async def alone(bench: Bench, disk: Killing) -> None:
    """From the first start on: two rolls, receipts, pruning, a restart, another epoch."""
    async with bench.open(disk) as ledger:
        await append(bench, ledger, 3)
        await ledger.hub_size_known(0)
        say(origin=ledger.origin, note=await ledger.checkpoint(2))
        await append(bench, ledger, 1)
        for _ in range(2):
            bench.wait(8 * DAY_MS)
            await append(bench, ledger, 2)
        say(origin=ledger.origin, note=await bench.receive(ledger))
        bench.wait(36 * DAY_MS)
        await ledger.prune(bench.wall_ms)
        await append(bench, ledger, 1)
    bench.boot = "c" * 32
    async with bench.open(disk) as ledger:
        await append(bench, ledger, 2)
        say(origin=ledger.origin, note=await ledger.checkpoint(ledger.signed))
        await ledger.new_epoch(
            "the hub holds another history", carry=ledger.cosigned[0] if ledger.cosigned else 0
        )
        await append(bench, ledger, 1)
        await ledger.hub_size_known(0)
        say(origin=ledger.origin, note=await ledger.checkpoint())


async def restored(bench: Bench, disk: Killing) -> None:
    """A card that was set back: the hub's entries and its receipt are in files beside the folder."""
    bench.made = 100
    bench.boot = "c" * 32
    hub, receipt = held_by_hub(bench.folder.parent)
    async with bench.open(disk) as ledger:
        await append(bench, ledger, 2)
        bench.wait(8 * DAY_MS)
        await append(bench, ledger, 2)  # in a segment of their own
        await fetch(bench, ledger, hub, receipt)
        await append(bench, ledger, 1)
        say(origin=ledger.origin, note=await ledger.checkpoint())


async def fetch(bench: Bench, ledger: Ledger, hub: list[bytes], receipt: str) -> None:
    """What a sync does when the hub is ahead, two entries at a time."""
    start = min(ledger.size, max(ledger.signed, 3))
    while start < len(hub):
        await ledger.adopt(start, hub[start : start + 2], receipt)
        start += 2
        if bench.made < 200:
            await append(bench, ledger, 1)
    await ledger.keep_receipt(receipt, bench.cosigner.verifier)
    await ledger.hub_size_known(len(hub))
    await ledger.settle()


def held_by_hub(folder: Path) -> tuple[list[bytes], str]:
    return (folder / "entries").read_bytes().splitlines(), (folder / "receipt").read_text()


async def prepare(bench: Bench, folder: Path) -> None:
    """Let ``folder`` hold an old copy of a log, and beside it what the hub has."""
    async with bench.open() as ledger:
        await append_quietly(bench, ledger, 2)
        await ledger.hub_size_known(0)
        await bench.receive(ledger)
    async with bench.open() as ledger:
        await append_quietly(bench, ledger, 2)  # under a local seal in the copy
    copy(bench.folder, folder)
    async with bench.open() as ledger:
        await ledger.hub_size_known(3)
        await append_quietly(bench, ledger, 4)
        receipt = await bench.receive(ledger)
        (folder.parent / "entries").write_bytes(b"\n".join(await whole(ledger)))
        (folder.parent / "receipt").write_text(receipt)


async def append_quietly(bench: Bench, ledger: Ledger, count: int) -> None:
    await ledger.append(bench.records(count))


def copy(folder: Path, other: Path) -> None:
    for path in folder.rglob("*"):
        place = other / path.relative_to(folder)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


LIVES = {"alone": alone, "restored": restored}


def main() -> None:
    folder, life, step = sys.argv[1:]
    disk = Killing(int(step))
    asyncio.run(LIVES[life](Bench(Path(folder)), disk))
    say(steps=disk.steps)


if __name__ == "__main__":
    main()
