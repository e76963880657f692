"""Usage logs with real processes: an agent, a hub, HTTPS for what is much, and what kills and restores do."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.identity import open_identity
from agent.usage.ledger import Ledger
from agent.wire.note import Verifier, open_note
from agent.wire.tlog import Checkpoint, Frontier, leaf_hash
from hub.store import usage
from hub.store.database import Store
from support.boardlog import used
from support.lab import Board, Lab
from support.syncing import entries_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 40 if os.environ.get("LICHEN_SOAK") else 4
PASSPHRASE = "a horse of another colour"
FAST = {"sensors": [], "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2, "resend_s": 1.0}}


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        (lab.dir / "passphrase").write_text(PASSPHRASE + "\n")
        await lab.start_hub()
        yield lab


@pytest.fixture
async def board(lab: Lab) -> Board:
    """A board that has joined, and whose hub has the first record of its log."""
    board = await lab.add_board("pump", **FAST)
    await board.start()
    await lab.until(lambda: size_at_hub(lab) > 0, "the hub has a log")
    return board


def size_at_hub(lab: Lab) -> int:
    """How many entries the hub holds of the newest log."""
    rows = lab.ask(lab.hub_dir / "hub.db", "SELECT size FROM usage_logs ORDER BY id DESC LIMIT 1")
    return int(rows[0][0]) if rows else 0


def has_more_at_hub(lab: Lab, size: int) -> bool:
    """Whether the hub holds more than so many entries."""
    return size_at_hub(lab) > size


def cosigned_at_hub(lab: Lab) -> int:
    """The size of the largest checkpoint that the hub has cosigned."""
    sql = "SELECT max(size) FROM usage_checkpoints WHERE cosigned_ms IS NOT NULL"
    rows = lab.ask(lab.hub_dir / "hub.db", sql)
    return int(rows[0][0] or 0) if rows else 0


async def write(board: Board, count: int) -> int:
    """Let a board that is off have used so much more; the size of its log then."""
    identity = open_identity(board.state)
    async with Ledger.open(board.state / "usage", log_key=identity.log_key, clock=Clock.system()) as ledger:
        for _ in range(0, count, 500):
            await ledger.append([used(at) for at in range(min(count, 500))])
        return ledger.size


async def check(lab: Lab, board: Board) -> None:
    """Both are off, and have the same log: each entry, the tree, and a checkpoint that holds.

    What the board wrote when it was stopped the hub may not have.
    """
    identity = open_identity(board.state)
    async with Ledger.open(board.state / "usage", log_key=identity.log_key, clock=Clock.system()) as ledger:
        origin, entries, cosigned = ledger.origin, await entries_of(ledger), ledger.cosigned
    assert cosigned is not None
    async with Store.open(lab.hub_dir / "hub.db") as store, store.read() as tx:
        log = await usage.get_log(tx, origin)
        assert len(entries) - 3 <= cosigned[0] <= log.size <= len(entries)
        del entries[log.size :]
        tree = Frontier()
        tree.extend(map(leaf_hash, entries))
        assert await usage.entries(tx, log.id, 0, log.size) == entries
        assert log.frontier == b"".join(tree.hashes)
        newest = await usage.checkpoint(tx, log.id)
        assert newest is not None
        checkpoint = Checkpoint.parse(open_note(newest.note, Verifier(origin, identity.log_key.public_key)))
        assert (checkpoint.size, checkpoint.root) == (len(entries), tree.root())
        found = await usage.records(tx, log.id, 0, len(entries) + 1)
        assert [each.seq for each in found] == list(range(len(entries)))
        assert await usage.conflicts(tx) == []


async def test_a_long_absence_ends_over_https(lab: Lab, board: Board) -> None:
    await board.stop()
    size = await write(board, 4000)
    await board.start()
    await lab.until(lambda: cosigned_at_hub(lab) >= size, "all of it is cosigned", within_s=40)
    requests = lab.ask(lab.hub_dir / "hub.db", "SELECT count(*) FROM usage_packages")
    assert requests[0][0] < 40
    await board.stop()
    await lab.hub.stop()
    await check(lab, board)


async def test_a_card_that_is_set_back_fetches_its_records_from_the_hub(lab: Lab, board: Board) -> None:
    await board.stop()
    shutil.copytree(board.state / "usage", lab.dir / "copy")
    size = await write(board, 1500)
    await board.start()
    await lab.until(lambda: cosigned_at_hub(lab) >= size, "all of it is cosigned", within_s=40)
    await board.stop()
    shutil.rmtree(board.state / "usage")
    shutil.copytree(lab.dir / "copy", board.state / "usage")
    await write(board, 10)  # it does not know yet
    await board.start()
    await lab.until(lambda: cosigned_at_hub(lab) >= size + 10, "it has caught up, and gone on", within_s=40)
    await board.stop()
    await lab.hub.stop()
    await check(lab, board)
    assert lab.ask(lab.hub_dir / "hub.db", "SELECT count(*) FROM usage_logs") == [(1,)]


@pytest.mark.soak
async def test_a_hub_that_is_killed_at_any_moment_takes_each_entry_once(lab: Lab, board: Board) -> None:
    dice = random.Random(int(os.environ.get("LICHEN_SEED", "7")))
    await board.stop()
    size = await write(board, 1500 * ROUNDS)
    await board.start()
    for _ in range(ROUNDS):
        enough = min(size_at_hub(lab) + 256, size - 1)
        await lab.until(partial(has_more_at_hub, lab, enough), "it goes on")
        await asyncio.sleep(dice.random() * 0.1)
        await lab.hub.kill()
        await lab.start_hub()
    await lab.until(lambda: cosigned_at_hub(lab) >= size, "all of it is cosigned", within_s=60)
    await board.stop()
    await lab.hub.stop()
    await check(lab, board)


async def test_a_hub_that_is_restored_has_its_logs_and_catches_up(lab: Lab, board: Board) -> None:
    await board.stop()
    size = await write(board, 300)
    await board.start()
    await lab.until(lambda: cosigned_at_hub(lab) >= size, "all of it is cosigned")
    words = ("--passphrase-file", str(lab.dir / "passphrase"))
    file = str(lab.dir / "hub.backup")
    await lab.command("lichen-hub", "backup", file, "--dir", str(lab.hub_dir), *words)
    await board.stop()
    more = await write(board, 700)
    await board.start()
    await lab.until(lambda: cosigned_at_hub(lab) >= more, "more is cosigned")
    await lab.hub.kill()
    shutil.rmtree(lab.hub_dir)
    await lab.command("lichen-hub", "restore", file, str(lab.hub_dir), *words)
    assert size_at_hub(lab) == cosigned_at_hub(lab) == size
    lab.api_token = ""
    await lab.start_hub()
    await lab.until(lambda: size_at_hub(lab) >= more, "it has caught up", within_s=40)
    await board.stop()
    await lab.hub.stop()
    await check(lab, board)
