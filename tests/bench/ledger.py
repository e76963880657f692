"""What the usage log costs the board that writes it: processor, bytes kept, and bytes written to the card.

A day is made up: three apps that use something in each period of 600 s, the hours of the board, ten sensors.
Its batches follow each other at once; what the kernel would have written between them is written then.
"""

from __future__ import annotations

import math
import os
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import Clock
from agent.usage.ledger import Ledger
from agent.wire.cosignature import Cosigner, add_signature, cosign
from agent.wire.note import generate
from agent.wire.usage import BoardRecord, ContainerRecord, Counters, Known, SensorRecord
from bench.budget import Row
from bench.card import card

BATCH = 256
BATCHES = 40
ROUNDS = 3
PERIOD_S = 600
DAY_S = 86_400
APPS = ("nextcloud", "gitea", "weather")
SENSORS = 10
KEPT_BYTES = 400_000
"""What a day of three apps may take."""


async def measure(folder: Path) -> list[Row]:
    """Every row about writing; takes a minute."""
    return [*await _append(folder / "append"), await _day(folder / "day"), await _card(folder)]


@dataclass
class Made:
    """A board whose records are as large as real ones, and its hub."""

    dice: random.Random = field(default_factory=lambda: random.Random(5))
    mono_ms: int = 400_000_000
    wall_ms: int = 1_764_000_000_000
    counters: dict[str, Counters] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.boot = f"{self.dice.getrandbits(128):032x}"
        self.images = {app: f"{self.dice.getrandbits(256):064x}" for app in APPS}
        self.log_key, self.hub = generate(), Cosigner("abcdefghijklmnop/receipt", bytes(32))
        self.clock = Clock(self.boot, lambda: self.mono_ms, lambda: self.wall_ms, lambda: "synced")

    def common(self, span_ms: int) -> dict[str, object]:
        """Boot, times and clock of a record that ends now."""
        return {
            "boot": self.boot,
            "mono0_ms": self.mono_ms - span_ms,
            "mono1_ms": self.mono_ms,
            "wall0_ms": self.wall_ms - span_ms,
            "wall1_ms": self.wall_ms,
            "clock": "synced",
        }

    def container(self, app: str) -> ContainerRecord:
        """What an app used in a period."""
        used = {name: self.dice.randrange(10**7) for name in ("cpu_us", "io_r", "io_w", "net_rx", "net_tx")}
        before = self.counters.get(app, Counters(*[self.dice.randrange(10**10) for _ in used]))
        counted = Counters(**{name: getattr(before, name) + more for name, more in used.items()})
        self.counters[app] = counted
        return ContainerRecord(
            **self.common(PERIOD_S * 1000),  # type: ignore[arg-type]
            order=17,
            payer="abcdefghijklmnop",
            workspace="default",
            app=app,
            service="app",
            image=f"docker.io/library/{app}@sha256:{self.images[app]}",
            container=f"{app}-app-1",
            run=f"{app}-app-1-k3v9x2",
            mem_byte_ms=self.dice.randrange(10**14),
            mem_sample_ms=30_000,
            mem_peak=self.dice.randrange(10**9),
            oom_kills=0,
            exit_code=None,
            abs=counted,
            **used,
        )

    def period(self, number: int) -> list[Known]:
        """What a period of a day leaves in the log."""
        self.mono_ms += PERIOD_S * 1000
        self.wall_ms += PERIOD_S * 1000
        records: list[Known] = [self.container(app) for app in APPS]
        if number % 6 == 0:
            offered = {"cpus": 4, "memory_bytes": 4 * 2**30, "disk_bytes": 32 * 10**9}
            records.append(BoardRecord(**self.common(3_600_000), **offered))  # type: ignore[arg-type]
        if number == 0:
            each = {"unit": "Cel", "readings": 8640, "day": self.wall_ms // (DAY_S * 1000)}
            records += [
                SensorRecord(**self.common(0), sensor=f"temperature-{sensor}", **each)  # type: ignore[arg-type]
                for sensor in range(SENSORS)
            ]
        return records

    async def receive(self, ledger: Ledger) -> None:
        """Let the hub have everything."""
        note = await ledger.checkpoint()
        receipt = add_signature(note, cosign(note, self.hub, self.wall_ms // 1000))
        await ledger.keep_receipt(receipt, self.hub.verifier)


async def _append(folder: Path) -> list[Row]:
    made = Made()
    records = [made.container(APPS[number % len(APPS)]) for number in range(BATCH)]
    wall, processor, four = [], [], []
    async with Ledger.open(folder, log_key=made.log_key, clock=made.clock) as ledger:
        await ledger.hub_size_known(0)
        for _ in range(ROUNDS):
            began, used = time.perf_counter(), time.process_time()
            for _ in range(BATCHES):
                await ledger.append(records)
            processor.append((time.process_time() - used) / BATCHES / BATCH)
            wall.append((time.perf_counter() - began) / BATCHES / BATCH)
        for _ in range(BATCHES):
            began = time.perf_counter()
            await ledger.append(records[:4])
            four.append(time.perf_counter() - began)
        # Each batch ended in a checkpoint: one signature.
        assert ledger.signed == ledger.size == 1 + ROUNDS * BATCHES * BATCH + BATCHES * 4
        size = ledger.size
    began, used = time.perf_counter(), time.process_time()
    async with Ledger.open(folder, log_key=made.log_key, clock=made.clock):
        opened, opened_s = (time.process_time() - used) / size, time.perf_counter() - began
    return [
        Row(
            "usage: append a record",
            min(processor) * 1e6,
            "us",
            40,
            note=f"processor time, in batches of {BATCH}: encoded, deflated, hashed, written, and sealed by a"
            f" signature a batch; with both waits for the disk {min(wall) * 1e6:.0f} us; best of {ROUNDS}",
        ),
        Row(
            "usage: append what a period leaves",
            sorted(four)[len(four) // 2] * 1000,
            "ms",
            note="four records, their seal and two waits for the disk; median of 40",
        ),
        Row(
            "usage: open a log",
            opened * 1e6,
            "us/record",
            note=f"each held record is read, hashed and held against the seals: {size:,} in {opened_s:.1f} s",
        ),
    ]


async def _day(folder: Path) -> Row:
    made = Made()
    async with Ledger.open(folder, log_key=made.log_key, clock=made.clock) as ledger:
        await ledger.hub_size_known(0)
        for number in range(DAY_S // PERIOD_S):
            await ledger.append(made.period(number))
            await made.receive(ledger)
        size = ledger.size - 1
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    note = (
        f"{size} records of apps, the board and {SENSORS} sensors, with a checkpoint a period and all hashes"
    )
    return Row("usage: kept for a day, three apps", kept / 1e6, "MB", KEPT_BYTES / 1e6, note=note)


async def _card(folder: Path) -> Row:
    what, unit = "usage: device sectors written, three apps", "MB/day"
    if os.geteuid() != 0:
        return Row(what, math.nan, unit, note="not measured: a loop device needs root")
    made, image, place = Made(), folder / "card", folder / "mounted"
    place.mkdir()
    with ExitStack() as mounted:
        disk = mounted.enter_context(card(image, place))
        async with Ledger.open(place / "usage", log_key=made.log_key, clock=made.clock) as ledger:
            await ledger.hub_size_known(0)
            before = disk.written_bytes()
            for number in range(DAY_S // PERIOD_S):
                await ledger.append(made.period(number))
                await made.receive(ledger)
                written = disk.written_bytes() - before
    note = (
        "a period after the other, each with its receipt; ext4 in a file, synced after each: journal and all"
    )
    return Row(what, written / 1e6, unit, note=note)
