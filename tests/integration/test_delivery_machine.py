"""Readings from outbox to store over a network that does everything wrong, against a list.

The real `Outbox` and the real `Ingest`, each on its own SQLite file; between them messages that are
lost, doubled, late and out of order, processes that are killed, and files that come back
as they were some time ago.  The list is every reading ever made, with its (stream, seq).  What
has to hold at every moment:

*   a stream is settled without holes: up to its `contiguous` every seq is stored or in a gap,
    never both and never twice;
*   what is stored is what was made;
*   a gap "lost" exists only after a file came back from the past, or was deleted.

And at the end, when the network works again: the outbox is empty, and every reading is stored or
in a gap, but for those that only a replaced outbox knew of.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.base.broker import Message
from agent.outbox import START, Outbox
from agent.wire import topics
from agent.wire.decode import decode_json
from agent.wire.envelope import pack, unpack
from agent.wire.errors import LinkDown
from agent.wire.messages import Ack, Reading, read_batch, readings_of
from hub.fleet.latest import Latest
from hub.store import boards
from hub.store.database import Store
from support.ingest import new_ingest

BOARD = "k3yd5q7c2n4xw6ba"
NOW_MS = 1_700_000_000_000
MAX_BYTES = 2_000
"""Room for some eight blocks, so that the outbox is often too small."""
ROUNDS = 1000 if os.environ.get("LICHEN_SOAK") else 40

Key = tuple[str, int]


class Session:
    """A link to the broker that hands over some messages, then ends; keeps what is published."""

    def __init__(self, messages: list[Message], after_commit: Callable[[], None]) -> None:
        self._messages = messages
        self._after_commit = after_commit
        self.published: list[Message] = []

    async def subscribe(self, *filters: str) -> None:
        assert filters == (topics.up_all(),)

    async def publish(self, message: Message) -> None:
        self._after_commit()
        self.published.append(message)

    async def messages(self) -> AsyncIterator[Message]:
        for message in self._messages:
            yield message
        raise LinkDown("the link has ended")


class Board:
    """The outbox of a board, its position, and the folder that it lives in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.starts = 0
        self.file = root / "board-0" / "outbox.db"
        self.open: AsyncExitStack | None = None

    async def start(self, copy: Path | None = None) -> None:
        """Start from the files in ``copy``, or with an empty outbox."""
        if self.open is not None:
            await self.open.aclose()
        self.starts += 1
        self.file = self.root / f"board-{self.starts}" / "outbox.db"
        copy_folder(copy, self.file.parent)
        self.open = AsyncExitStack()
        boot = f"{self.starts:032x}"
        self.outbox = await self.open.enter_async_context(
            Outbox.open(self.file, boot=boot, max_bytes=MAX_BYTES)
        )
        self.cursor = START
        self.next = 1

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the file, which is nobody else's while the outbox is open."""
        return await self.outbox._do(lambda connection, _: connection.execute(sql).fetchall())


