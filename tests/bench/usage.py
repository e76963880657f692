"""What the usage log costs whoever checks one: how fast records are hashed, read and proven.

On one core, in this process, with a log as a board exports it: ``RECORDS`` of them in files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agent.wire.audit import audit
from agent.wire.proofs import ProofFile
from agent.wire.usage import read
from bench.budget import Row
from support.logs import BOARD, LOG, WITNESS, UsageLog

RECORDS = 100_000
PROOFS = 1_000
ROUNDS = 3


async def measure(folder: Path) -> list[Row]:
    """Every row about the log; takes a minute."""
    log = UsageLog.of(RECORDS)
    _write(folder, log.export(receipt=RECORDS))
    return [_verify(folder), _read(log), _prove(log)]


def _verify(folder: Path) -> Row:
    def fetch(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    def check() -> None:
        found = audit(fetch, BOARD.verifier, WITNESS.verifier)
        assert (found.entries, found.receipt_size) == (RECORDS, RECORDS)

    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    note = (
        f"a whole log of {RECORDS:,} records from its files (of {size / RECORDS:.0f} bytes for each record):"
        " every hash, number, tile and signature; on one core"
    )
    return Row("usage: verify a log", RECORDS / _best_s(check), "records/s", 100_000, 500_000, "more", note)


def _read(log: UsageLog) -> Row:
    entries = [each for each in log.entries[:20_000] if each]

    def run() -> None:
        for each in entries:
            read(each)

    note = "each decoded and checked field by field, as the hub does with what comes in; on one core"
    return Row("usage: read records", len(entries) / _best_s(run), "records/s", 10_000, 50_000, "more", note)


def _prove(log: UsageLog) -> Row:
    texts = [log.proof(index * RECORDS // PROOFS).text() for index in range(PROOFS)]

    def run() -> None:
        for text in texts:
            ProofFile.parse(text).verify(None, LOG.verifier, [WITNESS.verifier])

    note = f"files of one proof each, out of {RECORDS:,} records: with both signatures"
    return Row("usage: verify a proof", _best_s(run) / PROOFS * 1000, "ms", 5, 1, note=note)


def _best_s(run: Callable[[], None]) -> float:
    """Seconds of processor time of the quickest round: others may be busy meanwhile."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return min(took)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
