"""The usage log on a real disk: what is appended, sealed, signed, received, adopted and pruned."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.usage.epochs import read_name
from agent.usage.ledger import Ledger
from agent.usage.segments import SEGMENT_ENTRIES
from agent.wire.cosignature import Cosigner, add_signature, cosign
from agent.wire.errors import Busy, Corrupt, Refused
from agent.wire.note import sign
from agent.wire.tlog import EMPTY_ROOT, Checkpoint, check_consistency, check_inclusion, leaf_hash
from agent.wire.usage import EpochRecord, OrderRecord, read
from support.ledgers import DAY_MS, Bench, Full, numbers, root_of, segments, whole


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "usage")


@pytest.mark.parametrize("name", ["agent.usage.frames"])
def test_examples_are_right(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted
    assert results.failed == 0


# --- appending ---------------------------------------------------------------------------------


async def test_the_first_record_of_a_log_says_why_it_began(bench: Bench) -> None:
    async with bench.open() as ledger:
        assert ledger.committed.is_set()
        assert ledger.origin == f"{bench.log_key.name}/usage/{ledger.epoch}"
        assert read_name(bench.folder) == ledger.epoch
        (entry,) = await whole(ledger)
    record = read(entry)
    assert isinstance(record, EpochRecord)
    assert (record.seq, record.previous, record.boot) == (0, "", bench.boot)


async def test_what_is_appended_comes_back_numbered_and_in_order(bench: Bench) -> None:
    async with bench.open() as ledger:
        ledger.committed.clear()
        assert await ledger.append(bench.records(3)) == (1, 4)
        assert ledger.committed.is_set()
        assert await ledger.append([bench.board_record()]) == (4, 5)
        assert await ledger.append([]) == (5, 5)
        entries = await whole(ledger)
        assert [read(entry).seq for entry in entries] == [0, 1, 2, 3, 4]
        assert numbers(entries) == [1, 2, 3]
        assert await ledger.root() == root_of(entries)
        assert await ledger.entries(1, 2) == entries[1:3]
        assert await ledger.entries(5, 10) == []
    async with bench.open() as ledger:
        assert await whole(ledger) == entries
        assert await ledger.root() == root_of(entries)


async def test_a_year_of_batches_can_be_read_from_anywhere(bench: Bench) -> None:
    async with bench.open() as ledger:
        for _ in range(21):
            await ledger.append(bench.records(200))
        assert len(segments(bench.folder)) == 2  # by the number of entries
        bench.wait(8 * DAY_MS)
        await ledger.append(bench.records(3))
        bench.wall_ms -= 400 * DAY_MS  # a clock that jumps back
        await ledger.append(bench.records(3))
        assert len(segments(bench.folder)) == 3
        entries = await whole(ledger)
        for start in (0, 1, 63, 64, 65, SEGMENT_ENTRIES - 1, SEGMENT_ENTRIES, 4199, 4206):
            assert await ledger.entries(start, 70) == entries[start : start + 70]
            assert await ledger.leaf_hashes(start, 1) == [leaf_hash(entries[start])]
            assert await ledger.root(start) == root_of(entries[:start])
        assert numbers(entries) == list(range(1, 4207))
    async with bench.open() as ledger:
        assert await whole(ledger) == entries
        assert await ledger.root(4097) == root_of(entries[:4097])
        assert await ledger.entries(4100, 3) == entries[4100:4103]


async def test_a_record_that_is_too_large_takes_its_batch_with_it(bench: Bench) -> None:
    def order(size: int) -> OrderRecord:
        common = {name: getattr(bench.board_record(), name) for name in ("boot", "mono0_ms", "mono1_ms")}
        walls = {"wall0_ms": 0, "wall1_ms": 0, "clock": "unsynced"}
        return OrderRecord(
            **common, **walls, generation=1, sha256="0" * 64, accepted=False, reason="x" * size
        )

    async with bench.open() as ledger:
        await ledger.append([order(0)])
        room = 65_535 - len((await ledger.entries(1, 1))[0])
        with pytest.raises(Refused, match="65536 bytes") as refused:
            await ledger.append([bench.record(), order(room + 1)])
        assert refused.value.code == "too-large"
        assert ledger.size == 2
        assert await ledger.append([order(room)]) == (2, 3)
        assert len((await ledger.entries(2, 1))[0]) == 65_535
        entries = await whole(ledger)
    async with bench.open() as ledger:
        assert await whole(ledger) == entries


async def test_only_one_process_writes_a_log(bench: Bench) -> None:
    async with bench.open():
        with pytest.raises(Busy, match="is running"):
            async with bench.open():
                pass


async def test_the_last_record_of_each_run_is_found_at_the_next_start(bench: Bench) -> None:
    async with bench.open() as ledger:
        assert ledger.last == {}
        await ledger.append([bench.record("a"), bench.record("b"), bench.record("c")])
        await ledger.append([bench.record("a"), bench.record("b", ended=True)])
        await ledger.append([bench.record('unended "quotes", "run":"no"')])
    async with bench.open() as ledger:
        assert {run: record.cpu_us for run, record in ledger.last.items()} == {
            "c": 3,
            "a": 4,
            "b": 5,  # what ended in it, a next start of the container goes on with
            'unended "quotes", "run":"no"': 6,
        }
        assert ledger.last["a"].abs.cpu_us == 1_000_004


async def test_a_reboot_without_a_shutdown_leaves_two_boots_and_no_time_between(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
    bench.boot, bench.mono_ms, bench.wall_ms, bench.clock_state = "c" * 32, 10, 0, "unsynced"
    async with bench.open() as ledger:
        await ledger.append(bench.records(1))
        found = [read(entry) for entry in (await whole(ledger))[1:]]
    assert [record.boot[0] for record in found] == ["b", "b", "c"]
    assert found[-1].mono0_ms == 10


async def test_a_caller_that_is_cancelled_still_has_appended(bench: Bench) -> None:
    async with bench.open() as ledger:
        task = asyncio.ensure_future(ledger.append(bench.records(2)))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await ledger.append(bench.records(1)) == (3, 4)


# --- a disk that refuses -----------------------------------------------------------------------


async def test_a_batch_that_has_no_room_is_not_in_the_log_and_the_next_one_is(bench: Bench) -> None:
    disk = Full()
    async with bench.open(disk) as ledger:
        await ledger.append(bench.records(2))
        before = await whole(ledger), await ledger.root()
        for room in range(4):
            disk.room = room
            with pytest.raises(Refused) as refused:
                await ledger.append(bench.records(2))
            assert refused.value.code == "disk-full"
            assert (await whole(ledger), await ledger.root()) == before
        disk.room = None
        await ledger.append(bench.records(1))
        entries = await whole(ledger)
    assert numbers(entries) == [1, 2, 11]
    async with bench.open() as ledger:
        assert await whole(ledger) == entries


async def test_a_segment_that_has_no_room_is_begun_when_there_is(bench: Bench) -> None:
    disk = Full()
    async with bench.open(disk) as ledger:
        await ledger.append(bench.records(2))
        bench.wait(8 * DAY_MS)
        for room in range(5):
            disk.room = room
            with pytest.raises(Refused):
                await ledger.append(bench.records(1))
            assert numbers(await whole(ledger)) == [1, 2]
        bench.wall_ms -= 8 * DAY_MS  # no reason any more to begin one, but it was begun
        disk.room = None
        await ledger.append(bench.records(1))
        entries = await whole(ledger)
        assert len(segments(bench.folder)) == 2
    async with bench.open() as ledger:
        assert await whole(ledger) == entries


async def test_a_start_on_a_full_disk_is_refused_and_can_be_tried_again(bench: Bench) -> None:
    disk = Full()
    disk.room = 3
    with pytest.raises(Refused) as refused:
        async with bench.open(disk):
            pass
    assert refused.value.code == "disk-full"
    async with bench.open() as ledger:
        assert ledger.size == 1


# --- what is signed ----------------------------------------------------------------------------


async def test_nothing_is_signed_before_the_hub_is_known(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
        with pytest.raises(Refused) as refused:
            await ledger.checkpoint()
        assert refused.value.code == "hub-unknown"
        assert ledger.signed == 0
        assert b"/usage/" not in b"".join(
            line for line in segments(bench.folder)[0].read_bytes().split(b"\n") if line.startswith(b"\xe2")
        )
        await ledger.hub_size_known(0)
        assert ledger.signed == 0
        checkpoint = bench.opened(await ledger.checkpoint(), ledger.origin)
        assert checkpoint == Checkpoint(ledger.origin, 3, await ledger.root())
        assert ledger.signed == 3
        await ledger.append(bench.records(1))
        assert ledger.signed == 4  # each seal is a checkpoint now
    async with bench.open() as ledger:
        assert (ledger.signed, ledger.state.hub_known) == (4, False)
        await ledger.append(bench.records(1))
        assert (ledger.signed, ledger.size) == (4, 5)


async def test_a_checkpoint_of_any_size_and_proofs_between_them(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(40))
        await ledger.hub_size_known(0)
        entries = await whole(ledger)
        for size in (1, 2, 7, 8, 40, 41):
            checkpoint = bench.opened(await ledger.checkpoint(size), ledger.origin)
            assert checkpoint.root == root_of(entries[:size]) == await ledger.root(size)
            proof = await ledger.consistency_proof(size, 41)
            check_consistency(size, 41, proof, checkpoint.root, await ledger.root())
            for index in (0, size // 2, size - 1):
                proof = await ledger.inclusion_proof(index, size)
                check_inclusion(leaf_hash(entries[index]), index, size, proof, checkpoint.root)
        assert await ledger.root(0) == EMPTY_ROOT
        assert await ledger.leaf_hashes(3, 5) == list(map(leaf_hash, entries[3:8]))
        assert await ledger.read_hash(0, 40) == leaf_hash(entries[40])
        for refused in (
            ledger.root(42),
            ledger.checkpoint(42),
            ledger.read_hash(5, 1),
            ledger.leaf_hashes(40, 2),
        ):
            with pytest.raises(Refused):
                await refused


async def test_a_receipt_is_kept_when_all_of_it_is_right(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        await ledger.hub_size_known(0)
        note = await ledger.checkpoint(3)
        assert (ledger.cosigned,) == (None,)
        key = bench.cosigner.verifier
        assert await ledger.keep_receipt(bench.cosigned(note, 5_000), key)
        assert ledger.cosigned == (3, 5_000)
        assert not await ledger.keep_receipt(bench.cosigned(note, 9_000), key)  # the first one proves more
        stranger = Cosigner("hub/receipt", bytes(32))
        with pytest.raises(Corrupt, match="cosigned"):
            await ledger.keep_receipt(add_signature(note, cosign(note, stranger, 5)), key)
        with pytest.raises(Corrupt):
            await ledger.keep_receipt(bench.cosigned(note.replace("\n3\n", "\n2\n")), key)
        forged = Checkpoint(ledger.origin, 2, bytes(32)).text()
        own = replace(bench.log_key, name=ledger.origin)
        with pytest.raises(Corrupt, match="another root"):
            await ledger.keep_receipt(bench.cosigned(sign(forged, own)), key)
        with pytest.raises(Refused) as refused:
            await ledger.keep_receipt(
                bench.cosigned(sign(Checkpoint(ledger.origin, 9, bytes(32)).text(), own)), key
            )
        assert refused.value.code == "behind"
        assert ledger.cosigned == (3, 5_000)
    async with bench.open() as ledger:
        assert ledger.cosigned == (3, 5_000)
        await ledger.hub_size_known(ledger.size)
        await ledger.keep_receipt(bench.cosigned(await ledger.checkpoint(), 8_000), key)
        assert ledger.cosigned == (4, 8_000)


async def test_a_receipt_that_a_power_cut_took_is_no_reason_to_stop(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await bench.receive(ledger)
        path = bench.folder / ledger.epoch / "receipt"
    for left in (b"", bytes(300), b"\xff\xff", path.read_bytes()[:-9]):
        path.write_bytes(left)
        async with bench.open() as ledger:
            assert (ledger.cosigned,) == (None,)


# --- a card that was set back ------------------------------------------------------------------


async def test_a_restored_card_gets_its_records_back_and_keeps_those_it_wrote(
    bench: Bench, tmp_path: Path
) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(5))
        await ledger.hub_size_known(0)
        await bench.receive(ledger)
    shutil.copytree(bench.folder, tmp_path / "copy")
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))  # under a local seal when it was copied, signed later
        await ledger.hub_size_known(6)
        for _ in range(3):
            await ledger.append(bench.records(4))
        hub = await whole(ledger)
        receipt = await bench.receive(ledger)

    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    bench.boot = "c" * 32
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        with pytest.raises(Refused) as refused:
            await ledger.hub_size_known(len(hub))
        assert refused.value.code == "behind"
        with pytest.raises(Refused):
            await ledger.keep_receipt(receipt, bench.cosigner.verifier)
        await ledger.adopt(6, hub[6:10], receipt)
        assert ledger.state.aside
        await ledger.append(bench.records(1))  # the meter does not wait
        await ledger.adopt(10, hub[10:], receipt)
        assert await ledger.keep_receipt(receipt, bench.cosigner.verifier)
        await ledger.hub_size_known(len(hub))
        assert await whole(ledger) == hub
        assert await ledger.settle() == 4
        assert await ledger.settle() == 0
        assert [ledger.state.aside] == [False]
        entries = await whole(ledger)
        assert entries[: len(hub)] == hub
        assert numbers(entries[len(hub) :]) == [20, 21, 22, 23]
        assert [read(entry).seq for entry in entries] == list(range(len(entries)))
        assert ledger.signed == ledger.size
    async with bench.open() as ledger:
        assert await whole(ledger) == entries


async def test_what_was_adopted_is_not_appended_again(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(5))  # local
    shutil.copytree(bench.folder, tmp_path / "copy")
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(1))
        hub, receipt = await whole(ledger), await bench.receive(ledger)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    async with bench.open() as ledger:
        await ledger.append([bench.record()])
        await ledger.adopt(0, hub, receipt)
        await ledger.hub_size_known(len(hub))
        assert await ledger.settle() == 1
        assert numbers(await whole(ledger)) == [1, 2, 3, 4, 5, 6, 7]


async def test_entries_that_nobody_holds_come_back_as_their_hashes(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        shutil.copytree(bench.folder, tmp_path / "copy")
        await ledger.append(bench.records(6))
        hub, receipt = await whole(ledger), await bench.receive(ledger)
        root = await ledger.root()
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    async with bench.open() as ledger:
        await ledger.adopt(1, hub[4:], receipt, lost=list(map(leaf_hash, hub[1:4])))
        assert await ledger.root() == root
    async with bench.open() as ledger:
        assert await ledger.root() == root
        assert await ledger.entries(0, 9) == hub[:1]
        assert await ledger.entries(4, 9) == hub[4:]
        assert await ledger.leaf_hashes(1, 3) == list(map(leaf_hash, hub[1:4]))
        with pytest.raises(Refused) as refused:
            await ledger.entries(2, 3)
        assert refused.value.code == "not-held"


async def test_nothing_that_was_signed_gives_way(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        await ledger.hub_size_known(0)
        note = await ledger.checkpoint()
        entries = await whole(ledger)
        with pytest.raises(Corrupt, match="signed"):
            await ledger.adopt(2, entries[2:], note)
        with pytest.raises(Corrupt, match="another root"):
            await ledger.adopt(3, [entries[3].replace(b"demo", b"deno")], note)
        with pytest.raises(Corrupt, match="numbered"):
            await ledger.adopt(4, [entries[1]], _larger(ledger, bench))
        with pytest.raises(Refused):
            await ledger.adopt(4, [entries[3]], note)
        assert await whole(ledger) == entries


def _larger(ledger: Ledger, bench: Bench) -> str:
    own = replace(bench.log_key, name=ledger.origin)
    return sign(Checkpoint(ledger.origin, 99, bytes(32)).text(), own)


# --- epochs ------------------------------------------------------------------------------------


async def test_a_new_epoch_names_the_old_one_and_takes_along_what_nobody_has(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(4))
        await ledger.hub_size_known(0)
        note = await ledger.checkpoint()
        old = ledger.origin
        await ledger.append(bench.records(2))
        await ledger.new_epoch("the hub holds another history", note, carry=3)
        assert ledger.origin != old
        assert (ledger.signed, ledger.state.hub_known) == (0, False)
        entries = await whole(ledger)
        first = read(entries[0])
        assert isinstance(first, EpochRecord)
        assert (first.reason, first.previous) == ("the hub holds another history", note)
        assert numbers(entries) == [3, 4, 5, 6]
        assert [read(entry).seq for entry in entries] == [0, 1, 2, 3, 4]
        assert await ledger.append(bench.records(1)) == (5, 6)
    async with bench.open() as ledger:
        assert (await whole(ledger))[:5] == entries
        await ledger.new_epoch("again")
        assert ledger.size == 1


async def test_what_lies_aside_goes_along_into_a_new_epoch(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        shutil.copytree(bench.folder, tmp_path / "copy")
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(2))
        hub, receipt = await whole(ledger), await bench.receive(ledger)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
        await ledger.adopt(1, hub[1:2], receipt)
        await ledger.new_epoch("the hub lost the rest", receipt)
        assert numbers(await whole(ledger)) == [3, 4]


async def test_a_new_epoch_without_room_leaves_the_old_one(bench: Bench) -> None:
    disk = Full()
    async with bench.open(disk) as ledger:
        await ledger.append(bench.records(4))
        old, entries = ledger.origin, await whole(ledger)
        for room in range(8):
            disk.room = room
            with pytest.raises(Refused):
                await ledger.new_epoch("no room", carry=0)
            disk.room = None
            assert (ledger.origin, await whole(ledger)) == (old, entries)
        disk.room = 8  # all but for the name of the folder
        with pytest.raises(Refused):
            await ledger.new_epoch("room", carry=0)
        disk.room = None
        assert numbers(await whole(ledger)) == [1, 2, 3, 4]
        assert {path.name for path in bench.folder.iterdir() if path.is_dir()} == {
            old.rpartition("/")[2],
            ledger.epoch,
        }


async def test_a_log_that_was_moved_away_is_followed_by_one_that_says_so(bench: Bench) -> None:
    async with bench.open() as ledger:
        old = ledger.epoch
    (bench.folder / old).rename(bench.folder.parent / "for-study")
    async with bench.open() as ledger:
        record = read((await whole(ledger))[0])
        assert isinstance(record, EpochRecord)
        assert old in record.reason
    (bench.folder / "epoch").unlink()
    with pytest.raises(Corrupt, match="epoch is missing"):
        async with bench.open():
            pass
    (bench.folder / "epoch").write_text(ledger.epoch)  # as the hint says
    async with bench.open() as again:
        assert again.origin == ledger.origin


# --- pruning -----------------------------------------------------------------------------------


async def test_segments_go_35_days_after_the_hub_had_them_and_proofs_stay(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        for _ in range(4):
            await ledger.append(bench.records(30))
            bench.wait(7 * DAY_MS)
        entries = await whole(ledger)
        assert len(segments(bench.folder)) == 4
        assert await ledger.prune(bench.wall_ms + 900 * DAY_MS) == 0  # the hub has nothing yet
        note = await ledger.checkpoint(61)
        await ledger.keep_receipt(bench.cosigned(note, bench.wall_ms), bench.cosigner.verifier)
        received_ms = bench.wall_ms
        assert await ledger.prune(received_ms + 35 * DAY_MS - 1) == 0
        assert await ledger.prune(received_ms + 35 * DAY_MS) == 2
        assert (ledger.held_from, ledger.size) == (61, 121)
        bench.wait(DAY_MS)
        await bench.receive(ledger)
        assert await ledger.prune(received_ms + 35 * DAY_MS) == 0  # the third has been there for less
    async with bench.open() as ledger:
        assert ledger.held_from == 61
        assert await ledger.root() == root_of(entries)
        for index in (0, 30, 60, 61, 120):
            proof = await ledger.inclusion_proof(index, 121)
            check_inclusion(leaf_hash(entries[index]), index, 121, proof, root_of(entries))
        check_consistency(
            17, 121, await ledger.consistency_proof(17, 121), root_of(entries[:17]), root_of(entries)
        )
        with pytest.raises(Refused) as refused:
            await ledger.entries(60, 5)
        assert refused.value.code == "not-held"
        assert await ledger.entries(61, 500) == entries[61:]
        await ledger.append(bench.records(1))
        # The newest stays, however old it is.
        await ledger.hub_size_known(122)
        await bench.receive(ledger)
        assert await ledger.prune(bench.wall_ms + 99 * DAY_MS) == 2
        assert ledger.held_from == 121
    assert len(list(bench.folder.glob("*/*.receipt"))) == 4


async def test_what_is_left_of_older_epochs_goes_by_the_same_rule(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        await ledger.hub_size_known(0)
        await bench.receive(ledger)
        await ledger.new_epoch("again")
        assert await ledger.prune(bench.wall_ms + 34 * DAY_MS) == 0
        assert await ledger.prune(bench.wall_ms + 35 * DAY_MS) == 1
        assert await ledger.prune(bench.wall_ms + 99 * DAY_MS) == 0
        assert ledger.size == 1