class Hub:
    """A store with its ingest, and the folder that it lives in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.starts = 0
        self.file = root / "hub-0" / "hub.db"
        self.open: AsyncExitStack | None = None

    async def start(self, copy: Path) -> None:
        """Start from the files in ``copy``."""
        if self.open is not None:
            await self.open.aclose()
        self.starts += 1
        self.file = self.root / f"hub-{self.starts}" / "hub.db"
        copy_folder(copy, self.file.parent)
        self.open = AsyncExitStack()
        store = await self.open.enter_async_context(Store.open(self.file))
        latest = Latest()
        await latest.load(store)
        self.ingest = new_ingest(store, latest, lambda: NOW_MS, commit_every_ms=0)
        await self.ingest.recover()

    async def take(self, messages: list[Message], after_commit: Callable[[], None]) -> list[Message]:
        """Ingest ``messages`` in one session and return the acks."""
        session = Session(messages, after_commit)
        with pytest.raises(LinkDown):
            await self.ingest.run(session)
        return session.published

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Look into the file, beside the store."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()


def copy_folder(source: Path | None, target: Path) -> None:
    """What a power cut leaves behind: the files as they are, log and all, but no process."""
    target.mkdir()
    for file in [] if source is None else source.iterdir():
        if not file.name.endswith("-shm"):
            shutil.copy(file, target)


@functools.cache
def new_hub() -> Path:
    """The folder of a hub that knows the board and nothing else."""
    folder = Path(tempfile.mkdtemp(prefix="lichen-machine-hub-"))
    atexit.register(shutil.rmtree, folder)

    async def make() -> None:
        async with Store.open(folder / "hub.db") as store, store.write() as tx:
            await boards.add_board(tx, id=BOARD, log_key="", seal_key="", joined_ms=0)

    asyncio.run(make())
    return folder


class Delivery(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # a commit that waits for a disk would make this take minutes
        self.folder = Path(tempfile.mkdtemp(prefix="lichen-", dir=memory if memory.is_dir() else None))
        self.runner = asyncio.Runner()
        self.board = Board(self.folder)
        self.hub = Hub(self.folder)
        self.made: dict[Key, Reading] = {}
        self.gone: set[Key] = set()
        self.travelled_in_time = False
        self.under_way: list[Message] = []
        self.acks: list[Message] = []
        self.copies = 0
        self.old_boards: list[Path] = []
        self.old_hubs: list[Path] = []

    @initialize()
    def both_start(self) -> None:
        self.runner.run(self.board.start())
        self.runner.run(self.hub.start(new_hub()))

    def teardown(self) -> None:
        try:
            if self.board.starts:
                self.the_network_works_again()
        finally:
            for process in (self.board, self.hub):
                if process.open is not None:
                    self.runner.run(process.open.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    # --- the board -----------------------------------------------------------------------------

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def commit(self, counts: list[int]) -> None:
        outbox = self.board.outbox
        for count in counts:
            stream, seq0, number = outbox.stream, self.board.next, len(self.made)
            readings = [
                Reading(f"sensor-{n % 2}", float(number + n), number + n, NOW_MS + n) for n in range(count)
            ]
            self.made |= {(stream, seq0 + n): reading for n, reading in enumerate(readings)}
            self.board.next += count
            self.runner.run(outbox.append(readings, "synced"))

    @rule(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def send(self, sizes: list[int]) -> None:
        for blocks in sizes:
            parcel = self.runner.run(self.board.outbox.take(self.board.cursor, max_blocks=blocks))
            if parcel is None:
                return
            self.board.cursor = parcel.cursor
            payload, content_type = pack(parcel.payload)
            self.under_way.append(Message(topics.up(BOARD, "readings"), payload, content_type=content_type))

    @rule()
    def begin_again_after_the_ack(self) -> None:
        self.board.cursor = START

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=2))
    def all_goes_well(self, counts: list[int]) -> None:
        self.commit(counts)
        self.send([1, 3])
        self.deliver(self.under_way)
        self.under_way = []
        for ack in self.acks:
            self.acknowledge(ack)

    @precondition(lambda self: self.acks)
    @rule(data=st.data(), stays=st.booleans())
    def an_ack_arrives(self, data: st.DataObject, stays: bool) -> None:
        index = data.draw(st.integers(0, len(self.acks) - 1), label="ack")
        self.acknowledge(self.acks[index] if stays else self.acks.pop(index))

    def acknowledge(self, message: Message) -> bool:
        ack = decode_json(Ack, message.payload, max_bytes=10_000)
        return bool(self.runner.run(self.board.outbox.acknowledge(ack)))

    # --- the network ---------------------------------------------------------------------------

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), stays=st.booleans(), killed=st.booleans())
    def messages_arrive(self, data: st.DataObject, stays: bool, killed: bool) -> None:
        picked = data.draw(
            st.lists(st.integers(0, len(self.under_way) - 1), min_size=1, max_size=4), label="messages"
        )
        messages = [self.under_way[index] for index in picked]
        if not stays:
            self.under_way = [kept for index, kept in enumerate(self.under_way) if index not in picked]
        self.deliver(messages, killed=killed)

    def deliver(self, messages: list[Message], *, killed: bool = False) -> None:
        """Let the hub ingest; ``killed``: right after its commit, before it has written roll-ups."""
        left: list[Path] = []

        def after_commit() -> None:
            if killed and not left:
                left.append(self.copy_of(self.hub.file.parent))

        self.acks += self.runner.run(self.hub.take(messages, after_commit))
        if left:
            self.runner.run(self.hub.start(left[0]))

    @precondition(lambda self: self.under_way or self.acks)
    @rule(data=st.data())
    def something_is_lost(self, data: st.DataObject) -> None:
        travelling = data.draw(st.sampled_from([way for way in (self.under_way, self.acks) if way]))
        travelling.pop(data.draw(st.integers(0, len(travelling) - 1)))

    # --- processes and files ---------------------------------------------------------------------

    @rule()
    def the_agent_is_killed(self) -> None:
        if self.travelled_in_time:
            self.gone |= self.known_to_nobody_but(self.board.outbox.stream)
        self.runner.run(self.board.start(self.board.file.parent))

    def known_to_nobody_but(self, stream: str) -> set[Key]:
        """What only a process that numbers in ``stream`` still knows to have been, and no file."""
        missing = self.made.keys() - self.stored().keys() - self.in_gaps()
        held = self.held()
        return {key for key in missing - held if key[0] == stream and stream not in {of for of, _ in held}}

    @rule()
    def somebody_copies_the_files(self) -> None:
        self.old_boards.append(self.copy_of(self.board.file.parent))
        self.old_hubs.append(self.copy_of(self.hub.file.parent))

    @precondition(lambda self: self.old_hubs)
    @rule(data=st.data(), what=st.sampled_from(["outbox", "outbox", "nothing", "hub", "hub"]))
    def files_come_back(self, data: st.DataObject, what: str) -> None:
        self.travelled_in_time = True
        if what == "hub":
            self.replace_hub(data.draw(st.sampled_from(self.old_hubs)))
        else:
            copies = [*self.old_boards] if what == "outbox" else [None]
            self.replace_outbox(data.draw(st.sampled_from(copies)))

    def replace_outbox(self, copy: Path | None) -> None:
        """What only the outbox knew of is gone for ever."""
        self.runner.run(self.board.start(copy))
        self.gone |= self.made.keys() - self.stored().keys() - self.in_gaps() - self.held()

    def replace_hub(self, copy: Path) -> None:
        """What the hub forgets becomes a gap, but where the board has forgotten the stream as well.

        As after every restore the broker begins anew: acks from before would make the board
        delete what the hub does not have any more.
        """
        self.acks.clear()
        self.runner.run(self.hub.start(copy))
        missing = self.made.keys() - self.stored().keys() - self.in_gaps() - self.held()
        spoken_of = {stream for stream, _ in self.held()} | {self.board.outbox.stream}
        self.gone |= {key for key in missing if key[0] not in spoken_of}

    def copy_of(self, folder: Path) -> Path:
        self.copies += 1
        copy_folder(folder, copy := self.folder / f"copy-{self.copies}")
        return copy

    # --- what must hold ------------------------------------------------------------------------

    def stored(self) -> dict[Key, Reading]:
        """What the hub's file holds, read with the contract alone."""
        found: dict[Key, Reading] = {}
        sql = "SELECT stream, seq0, skip, content_type, payload FROM batches ORDER BY id"
        for stream, seq0, skip, content_type, payload in self.hub.ask(sql):
            blocks = read_batch(unpack(payload, content_type)).blocks
            readings = [reading for block in blocks for reading in readings_of(block)]
            for seq, reading in list(enumerate(readings, seq0))[skip:]:
                assert (stream, seq) not in found, f"{stream}/{seq} is stored twice"
                found[stream, seq] = reading
        return found

    def in_gaps(self) -> set[Key]:
        """What the hub has declared to be gone."""
        keys = [
            (stream, seq)
            for stream, seq0, count in self.hub.ask("SELECT stream, seq0, count FROM gaps")
            for seq in range(seq0, seq0 + count)
        ]
        assert len(keys) == len(set(keys)), "two gaps overlap"
        return set(keys)

    def held(self) -> set[Key]:
        """What the outbox holds, as a reading or as a gap; not what is acknowledged and waits for its end."""
        sql = "SELECT stream, seq0, count FROM blocks UNION ALL SELECT stream, seq0, count FROM gaps"
        rows = self.runner.run(self.board.ask(sql))
        settled = self.board.outbox._settled
        return {
            (stream, seq)
            for stream, seq0, count in rows
            for seq in range(seq0, seq0 + count)
            if seq > settled.get(stream, 0)
        }

    @precondition(lambda self: self.board.starts)
    @invariant()
    def streams_are_settled_without_holes(self) -> None:
        stored, gaps = self.stored(), self.in_gaps()
        assert not stored.keys() & gaps
        settled = {
            (stream, seq)
            for stream, contiguous in self.hub.ask("SELECT stream, contiguous FROM streams")
            for seq in range(1, contiguous + 1)
        }
        assert stored.keys() | gaps == settled
        assert settled <= self.made.keys()
        assert all(self.made[key] == reading for key, reading in stored.items())

    @precondition(lambda self: self.board.starts and not self.travelled_in_time)
    @invariant()
    def nothing_is_lost_while_time_goes_forward(self) -> None:
        assert self.hub.ask("SELECT count(*) FROM gaps WHERE reason = 'lost'") == [(0,)]
        assert self.made.keys() == self.stored().keys() | self.in_gaps() | self.held()

    def the_network_works_again(self) -> None:
        """Deliver what is left, in order and at once, until the outbox is empty."""
        self.deliver(self.under_way)
        self.commit([1])  # what is left of a stream may be a gap, which travels with readings
        for _ in range(200):
            self.under_way.clear()
            self.acks.clear()
            self.begin_again_after_the_ack()
            self.send([64])
            if not self.under_way:
                break
            self.deliver(self.under_way)
            moved = [self.acknowledge(ack) for ack in self.acks]
            assert any(moved), "the hub does not move on"
        assert not self.held()
        missing = self.made.keys() - self.stored().keys() - self.in_gaps() - self.gone
        assert not missing, f"neither stored nor declared: {sorted(missing)}"
        self.streams_are_settled_without_holes()
        self.roll_ups_are_the_sum_of_what_is_stored()

    def roll_ups_are_the_sum_of_what_is_stored(self) -> None:
        values = [reading.value for reading in self.stored().values() if reading.value is not None]
        rolled = self.hub.ask("SELECT coalesce(sum(count), 0), coalesce(sum(sum), 0.0) FROM rollups")
        assert rolled == [(len(values), sum(values))]


TestDelivery = pytest.mark.soak(pytest.mark.slow(Delivery.TestCase))
TestDelivery.settings = settings(max_examples=ROUNDS, stateful_step_count=40)
