"""Usage logs between a board and its hub, whatever happens to either, against a list.

The real `Ledger` and `Sync` on a disk whose power fails, the real `Witness` on SQLite, and a wire that
breaks; cards and databases come back as they were some time ago.  The list is every record ever written.
What has to hold at every moment, by the hub's database and the contract alone:

*   each log is a list of entries whose roots are those that its board signed and the hub cosigned;
*   a record is in one log, once;
*   a cosigned checkpoint of a hub that was not set back is a begin of what it holds.

And at the end, when everything works again: hub and board agree, and every record is at the hub but for those
that were only on what was replaced.  A second machine with the same key and a copied card is another test.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import random
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import agent.usage.volume
from agent.usage.ledger import Ledger
from agent.wire.cosignature import open_cosigned
from agent.wire.note import Verifier, open_note
from agent.wire.tlog import Checkpoint, Frontier, leaf_hash
from agent.wire.usage import ContainerRecord, read
from hub.access.keys import Keyring
from hub.ledger.claims import cosigner_of
from hub.ledger.hearing import MOST_CONFLICTS
from hub.ledger.trees import Tree
from hub.store import boards, ledgers, usage
from hub.store.database import Store
from support.boardlog import BoardLog, used
from support.ledgers import DAY_MS, Cut, PowerCut
from support.syncing import Desk, Wire, agreed
from support.witnessing import WitnessStand, at_work

ROUNDS = 400 if os.environ.get("LICHEN_SOAK") else 15
STEPS = 30
KEYS = Keyring.generate()
SMALL_SEGMENT = 6
"""Entries of a segment, so that some are pruned."""


def memory() -> Path | None:
    """Where a commit does not wait for a disk."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


@functools.cache
def new_hub() -> Path:
    """The database of a hub that knows the board and nothing else."""
    folder = Path(tempfile.mkdtemp(prefix="lichen-machine-ledger-"))
    atexit.register(shutil.rmtree, folder)

    async def make() -> None:
        desk = Desk(folder)
        async with Store.open(folder / "hub.db") as store, store.write() as tx:
            await boards.add_board(
                tx, id=desk.log_key.name, log_key=desk.log_key.vkey, seal_key="", joined_ms=0
            )

    asyncio.run(make())
    return folder


def copied(source: Path, target: Path) -> Path:
    """The files as a power cut would leave them."""
    target.mkdir(parents=True)
    for path in source.rglob("*"):
        if path.is_file() and not path.name.endswith("-shm"):
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(source))
    return target


