"""What a start makes of what it finds: torn ends, changed bytes, files that are short, old or missing."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.usage.frames import HEADER, SEAL, Disk, Frame, Frames, frame
from agent.usage.recovery import recover
from agent.usage.segments import Segment
from agent.wire.errors import Corrupt
from support.ledgers import DAY_MS, Bench, numbers, root_of, segments, whole


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "usage")


async def written(bench: Bench, *batches: int) -> list[bytes]:
    """A log with batches of so many records; all its entries."""
    async with bench.open() as ledger:
        for count in batches:
            await ledger.append(bench.records(count))
        return await whole(ledger)


async def found(bench: Bench) -> list[bytes]:
    """The entries that the next start finds; it can go on."""
    async with bench.open() as ledger:
        entries = await whole(ledger)
        assert await ledger.root() == root_of(entries)
        await ledger.append(bench.records(1))
        assert (await whole(ledger))[:-1] == entries
    return entries


def frames_of(path: Path) -> Iterator[Frame]:
    return iter(Frames(path))


def places_of(size: int) -> list[int]:
    """Every byte in `make soak`, a seeded tenth of them else."""
    if os.environ.get("LICHEN_SOAK"):
        return list(range(size))
    return sorted(random.Random(os.environ.get("LICHEN_SEED", "5")).sample(range(size), size // 10))


def last_seal(path: Path) -> Frame:
    return [each for each in frames_of(path) if each.kind == SEAL][-1]


@pytest.mark.slow
async def test_a_log_that_is_cut_off_at_any_byte_of_its_last_batch_has_what_was_before(bench: Bench) -> None:
    entries = await written(bench, 2, 2)
    (path,) = segments(bench.folder)
    whole_file = path.read_bytes()
    before = [each for each in frames_of(path) if each.kind == SEAL][-2].end
    ends = [each.end for each in frames_of(path)]
    for end in range(before, len(whole_file)):
        path.write_bytes(whole_file[:end])
        held = sum(each <= end for each in ends[:-1]) - 3  # without the header and two seals before it
        there = recover([path], Segment.origin_of(path), lambda *_: None)
        assert there.tree.root() == root_of(entries[:held])
        assert there.torn_bytes == end - max(each for each in ends if each <= end)
        if end % 149 == 0 or end in ends:
            assert await found(bench) == entries[:held]


async def test_a_log_that_ends_in_what_was_never_written_has_what_was_before(bench: Bench) -> None:
    entries = await written(bench, 2, 2)
    (path,) = segments(bench.folder)
    whole_file = path.read_bytes()
    dice = random.Random(5)
    for left in (bytes(1), bytes(9), bytes(4096), dice.randbytes(700), b"\xff" * 50, frame(SEAL, b"x")[:-1]):
        path.write_bytes(whole_file + left)
        assert await found(bench) == entries


@pytest.mark.soak
async def test_a_changed_byte_before_the_last_seal_is_found_and_placed(bench: Bench) -> None:
    """Of the last seal itself nothing depends: what it seals is sound, and sealed again."""
    entries = await written(bench, 2, 1)
    (path,) = segments(bench.folder)
    whole_file = path.read_bytes()
    seal, origin = last_seal(path), Segment.origin_of(path)
    places = [(each.at, each.end) for each in frames_of(path)]
    for at in places_of(seal.end):
        changed = bytearray(whole_file)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        if at >= seal.at:
            there = recover([path], origin, lambda *_: None)
            assert (there.tree.root(), there.torn_bytes) == (root_of(entries), seal.end - seal.at)
            continue
        begin = next(begin for begin, end in places if begin <= at < end)
        with pytest.raises(Corrupt, match=rf"{path} is damaged at byte {begin}\b") as corrupt:
            recover([path], origin, lambda *_: None)
        assert corrupt.value.hint
        assert path.read_bytes() == changed  # nothing is repaired
    path.write_bytes(b"h" + whole_file[1:])
    with pytest.raises(Corrupt, match=f"{path} is damaged at byte 0"):
        async with bench.open():
            pass


@pytest.mark.soak
async def test_a_changed_byte_in_a_closed_segment_is_found_and_placed(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        bench.wait(7 * DAY_MS)
        await ledger.append(bench.records(3))
    closed, newest = segments(bench.folder)
    whole_file = closed.read_bytes()
    for at in places_of(len(whole_file)):
        changed = bytearray(whole_file)
        changed[at] ^= 0x20
        closed.write_bytes(changed)
        with pytest.raises(Corrupt, match=rf"{closed} is damaged at byte"):
            async with bench.open():
                pass
    for end in (0, 1, 200, len(whole_file) - 1):
        closed.write_bytes(whole_file[:end])
        with pytest.raises(Corrupt, match=rf"{closed}|{newest} does not go on"):
            async with bench.open():
                pass


async def test_an_entry_that_is_changed_while_the_agent_runs_is_not_given_out(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.append(bench.records(3))
        (path,) = segments(bench.folder)
        second = list(frames_of(path))[3]
        data = bytearray(path.read_bytes())
        data[second.at + 20] ^= 1
        path.write_bytes(data)
        with pytest.raises(Corrupt, match=f"byte {second.at}, where entry 1 of the log"):
            await ledger.entries(1, 3)


async def test_a_seal_over_other_entries_is_found(bench: Bench) -> None:
    """Frames that are sound each, and do not belong together."""
    await written(bench, 2, 2)
    (path,) = segments(bench.folder)
    pieces = [frame(each.kind, each.payload) for each in frames_of(path)]
    # H E S E E S E E S: without an entry, two exchanged, an entry twice, a second header, another seal
    for order, reason in (
        ((0, 1, 2, 4, 5), "it is entry 2"),
        ((0, 1, 2, 4, 3, 5), "it is entry 2"),
        ((0, 1, 2, 3, 3, 4, 5), "it is entry 1"),
        ((0, 1, 2, 0, 3, 4, 5), "second header"),
        ((0, 1, 2, 3, 5), "does not have the root"),
        ((0, 1, 2, 3, 4, 8), "does not have the root"),
        ((1, 2), "does not begin with a header"),
    ):
        path.write_bytes(b"".join(pieces[number] for number in order))
        with pytest.raises(Corrupt, match=reason):
            async with bench.open():
                pass


async def test_the_log_of_another_board_is_not_gone_on_with(bench: Bench, tmp_path: Path) -> None:
    await written(bench, 2)
    stranger = Bench(tmp_path / "stranger")
    stranger.log_key = type(bench.log_key)("a" * 16, bytes(32))
    shutil.copytree(bench.folder, stranger.folder)
    with pytest.raises(Corrupt, match="is of the log"):
        async with stranger.open():
            pass
    stranger.log_key = type(bench.log_key)(bench.log_key.name, bytes(32))
    with pytest.raises(Corrupt, match="not by this board"):
        async with stranger.open():
            pass


async def test_a_segment_that_is_missing_between_two_is_found(bench: Bench) -> None:
    async with bench.open() as ledger:
        for _ in range(3):
            await ledger.append(bench.records(3))
            bench.wait(7 * DAY_MS)
    first, middle, last = segments(bench.folder)
    middle.rename(middle.with_suffix(".away"))
    with pytest.raises(Corrupt, match=f"{last} does not go on where {first.name} ends, at entry 4"):
        async with bench.open():
            pass
    middle.with_suffix(".away").rename(middle)
    last.rename(last.with_name("0000000000000009.seg"))
    with pytest.raises(Corrupt, match="named otherwise"):
        async with bench.open():
            pass


async def test_an_old_copy_is_a_log_like_any_other(bench: Bench, tmp_path: Path) -> None:
    entries = await written(bench, 3)
    shutil.copytree(bench.folder, tmp_path / "copy")
    await written(bench, 3)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    assert await found(bench) == entries


async def test_an_old_copy_beside_a_newer_receipt_signs_nothing_below_it(bench: Bench) -> None:
    entries = await written(bench, 2)
    (path,) = segments(bench.folder)
    old = path.read_bytes()
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(2))
        await bench.receive(ledger)
    path.write_bytes(old)
    async with bench.open() as ledger:
        assert await whole(ledger) == entries
        assert ledger.cosigned == (5, bench.wall_ms)
        assert ledger.signed == 0
        with pytest.raises(Exception, match="holds 5 entries"):
            await ledger.hub_size_known(3)


async def test_a_receipt_over_another_history_is_found(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        await ledger.append(bench.records(1))
        await bench.receive(ledger)
        receipt = (bench.folder / ledger.epoch / "receipt").read_text()
    (path,) = segments(bench.folder)
    seal = list(frames_of(path))[2]
    path.write_bytes(path.read_bytes()[: seal.end])
    async with bench.open() as ledger:
        await ledger.append(bench.records(1))
    (path.parent / "receipt").write_text(receipt)
    with pytest.raises(Corrupt, match="another root"):
        async with bench.open():
            pass


# --- hashes ------------------------------------------------------------------------------------


async def test_hashes_that_are_missing_are_made_anew_from_the_entries(bench: Bench) -> None:
    async with bench.open() as ledger:
        for _ in range(3):
            await ledger.append(bench.records(5))
            bench.wait(7 * DAY_MS)
        entries = await whole(ledger)
        path = bench.folder / ledger.epoch / "hashes"
    hashes = path.read_bytes()
    for left in (b"", hashes[:33], hashes[: len(hashes) // 2], hashes[:-31]):
        path.write_bytes(left)
        async with bench.open() as ledger:
            assert await ledger.root(7) == root_of(entries[:7])
        assert path.read_bytes() == hashes
    path.unlink()
    async with bench.open() as ledger:
        assert await ledger.root(7) == root_of(entries[:7])


async def test_a_changed_hash_is_found_unless_a_power_cut_may_have_left_it(bench: Bench) -> None:
    async with bench.open() as ledger:
        for _ in range(2):
            await ledger.append(bench.records(5))
            bench.wait(7 * DAY_MS)
        path = bench.folder / ledger.epoch / "hashes"
    hashes, durable = path.read_bytes(), 32 * (2 * 6 - 2)
    for at in range(0, len(hashes), 11):
        changed = bytearray(hashes)
        changed[at] ^= 1
        path.write_bytes(changed)
        if at < durable:
            with pytest.raises(Corrupt, match=f"{path} is damaged at byte {at}: hash {at // 32} "):
                async with bench.open():
                    pass
        else:
            async with bench.open():
                pass
            assert path.read_bytes() == hashes


async def test_a_changed_hash_of_pruned_entries_is_never_signed(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        for _ in range(3):
            await ledger.append(bench.records(5))
            bench.wait(7 * DAY_MS)
        await bench.receive(ledger)
        await ledger.prune(bench.wall_ms + 36 * DAY_MS)
        assert ledger.held_from == 11
        path = bench.folder / ledger.epoch / "hashes"
    hashes = path.read_bytes()
    for at in range(0, 32 * (2 * 11 - 3), 32):
        changed = bytearray(hashes)
        changed[at + 3] ^= 1
        path.write_bytes(changed)
        with pytest.raises(Corrupt, match=f"{path} is damaged"):
            await _all_proofs(bench)
    path.write_bytes(hashes[:300])
    with pytest.raises(Corrupt, match="hashes"):
        async with bench.open():
            pass


async def _all_proofs(bench: Bench) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(ledger.size)
        for index in range(11):
            await ledger.checkpoint(index + 1)
            await ledger.inclusion_proof(index, 16)


# --- the name of the epoch, and what lies aside -------------------------------------------------


async def test_a_changed_byte_in_the_name_of_the_epoch_is_found(bench: Bench) -> None:
    await written(bench, 1)
    path = bench.folder / "epoch"
    name = path.read_bytes()
    for at in range(len(name)):
        changed = bytearray(name)
        changed[at] ^= 1
        path.write_bytes(changed)
        if bytes(changed).split() == name.split():
            continue
        with pytest.raises(Corrupt, match=f"{path} is damaged"):
            async with bench.open():
                pass


async def test_a_changed_byte_in_what_lies_aside_is_found_or_harmless(bench: Bench, tmp_path: Path) -> None:
    async with bench.open() as ledger:
        await ledger.hub_size_known(0)
        shutil.copytree(bench.folder, tmp_path / "copy")
        await ledger.append(bench.records(2))
        hub, receipt = await whole(ledger), await bench.receive(ledger)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "copy", bench.folder)
    async with bench.open() as ledger:
        await ledger.append(bench.records(2))
        await ledger.adopt(1, hub[1:], receipt)
        path = bench.folder / ledger.epoch / "aside"
    shutil.rmtree(tmp_path / "copy")
    shutil.copytree(bench.folder, tmp_path / "copy")
    aside, last = path.read_bytes(), last_seal(path)
    assert next(frames_of(path)).kind == HEADER
    for at in range(0, len(aside), 5):
        shutil.rmtree(bench.folder)
        shutil.copytree(tmp_path / "copy", bench.folder)
        changed = bytearray(aside)
        changed[at] ^= 4
        path.write_bytes(changed)

        async def settled() -> list[int]:
            async with bench.open() as ledger:
                await ledger.settle()
                return numbers(await whole(ledger))

        if at >= last.at:
            assert await settled() == [1, 2, 3, 4]
            continue
        with pytest.raises(Corrupt, match=str(path)):
            await settled()
        assert path.read_bytes() == changed


async def test_a_card_that_cannot_be_read_is_said_to_fail(bench: Bench) -> None:
    await written(bench, 1)
    (path,) = segments(bench.folder)
    path.unlink()
    path.mkdir()  # the kernel refuses to read it, as it does a bad block
    with pytest.raises(Corrupt) as corrupt:
        async with bench.open():
            pass
    assert corrupt.value.code == "disk-failing"
    assert str(path) in str(corrupt.value)


def test_a_disk_writes_all_of_it(tmp_path: Path) -> None:
    disk = Disk()
    file = disk.open(tmp_path / "file")
    disk.write(file, b"abc", 0)
    disk.write(file, b"d", 5)
    disk.cut(file, 6)
    disk.sync(file)
    assert (tmp_path / "file").read_bytes() == b"abc\0\0d"
    disk.remove(tmp_path / "file")
    disk.remove(tmp_path / "file")
