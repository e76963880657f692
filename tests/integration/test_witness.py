"""The witness: what it takes in, what it refuses, what it says of it, and what it keeps as evidence."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import delete

from agent.wire.errors import Corrupt, Refused
from agent.wire.note import generate
from agent.wire.package import Package, encode_package
from agent.wire.tlog import check_inclusion, consistency_proof, leaf_hash
from agent.wire.usage import MAX_ENTRY
from hub.access.keys import Keyring
from hub.fleet.latest import Latest
from hub.ledger.hearing import DAY_MS, EPOCH_BYTES, SAVED_DAYS
from hub.ledger.trees import Tree
from hub.ledger.witness import LATE_MS, MOST_OF_ONE
from hub.store import boards, events, ledgers, usage
from hub.store.boards import PresenceChange
from hub.store.database import Store
from hub.store.usage_schema import usage_tiles
from support.blank import new_store
from support.boardlog import HOUR_MS, WALL_MS, BoardLog, began, changed, delivered, hole, offered, used
from support.ingest import new_alerts
from support.witnessing import WitnessStand, at_work, new_witness

KEYS = Keyring.generate()


@pytest_asyncio.fixture
async def stand(tmp_path: Path) -> AsyncIterator[WitnessStand]:
    async with new_store(tmp_path / "hub.db") as store:
        stand = WitnessStand(store, KEYS)
        async with at_work(stand.witness):
            yield stand


@pytest_asyncio.fixture
async def log(stand: WitnessStand) -> BoardLog:
    log = BoardLog()
    await stand.join(log)
    return log


async def kinds(stand: WitnessStand) -> list[str]:
    """What the history of the hub says, oldest first."""
    async with stand.store.read() as tx:
        return [event.kind for event in reversed(await events.list_events(tx))]


async def held(stand: WitnessStand, log: BoardLog) -> list[bytes | None]:
    """The entries that the hub has of a log."""
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        return await usage.entries(tx, row.id, 0, row.size)


# --- what is good ----------------------------------------------------------------------------------


async def test_a_log_is_taken_in_and_cosigned(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(3)
    receipt = await stand.take(log, log.package(0, 3))
    assert (receipt.state, receipt.size, receipt.nonce, receipt.pending) == ("ok", 3, "n", "")
    assert stand.proven(receipt, log) == 3
    log.append(offered(3), delivered(20_000))
    receipt = await stand.take(log, log.package(3, 2))
    assert stand.proven(receipt, log) == 5
    assert await held(stand, log) == log.entries
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        assert await usage.entries(tx, row.id, 2, 2) == log.entries[2:4]
        found = [each.type for each in await usage.records(tx, row.id, 0, 10)]
        assert found == ["epoch", "container", "container", "board", "sensor"]
        tree = Tree(tx, row.id)
        proof = await tree.inclusion(3, 5)
        check_inclusion(leaf_hash(log.entries[3]), 3, 5, proof, await tree.root(5))
    assert stand.told.problems == {}
    assert await kinds(stand) == ["usage-epoch"]


async def test_a_question_leaves_nothing_behind_of_a_log_that_nobody_knows(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(2)
    assert (await stand.take(log, log.question())).state == "unknown"
    assert (await stand.take(log, log.package(1, 1))).state == "unknown"
    async with stand.store.read() as tx:
        assert await usage.list_logs(tx) == []


@pytest.mark.parametrize("step", [1, 7, 255, 256])
async def test_any_division_into_packages_gives_the_same_tree(
    stand: WitnessStand, log: BoardLog, step: int
) -> None:
    log.grow(300 if step > 1 else 40)
    receipt = await stand.send(log, step=step)
    assert stand.proven(receipt, log) == log.size
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        tree = Tree(tx, row.id)
        for old in (0, 1, 6, 30, log.size):
            assert await tree.consistency(old, log.size) == consistency_proof(old, log.size, log.read)
        wanted = [leaf_hash(entry) for entry in log.entries]
        tile = await ledgers.find_tiles(tx, row.id, [(0, 0)])
        assert tile[0, 0] == b"".join(wanted[:256])
        assert await usage.tile(tx, row.id, 0, 0, 40) == b"".join(wanted[:40])
        assert await usage.tile(tx, row.id, 1, 0, 2) is None


async def test_what_is_held_already_changes_nothing(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(10)
    first = await stand.send(log)
    again = await stand.take(log, log.package(0, 10))
    assert again == replace(first, nonce="n")
    log.grow(5)
    overlapping = await stand.take(log, log.package(4, 11))
    assert stand.proven(overlapping, log) == 15
    assert await held(stand, log) == log.entries


async def test_a_package_that_leaves_a_hole_is_told_where_to_go_on(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(12)
    await stand.take(log, log.package(0, 4))
    receipt = await stand.take(log, log.package(8, 4))
    assert (receipt.state, receipt.size) == ("behind", 4)
    assert await held(stand, log) == log.entries[:4]


async def test_packages_may_share_one_checkpoint_that_is_ahead(stand: WitnessStand, log: BoardLog) -> None:
    """It is cosigned when all of it is there, and until then whoever asks is told that it was seen."""
    log.grow(20)
    receipt = await stand.take(log, log.package(0, 8, of=20))
    assert (receipt.state, receipt.size, receipt.note) == ("ok", 8, "")
    assert receipt.pending == log.checkpoint(20)
    receipt = await stand.take(log, log.package(8, 8, of=20))
    assert (receipt.size, receipt.note, receipt.pending) == (16, "", log.checkpoint(20))
    receipt = await stand.take(log, log.package(16, 4, of=20))
    assert (stand.proven(receipt, log), receipt.pending) == (20, "")


async def test_ten_boards_at_once(stand: WitnessStand) -> None:
    logs = [BoardLog() for _ in range(10)]
    for log in logs:
        await stand.join(log)
        log.grow(30)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stand.send(log, step=7)) for log in logs]
    for log, task in zip(logs, tasks, strict=True):
        assert stand.proven(task.result(), log) == 30


def padded(seq: int, size: int) -> bytes:
    """A record of a kind of later days, so large."""
    head = b'{"v":1,"seq":%d,"salt":"%s","type":"future","pad":"' % (seq, b"0" * 32)
    return head + b"x" * (size - len(head) - 2) + b'"}'


async def test_the_largest_entry_there_may_be_is_kept_as_it_is(stand: WitnessStand, log: BoardLog) -> None:
    """Also one of a kind that this version does not know: it has no row, and is in the log."""
    log.append(began())
    log.write(padded(1, MAX_ENTRY))
    log.append(used(2))
    receipt = await stand.take(log, log.package(0, 3))
    assert stand.proven(receipt, log) == 3
    assert await held(stand, log) == log.entries
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        assert [each.seq for each in await usage.records(tx, row.id, 0, 9)] == [0, 2]
    log.write(padded(3, MAX_ENTRY + 1))
    with pytest.raises(Refused) as caught:
        encode_package(log.package(3, 1))
    assert caught.value.code == "too-large"
    with pytest.raises(Refused):  # and whoever sends it all the same
        await stand.take(log, log.package(3, 1))


# --- what is not -----------------------------------------------------------------------------------


async def test_a_package_is_held_to_its_form(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(6)
    good = log.package(0, 6)
    other = BoardLog()
    other.grow(6)
    bad: list[tuple[Package, str]] = [
        (other.package(0, 6), "sent a package of the log"),
        (replace(good, checkpoint=other.checkpoint()), "no key of"),
        (replace(good, checkpoint=""), "without a checkpoint"),
        (replace(good, checkpoint=log.checkpoint(5)), "does not hold those up to 6"),
        (replace(good, entries=(*good.entries[1:], good.entries[0])), "out of order"),
        (replace(good, start=1), "does not hold"),
        (changed(good, 2, b'{"v":1}'), "no record"),
        (changed(good, 2, good.entries[2].replace(b'"cpu_us":1000', b'"cpu_us":-1')), "cpu_us"),
        (changed(good, 2, good.entries[2].replace(b'"cpu_us":1000', b'"cpu_us":1e3')), "cpu_us"),
    ]
    for package, reason in bad:
        with pytest.raises((Refused, Corrupt), match=reason):
            await stand.take(log, package)
        assert reason.split()[0] in stand.told.refusals[-1]
    with pytest.raises(Refused, match="has not joined"):
        await stand.take(other, other.package(0, 6))
    async with stand.store.read() as tx:
        assert await usage.list_logs(tx) == []


async def test_a_revoked_board_is_not_heard(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(2)
    async with stand.store.write() as tx:
        await boards.revoke_board(tx, log.board, stand.now_ms)
    with pytest.raises(Refused, match="revoked"):
        await stand.take(log, log.package(0, 2))


async def test_an_entry_that_was_changed_on_its_way_is_asked_for_again(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(6)
    await stand.take(log, log.package(0, 2))
    good = log.package(2, 4)
    damaged = changed(good, 1, good.entries[1].replace(b'"cpu_us":1000', b'"cpu_us":9000'))
    receipt = await stand.take(log, damaged)
    assert (receipt.state, receipt.size) == ("behind", 2)
    assert "send it again" in receipt.reason
    assert stand.proven(await stand.take(log, good), log) == 6
    assert stand.told.problems == {}


async def test_a_false_proof_is_not_taken(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(20)
    good = log.package(0, 8, of=20)
    for proof in ((), good.proof[:-1], (*good.proof[:-1], bytes(32)), (*good.proof, bytes(32))):
        receipt = await stand.take(log, replace(good, proof=proof, checkpoint=log.checkpoint(20)))
        assert receipt.size == 0
    async with stand.store.read() as tx:
        assert (await usage.get_log(tx, log.origin)).size == 0


# --- two histories ---------------------------------------------------------------------------------


async def test_two_roots_for_one_size_are_kept_as_evidence(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(10)
    kept = (await stand.send(log)).note
    liar = log.fork(6)
    liar.append(*(used(at, cpu_us=1) for at in range(6, 10)))
    receipt = await stand.take(log, liar.package(0, 10))
    assert (receipt.state, receipt.size, receipt.note) == ("conflict", 10, kept)
    async with stand.store.read() as tx:
        (evidence,) = await usage.conflicts(tx, board=log.board)
        assert (evidence.kept, evidence.shown, evidence.size) == (kept, liar.checkpoint(), 10)
        assert (await usage.get_log(tx, log.origin)).conflict_ms == stand.now_ms
    assert "two histories" in stand.told.problems[log.board, "usage-conflict"]
    assert (await kinds(stand))[-1] == "usage-conflict"
    # Whoever goes on with what is held is taken in as before.
    log.grow(2)
    assert stand.proven(await stand.take(log, log.package(10, 2)), log) == 12


async def test_a_history_that_goes_on_from_another_one_is_a_conflict_when_it_comes_twice(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(10)
    await stand.send(log)
    liar = log.fork(6)
    liar.append(*(used(at, cpu_us=1) for at in range(6, 14)))
    assert (await stand.take(log, liar.package(10, 4))).state == "behind"
    assert (await stand.take(log, liar.package(10, 4))).state == "conflict"
    assert await held(stand, log) == log.entries
    for _ in range(18):  # it goes on and on
        liar.append(used(liar.size, cpu_us=1))
        for _ in range(2):
            await stand.take(log, liar.package(10, liar.size - 10))
    async with stand.store.read() as tx:
        assert len(await usage.conflicts(tx, board=log.board)) == 16


async def test_a_board_may_show_what_it_signed_and_cannot_send(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(10)
    await stand.send(log)
    liar = log.fork(6)
    liar.append(*(used(at, cpu_us=1) for at in range(6, 9)))
    assert (await stand.take(log, liar.question(liar.checkpoint()))).state == "conflict"
    liar.append(*(used(at, cpu_us=1) for at in range(9, 30)))
    shown = liar.question(liar.checkpoint(), consistency_proof(10, 30, liar.read))
    assert (await stand.take(log, shown)).state == "conflict"
    # Without a proof that it does not go on from what is held, nothing follows from it.
    assert (await stand.take(log, liar.question(liar.checkpoint()))).state == "ok"


async def test_a_checkpoint_that_was_seen_binds_what_comes(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(20)
    await stand.take(log, log.package(0, 8, of=20))
    liar = log.fork(12)
    liar.append(*(used(at, cpu_us=1) for at in range(12, 24)))
    receipt = await stand.take(log, liar.package(8, 12))
    assert (receipt.state, receipt.size) == ("conflict", 8)
    receipt = await stand.take(log, liar.package(8, 16))
    assert (receipt.state, receipt.size) == ("conflict", 8)
    async with stand.store.read() as tx:
        assert {each.kept for each in await usage.conflicts(tx)} == {log.checkpoint(20)}
    assert stand.proven(await stand.take(log, log.package(8, 12)), log) == 20


# --- holes, epochs, backups ------------------------------------------------------------------------


async def test_hashes_stand_for_what_nobody_holds(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(10)
    await stand.send(log)
    log.grow(10)
    log.append(hole(10, 8))
    receipt = await stand.take(log, log.package(10, 11, lost=8))
    assert stand.proven(receipt, log) == 21
    assert await held(stand, log) == [*log.entries[:10], *[None] * 8, *log.entries[18:]]
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        assert [(each.first, each.count) for each in await usage.holes(tx, row.id)] == [(10, 8)]
        assert await Tree(tx, row.id).leaves(9, 3) == [leaf_hash(each) for each in log.entries[9:12]]
        assert [each.seq for each in await usage.records(tx, row.id, 8, 4)] == [8, 9, 18, 19]
        assert await usage.entries(tx, row.id, 15, 5) == [None, None, None, *log.entries[18:20]]
    assert "8 records" in stand.told.problems[log.board, "usage-hole"]


async def test_a_new_epoch_says_what_it_goes_on_from(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(4)
    await stand.send(log)
    good, bad = BoardLog(log.key), BoardLog(log.key)
    good.append(began(log.checkpoint(), "its card was set back"))
    await stand.send(good)
    assert (log.board, "usage-epoch") not in stand.told.problems
    bad.append(began())
    await stand.send(bad)
    assert bad.epoch in stand.told.problems[log.board, "usage-epoch"]
    async with stand.store.read() as tx:
        assert [each.epoch for each in await usage.list_logs(tx)] == [log.epoch, good.epoch, bad.epoch]
        assert (await usage.current_logs(tx))[log.board].epoch == bad.epoch


async def test_a_hub_that_was_set_back_cosigns_nothing_below_what_it_cosigned_before(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(30)
    receipt = await stand.send(log, step=10)
    async with Store.open(stand.store.path.with_name("old.db")) as store:
        restored = WitnessStand(store, KEYS)
        async with at_work(restored.witness):
            await restored.join(log)
            await restored.take(log, log.package(0, 10))
            answer = await restored.take(log, log.question(receipt.note))
            assert (answer.state, answer.size, answer.pending) == ("ok", 10, receipt.note)
            assert (await kinds(restored))[-1] == "usage-behind"
            answer = await restored.take(log, log.package(10, 10))
            assert (answer.size, restored.proven(answer, log)) == (20, 10)
            # Neither is another history taken in: this hub has forgotten it, but its word binds it.
            old = log.fork(20)
            old.append(*(used(at, cpu_us=1) for at in range(20, 30)))
            assert (await restored.take(log, old.package(20, 10))).state == "conflict"
            answer = await restored.take(log, log.package(20, 10))
            assert (answer.pending, restored.proven(answer, log)) == ("", 30)


async def test_what_was_stored_and_not_cosigned_is_cosigned_for_who_asks(
    stand: WitnessStand, log: BoardLog
) -> None:
    """As after a kill between the two."""
    log.grow(5)
    await stand.send(log)
    async with stand.store.write() as tx:
        row = await usage.get_log(tx, log.origin)
        newest = await ledgers.newest_checkpoint(tx, row.id)
        assert newest is not None
        await ledgers.save_cosignature(tx, replace(newest, note=log.checkpoint(), cosigned_ms=None))
        assert await usage.checkpoint(tx, row.id) is None
    assert stand.proven(await stand.take(log, log.question()), log) == 5


async def test_a_new_receipt_key_cosigns_again(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(5)
    before = await stand.send(log)
    stand.keys = KEYS.renewed(["receipt"])
    again = stand.another()
    async with at_work(again):
        receipt = await again.take(log.board, log.question())
    assert stand.proven(receipt, log) == 5
    assert receipt.note != before.note
    assert receipt.note.count("\n— ") == 2


# --- limits ------------------------------------------------------------------------------------------


async def test_a_board_writes_what_it_may_in_a_day(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(60)
    size = sum(map(len, log.entries))
    small = stand.another(bytes_per_day=(EPOCH_BYTES + size // 2) // SAVED_DAYS)
    async with at_work(small):
        receipt = await small.take(log.board, log.package(0, 25))
        assert receipt.size == 25
        with pytest.raises(Refused, match="bytes a day") as caught:
            await small.take(log.board, log.package(25, 35))
        assert caught.value.code == "usage-limit"
        assert (log.board, "usage-limit") in stand.told.problems
        stand.now_ms += SAVED_DAYS * DAY_MS
        assert (await small.take(log.board, log.package(25, 35))).size == 60


async def test_logs_without_end_cost_something(stand: WitnessStand, log: BoardLog) -> None:
    small = stand.another(bytes_per_day=3 * EPOCH_BYTES // SAVED_DAYS)
    async with at_work(small):
        for _ in range(2):
            each = BoardLog(log.key)
            each.append(began())
            await small.take(log.board, each.package(0, 1))
        each = BoardLog(log.key)
        each.append(began())
        with pytest.raises(Refused, match="bytes a day"):
            await small.take(log.board, each.package(0, 1))


async def test_a_board_does_not_crowd_out_others(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(3)
    for _ in range(3 * MOST_OF_ONE):
        stand.witness.offer(log.board, log.question())
    with pytest.raises(Refused, match="too many"):
        await stand.take(log, log.question())
    other = BoardLog(generate())
    await stand.join(other)
    assert (await stand.take(other, other.question())).state == "unknown"


async def test_a_log_that_does_not_grow_while_its_board_is_there_is_late(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(3)
    await stand.send(log)
    async with stand.store.write() as tx:
        await boards.save_presence(tx, [PresenceChange(log.board, "online", "n", stand.now_ms)])
    async with stand.store.read() as tx:
        assert await usage.late_boards(tx, stand.now_ms) == set()
        assert await usage.late_boards(tx, stand.now_ms + 1) == {log.board}
    stand.now_ms += LATE_MS + 1
    watching = asyncio.create_task(stand.witness.watch())
    while not stand.told.problems:
        await asyncio.sleep(0)
    watching.cancel()
    assert "nothing new" in stand.told.problems[log.board, "usage-late"]


# --- time --------------------------------------------------------------------------------------------


async def test_records_get_their_time_when_the_clock_of_their_boot_is_known(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.append(began())
    log.append(*(used(at, boot="b1" * 16, clock="unsynced") for at in (1, 2)))
    await stand.send(log)
    async with stand.store.read() as tx:
        row = await usage.get_log(tx, log.origin)
        found = await usage.records(tx, row.id, 1, 9)
    assert [(each.at_ms, each.certain) for each in found] == [(WALL_MS, 0)] * 2
    log.append(used(3, boot="b1" * 16, clock="unsynced"), used(4, boot="b1" * 16, clock="hub"))
    log.append(used(5, boot="b1" * 16, clock="unsynced"))
    await stand.take(log, log.package(3, 3))
    async with stand.store.read() as tx:
        found = await usage.records(tx, row.id, 1, 9)
    assert [(each.at_ms, each.certain) for each in found] == [
        (WALL_MS + (at + 1) * HOUR_MS, 1) for at in (1, 2, 3, 4, 5)
    ]


async def test_questions_about_records(stand: WitnessStand, log: BoardLog) -> None:
    log.append(began())
    log.append(*(used(at, cpu_us=at, app=("demo", "other")[at % 2]) for at in range(1, 11)), offered(11))
    await stand.send(log)
    async with stand.store.read() as tx:
        begin, end = WALL_MS + 3 * HOUR_MS, WALL_MS + 8 * HOUR_MS  # records 2 to 6 end in it
        found = await usage.records_between(tx, begin, end)
        assert [each.seq for each in found] == [2, 3, 4, 5, 6]
        some = await usage.records_between(tx, begin, end, app="demo", limit=2)
        assert [each.seq for each in some] == [2, 4]
        rest = await usage.records_between(tx, begin, end, app="demo", after=(some[-1].log, some[-1].seq))
        assert [each.seq for each in rest] == [6]
        newest = await usage.records_between(tx, 0, 2**60, types=["container"], newest=True, limit=2)
        assert [each.seq for each in newest] == [10, 9]
        sums = await usage.sums(tx, begin, end, bucket_ms=24 * HOUR_MS, by="app")
        assert {each.key: (each.records, each.cpu_us, each.io_r) for each in sums} == {
            "demo": (3, 12, None), "other": (2, 8, None),
        }  # fmt: skip
        by_board = await usage.sums(tx, 0, 2**60, bucket_ms=2**40, by="board", workspace="default")
        assert [(each.key, each.records) for each in by_board] == [(log.board, 10)]
        one = await usage.find_record(tx, found[0].log, 2)
        assert one == found[0]
        assert await usage.find_record(tx, found[0].log, 99) is None


# --- a kill ------------------------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from agent.wire.note import Signer
from hub.access.keys import Keyring
from hub.ledger.witness import Witness
from hub.fleet.latest import Latest
from hub.store.database import Store
from hub.store.usage_schema import usage_tiles
from support.boardlog import BoardLog
from support.ingest import new_alerts
from support.witnessing import WitnessStand, at_work, new_witness

async def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(folder, skey):
    log = BoardLog(Signer.parse(skey), "e" * 16)
    log.grow(300)
    async with Store.open(folder / "hub.db") as store:
        stand = WitnessStand(store, Keyring.load(folder / "keys"))
        async with at_work(stand.witness):
            await stand.take(log, log.package(0, 256))
            Witness._cosign = dies
            await stand.take(log, log.package(256, 44))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_a_hub_that_is_killed_between_storing_and_cosigning(tmp_path: Path) -> None:
    """What it stored is there, was not cosigned, and is for who asks next."""
    log, keys = BoardLog(epoch="e" * 16), tmp_path / "keys"
    keys.mkdir()
    KEYS.save(keys)
    async with Store.open(tmp_path / "hub.db") as store:
        await WitnessStand(store, KEYS).join(log)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(tmp_path), log.key.skey,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert await child.wait() == -signal.SIGKILL
    async with Store.open(tmp_path / "hub.db") as store:
        stand = WitnessStand(store, KEYS)
        for entry in await held(stand, log):
            log.write(entry or b"")
        assert log.size == 300
        async with store.read() as tx:
            row = await usage.get_log(tx, log.origin)
            newest = await usage.checkpoint(tx, row.id)
            assert newest is not None
            assert newest.size == 256
        async with at_work(stand.witness):
            assert stand.proven(await stand.take(log, log.question()), log) == 300


# --- beside others -------------------------------------------------------------------------------------


async def test_a_damaged_log_is_refused_and_others_go_on(stand: WitnessStand, log: BoardLog) -> None:
    log.grow(10)
    await stand.send(log)
    async with stand.store.write() as tx:
        await tx.execute(delete(usage_tiles))
    log.grow(1)
    with pytest.raises(Corrupt, match="is not stored"):
        await stand.take(log, log.package(10, 1))
    other = BoardLog(generate())
    await stand.join(other)
    other.grow(3)
    assert stand.proven(await stand.send(other), other) == 3


async def test_a_disk_that_is_full_is_told_and_nothing_is_cosigned(
    stand: WitnessStand, log: BoardLog
) -> None:
    log.grow(5)
    await stand.send(log)
    log.grow(200)
    async with stand.store.write() as tx:
        await tx.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(Refused) as caught:
        await stand.take(log, log.package(5, 200))
    assert caught.value.code == "disk-full"
    assert stand.told.failures
    async with stand.store.write() as tx:
        await tx.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert stand.proven(await stand.take(log, log.package(5, 200)), log) == 205


async def test_a_second_history_is_a_problem_of_its_board(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "hub.db") as store:
        stand, latest = WitnessStand(store, KEYS), Latest()
        alerts = new_alerts(store, latest, lambda: stand.now_ms)
        witness = new_witness(store, KEYS, lambda: stand.now_ms, alerts)
        log = BoardLog()
        await stand.join(log)
        log.grow(4)
        liar = log.fork(2)
        liar.append(used(2, cpu_us=1), used(3, cpu_us=1))
        async with at_work(witness):
            await witness.take(log.board, log.package(0, 4))
            assert (await witness.take(log.board, liar.package(0, 4))).state == "conflict"
        ((board, problem),) = [(each.board, each) for each in alerts.unsaved()]
        assert (board, problem.code, problem.severity) == (log.board, "usage-conflict", "fail")
        assert log.epoch in problem.sentence
