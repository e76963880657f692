"""A look at a usage log from outside: beside the agent, of a torn log, of a pruned one; as files and back."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from agent.usage.ledger import Ledger
from agent.usage.peek import Peek, epochs, export, peek
from agent.wire.audit import audit
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.tiles import CHECKPOINT
from support.ledgers import DAY_MS, Bench, segments, whole


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "usage")


def look(bench: Bench, epoch: str = "") -> closing[Peek]:
    return closing(peek(bench.folder, epoch))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_running_log_is_looked_at_and_not_touched(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        await ledger.hub_size_known(0)
        note = await ledger.checkpoint()
        receipt = await bench.receive(ledger)
        before = files_of(bench.folder)
        with look(bench) as log:
            assert (log.origin, log.size, log.signed, log.held_from) == (ledger.origin, 4, 4, 0)
            assert [entry for _, entry in log.entries(0, 9)] == await whole(ledger)
            assert (log.checkpoint, log.receipt) == (note, receipt)
            found = audit(log.fetch, bench.log_key.verifier, bench.cosigner.verifier)
            assert (found.entries, found.receipt_size, found.receipt_at_s) == (4, 4, bench.wall_ms // 1000)
        assert files_of(bench.folder) == before


async def test_what_is_under_local_seals_is_shown_and_not_given_out(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
        with look(bench) as log:
            assert (log.size, log.signed, log.checkpoint) == (3, 0, "")
            assert log.fetch(CHECKPOINT) is None
            assert log.fetch("tile/entries/000.p/3") is None
            with pytest.raises(Refused, match="nothing is signed yet"):
                list(log.files())
        await ledger.hub_size_known(0)
        await ledger.checkpoint()
    async with bench.open() as ledger:
        await ledger.append(bench.records(4))
    with look(bench) as log:
        assert (log.size, log.signed) == (7, 3)
        assert audit(log.fetch, bench.log_key.verifier).entries == 3


async def test_an_export_verifies_and_a_changed_byte_is_found(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(300))
        await bench.receive(ledger)
        await ledger.append(bench.records(2))
    folder = tmp_path / "export"
    with look(bench) as log:
        assert (
            export(log, folder) == len(list(log.files())) == 7
        )  # 3 tiles, 2 bundles, checkpoint and receipt
    files = files_of(folder)
    found = audit(files.get, bench.log_key.verifier, bench.cosigner.verifier)
    assert (found.entries, found.checkpoint.size, found.receipt_size) == (303, 303, 301)
    assert set(files) > {"tile/0/000", "tile/0/001.p/47", "tile/1/000.p/1", "tile/entries/001.p/47"}
    for path in files:
        changed = bytearray(files[path])
        changed[len(changed) // 2] ^= 1
        with pytest.raises((Corrupt, Refused)):
            audit({**files, path: bytes(changed)}.get, bench.log_key.verifier, bench.cosigner.verifier)
    async with bench.open() as ledger:  # more, into the same folder
        await ledger.hub_size_known(303)
        await ledger.append(bench.records(300))
    with look(bench) as log:
        export(log, folder)
    assert audit(files_of(folder).get, bench.log_key.verifier).entries == 603


async def test_a_pruned_log_is_verified_by_its_hashes(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        for _ in range(3):
            await ledger.append(bench.records(300))
            bench.wait(7 * DAY_MS)
        await bench.receive(ledger)
        assert await ledger.prune(bench.wall_ms + 36 * DAY_MS) == 2
        held_from = ledger.held_from
        assert held_from == 601
        with look(bench) as log:
            export(log, tmp_path / "export")
            found = audit(log.fetch, bench.log_key.verifier, bench.cosigner.verifier)
            assert (found.entries, found.first_entry) == (300, held_from)
        files = files_of(tmp_path / "export")
        assert audit(files.get, bench.log_key.verifier).first_entry == held_from
        assert "tile/entries/001" not in files
        assert "tile/0/001" in files


async def test_a_torn_log_and_one_without_its_last_hashes_are_looked_at(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(5))
        bench.wait(8 * DAY_MS)
        await ledger.append(bench.records(5))
        hashes = bench.folder / ledger.epoch / "hashes"
    newest = segments(bench.folder)[-1]
    newest.write_bytes(newest.read_bytes() + bytes(99))
    sound = hashes.read_bytes()
    for left in (sound, sound[: 32 * 12], sound[: 32 * 3], sound[: 32 * 11] + bytes(300), b""):
        hashes.write_bytes(left)
        with look(bench) as log:
            assert audit(log.fetch, bench.log_key.verifier).entries == 11
        assert hashes.read_bytes() == left
    hashes.unlink()
    with look(bench) as log:
        assert audit(log.fetch, bench.log_key.verifier).entries == 11
    assert not hashes.exists()
    hashes.write_bytes(sound[:40] + b"x" + sound[41:])  # where it must be right
    with look(bench) as log, pytest.raises(Corrupt, match="tile/0/000"):
        audit(log.fetch, bench.log_key.verifier)


async def test_a_damaged_log_is_said_to_be(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(5))
    (path,) = segments(bench.folder)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=str(path)):
        peek(bench.folder)


async def test_older_epochs_can_be_looked_at(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
        old = ledger.epoch
        await ledger.new_epoch("another history", carry=2)
        new = ledger.epoch
    assert epochs(bench.folder) == sorted([old, new])
    with look(bench) as log:
        assert (log.origin.rpartition("/")[2], log.size) == (new, 2)
    with look(bench, old) as log:
        assert log.size == 3


def test_no_log_is_said_to_be_none(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="there is no usage log below"):
        peek(bench.folder)
    bench.folder.mkdir()
    with pytest.raises(ConfigError, match="there is no usage log below"):
        peek(bench.folder)
    with pytest.raises(ConfigError, match="there is no usage log aaaa below"):
        peek(bench.folder, "aaaa")


async def test_a_log_can_be_looked_at_while_it_is_written(bench: Bench) -> None:
    async def write(ledger: Ledger) -> None:
        for number in range(30):
            await ledger.append(bench.records(3))
            if number % 10 == 0:
                bench.wait(8 * DAY_MS)

    def look_again() -> int:
        with look(bench) as log:
            return audit(log.fetch, bench.log_key.verifier).entries

    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(1))
        seen = [0]
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(ledger), name="write")
            while not writing.done():
                seen.append(await asyncio.to_thread(look_again))
        assert seen == sorted(seen)
        assert await asyncio.to_thread(look_again) == ledger.size