class Machine:
    """A board or a hub: a folder, and what is open in it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.starts = 0
        self.folder = root / f"{name}-0"
        self.open = AsyncExitStack()

    async def begin(self, copy: Path | None) -> Path:
        """Close what is open, and begin in a new folder with the files of ``copy``."""
        await self.open.aclose()
        self.starts += 1
        self.folder = self.root / f"{self.name}-{self.starts}"
        if copy is None:
            self.folder.mkdir()
        else:
            copied(copy, self.folder)
        self.open = AsyncExitStack()
        return self.folder


class Logs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(agent.usage.volume, "SEGMENT_ENTRIES", SMALL_SEGMENT)
        self.root = Path(tempfile.mkdtemp(prefix="lichen-", dir=memory()))
        self.runner = asyncio.Runner()
        self.board, self.hub = Machine(self.root, "board"), Machine(self.root, "hub")
        self.disk = PowerCut(random.Random(0))
        self.desk = Desk(self.root)
        self.gone: set[int] = set()
        self.copies = 0
        self.cards: list[tuple[Path, str]] = []
        self.hubs: list[Path] = []
        self.cosigned: dict[tuple[str, int], bytes] = {}  # by this hub since it was set back
        self.places: dict[tuple[str, bytes], set[int]] = {}  # which records the card ever had where
        self.may_repeat = False
        self.now_ms = 0
        self.in_touch = True  # they have agreed since one of them was set back

    @initialize(seed=st.integers(0, 2**32))
    def both_start(self, seed: int) -> None:
        self.disk = PowerCut(random.Random(seed))
        self.runner.run(self.start_hub(new_hub()))
        self.runner.run(self.start_board(None))

    async def start_board(self, copy: Path | None) -> None:
        self.desk.folder = await self.board.begin(copy)
        opening = Ledger.open(
            self.desk.folder, log_key=self.desk.log_key, clock=self.desk.clock, disk=self.disk
        )
        self.ledger = await self.board.open.enter_async_context(opening)
        self.desk.boot = f"{self.board.starts:032x}"

    async def start_hub(self, copy: Path) -> None:
        folder = await self.hub.begin(copy)
        store = await self.hub.open.enter_async_context(Store.open(folder / "hub.db"))
        stand = WitnessStand(store, KEYS)
        stand.now_ms = max(stand.now_ms, self.now_ms)
        self.stand: WitnessStand = stand
        self.desk.plug(Wire(self.stand))

    def teardown(self) -> None:
        try:
            if self.board.starts:
                self.everything_works_again()
        finally:
            for machine in (self.board, self.hub):
                self.runner.run(machine.open.aclose())
            self.runner.close()
            self.patch.undo()
            shutil.rmtree(self.root)

    # --- the board -------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        self.runner.run(self.ledger.append(self.desk.records(count)))

    @rule(count=st.integers(1, 3), steps=st.integers(0, 8))
    def the_power_fails_while_it_appends(self, count: int, steps: int) -> None:
        """None of these may be there, or a begin of them; whoever counts goes on from what is there."""
        records = self.desk.records(count)
        self.disk.left = steps
        try:
            self.runner.run(self.ledger.append(records))
        except Cut:
            self.power_comes_back()
        else:
            self.disk.left = None

    @rule(days=st.integers(20, 60))
    def time_passes_and_old_segments_go(self, days: int) -> None:
        self.desk.wait(days * DAY_MS)
        self.stand.now_ms += days * DAY_MS
        self.now_ms = self.stand.now_ms
        self.runner.run(self.ledger.prune(self.stand.now_ms))
        if not self.in_touch:
            self.only_this_is_left()  # the board could not know what the hub has lost

    @rule()
    def the_agent_is_killed(self) -> None:
        self.runner.run(self.start_board(self.desk.folder))

    def power_comes_back(self) -> None:
        with contextlib.suppress(Cut):  # what is still under way on its thread ends without power, too
            self.runner.run(self.board.open.aclose())
        self.board.open = AsyncExitStack()
        self.disk.fail()
        self.runner.run(self.start_board(self.desk.folder))
        self.only_this_is_left()

    # --- the wire --------------------------------------------------------------------------------

    @rule(packages=st.integers(1, 4))
    def a_session_that_breaks(self, packages: int) -> None:
        self.desk.wire.cut_after = packages
        self.runner.run(self.talk())

    @rule()
    def a_session(self) -> None:
        self.desk.wire.cut_after = 2**60
        self.runner.run(self.talk())

    @rule(steps=st.integers(0, 40))
    def the_power_fails_while_it_talks(self, steps: int) -> None:
        self.disk.left = steps
        self.desk.wire.cut_after = 2**60
        try:
            self.runner.run(self.talk())
        except Cut:
            self.power_comes_back()
        except BaseExceptionGroup as errors:
            if errors.split(Cut)[1] is not None:
                raise
            self.power_comes_back()
        self.disk.left = None

    async def talk(self) -> str:
        """A session, until all is said or the wire breaks; why it did not get on, if it did not."""
        sync = self.desk.sync(self.ledger)
        async with at_work(self.stand.witness), self.desk.session(sync):
            settled = asyncio.ensure_future(agreed(self.ledger, sync, within_s=20))
            while not settled.done() and self.desk.wire.cut_after > 0 and (self.disk.left or 0) >= 0:
                await asyncio.sleep(0.001)
            self.in_touch |= settled.done()
            settled.cancel()
        return str(sync.trouble) if sync.trouble else "" if settled.done() else "it was cut off"

    # --- fraud -----------------------------------------------------------------------------------

    @rule(data=st.data())
    def somebody_signs_another_history(self, data: st.DataObject) -> None:
        """With the board's key.  It is kept as evidence, and changes nothing."""
        for origin, entries in self.runner.run(self.logs()).items():
            if len(entries) > 1 and None not in entries:
                forged = BoardLog(self.desk.log_key, origin.rpartition("/")[2])
                at = data.draw(st.integers(1, len(entries) - 1), label="fork")
                for entry in entries[:at]:
                    forged.write(entry or b"")
                forged.grow(data.draw(st.integers(1, len(entries) - at), label="entries"), used)
                start = data.draw(st.integers(0, at), label="start")
                self.runner.run(self.is_evidence(forged, start))

    async def is_evidence(self, forged: BoardLog, start: int) -> None:
        count = min(forged.size - start, 256)
        async with at_work(self.stand.witness):
            receipt = await self.stand.take(forged, forged.package(start, count, of=forged.size))
        assert receipt.state == "conflict"
        async with self.stand.store.read() as tx:
            log = await usage.get_log(tx, forged.origin)
            found = await usage.conflicts(tx, log=log.id)
        assert len(found) >= MOST_CONFLICTS or forged.checkpoint() in {each.shown for each in found}

    # --- time travel -------------------------------------------------------------------------------

    @rule()
    def somebody_copies_the_files(self) -> None:
        self.copies += 1
        card = copied(self.desk.folder, self.root / f"card-copy-{self.copies}")
        self.cards.append((card, self.ledger.origin))
        self.hubs.append(copied(self.hub.folder, self.root / f"hub-copy-{self.copies}"))

    @precondition(lambda self: self.cards)
    @rule(data=st.data())
    def the_card_is_set_back(self, data: st.DataObject) -> None:
        copy, origin = data.draw(st.sampled_from(self.cards))
        self.may_repeat |= origin != self.ledger.origin
        self.runner.run(self.start_board(copy))
        self.only_this_is_left()

    @precondition(lambda self: self.hubs)
    @rule(data=st.data())
    def the_hub_is_set_back(self, data: st.DataObject) -> None:
        self.runner.run(self.start_hub(data.draw(st.sampled_from(self.hubs))))
        self.cosigned.clear()
        self.in_touch = False
        self.only_this_is_left()

    def only_this_is_left(self) -> None:
        """What is on neither may still be in a copy of the card, and come back with that."""
        self.gone = set(range(1, self.desk.made + 1)) - self.on_card() - self.at_hub()

    # --- what is there -----------------------------------------------------------------------------

    def on_card(self) -> set[int]:
        """The records that the card has, those that lie aside included."""

        def entries(volume: agent.usage.volume.Volume) -> list[bytes]:
            inside = volume.holdings.entries(volume.holdings.held_from, volume.size)
            return [entry for _, entry in inside if entry] + [*volume.aside.entries()]

        found = self.runner.run(self.ledger._do(entries))
        self.places |= {(self.ledger.origin, leaf_hash(entry)): numbers([entry]) for entry in found}
        return numbers(found)

    def at_hub(self) -> set[int]:
        """The records that the hub has, in whatever log."""
        return {number for found in self.runner.run(self.logs()).values() for number in numbers(found)}

    async def logs(self) -> dict[str, list[bytes | None]]:
        """Every log at the hub, read anew."""
        async with self.stand.store.read() as tx:
            return {
                log.origin: await usage.entries(tx, log.id, 0, log.size) for log in await usage.list_logs(tx)
            }

    # --- what must hold ------------------------------------------------------------------------------

    @invariant()
    def each_log_is_what_was_signed(self) -> None:
        if self.hub.starts:
            self.runner.run(self.verify())

    async def verify(self) -> None:
        seen: list[int] = []
        async with self.stand.store.read() as tx:
            for log in await usage.list_logs(tx):
                tree, held = Frontier(), await usage.entries(tx, log.id, 0, log.size)
                leaves = await Tree(tx, log.id).leaves(0, log.size) if log.size else []
                newest = await ledgers.newest_checkpoint(tx, log.id)
                size = self.verified(log.origin, newest) if newest else 0
                for index, (entry, leaf) in enumerate(zip(held, leaves, strict=True)):
                    assert entry is None or leaf_hash(entry) == leaf
                    assert entry is None or read(entry).seq == index
                    tree.append(leaf)
                    if (known := self.cosigned.get((log.origin, tree.size))) is not None:
                        assert tree.root() == known, "cosigned, and it is not in the log any more"
                    if newest and tree.size == size:
                        assert tree.root() == Checkpoint.parse(newest.note.partition("\n\n")[0] + "\n").root
                assert b"".join(tree.hashes) == log.frontier
                assert size == log.size or log.pending_size > log.size
                seen += sorted(numbers(held))
        if not self.may_repeat:
            assert len(seen) == len(set(seen)), "a record is there twice"
        assert not self.gone & set(seen)

    def verified(self, origin: str, row: ledgers.CheckpointRow) -> int:
        """The size of a checkpoint whose signatures hold."""
        checkpoint = Checkpoint.parse(open_note(row.note, Verifier(origin, self.desk.log_key.public_key)))
        if row.cosigned_ms is not None:
            open_cosigned(row.note, cosigner_of(KEYS.receipt).verifier)
            self.cosigned[origin, checkpoint.size] = checkpoint.root
        return checkpoint.size

    def everything_works_again(self) -> None:
        self.disk.left = None
        self.desk.wire.cut_after = 2**60
        trouble = self.runner.run(self.talk())
        assert not trouble, trouble
        self.runner.run(self.verify())
        made = set(range(1, self.desk.made + 1))
        missing = made - self.gone - self.at_hub() - self.runner.run(self.in_holes())
        assert not missing, f"at the hub there are not {sorted(missing)}"

    async def in_holes(self) -> set[int]:
        """Records that the board declared as lost when it did not have them; a copy of its card still may."""
        found: set[int] = set()
        async with self.stand.store.read() as tx:
            for log in await usage.list_logs(tx):
                for hole in await usage.holes(tx, log.id):
                    leaves = await Tree(tx, log.id).leaves(hole.first, hole.count)
                    found.update(*(self.places.get((log.origin, leaf), set()) for leaf in leaves))
        return found


def numbers(entries: list[bytes | None] | list[bytes]) -> set[int]:
    """Which records of containers those are."""
    records = [read(entry) for entry in entries if entry]
    return {record.cpu_us or 0 for record in records if isinstance(record, ContainerRecord)}


TestLogs = pytest.mark.soak(pytest.mark.slow(pytest.mark.timeout(3600)(Logs.TestCase)))
TestLogs.settings = settings(max_examples=ROUNDS, stateful_step_count=STEPS, deadline=None)
