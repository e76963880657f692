"""Commands over a broker in memory, in virtual time: who is told what, when, and whom one believes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, Session
from agent.wire import note, topics
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Command, HubTime, Reply, read_text
from agent.wire.plain import dumps
from fakes.broker import FakeBroker, lichen_rule
from hub.fleet.arrivals import ReplyCame, read_arrival
from hub.fleet.commands import Commands
from hub.store import boards
from hub.store.boards import PresenceChange, PresenceState
from hub.store.database import Store
from support.ingest import KEYS
from support.still import still_store
from support.virtual import WALL_MS, virtual

A, B = "a" * 16, "b" * 16


class Board:
    """What a board hears, and the replies that it writes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.heard: list[tuple[float, Message]] = []

    async def listen(self) -> None:
        async for message in self.session.messages():
            self.heard.append((asyncio.get_running_loop().time(), message))

    @property
    def commands(self) -> list[Command]:
        """The commands that came, each signed by the hub's command key."""
        return [
            read_text("command", Command, note.open_note(message.payload, KEYS.command.verifier))
            for _, message in self.heard
            if message.topic.endswith("/command")
        ]

    @property
    def times(self) -> list[HubTime]:
        return [
            read_text("time", HubTime, note.open_note(message.payload, KEYS.time.verifier))
            for _, message in self.heard
            if message.topic.endswith("/time")
        ]

    def when(self, leaf: str) -> list[float]:
        return [at_s for at_s, message in self.heard if message.topic.endswith(leaf)]

    async def reply(self, board: str, id: str, status: str = "done", **data: object) -> None:
        reply = Reply(id, status, data)  # type: ignore[arg-type]
        await self.session.publish(Message(topics.up(board, "reply", id), dumps(reply)))


class House:
    """A store, commands, and a broker that lets everybody do what is theirs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broker = FakeBroker(allow=lichen_rule)
        self.commands = Commands(store, KEYS, self.now_ms)

    def now_ms(self) -> int:
        return WALL_MS + int(asyncio.get_running_loop().time() * 1000)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[House]:
        async with still_store(path) as store:
            house = cls(store)
            async with store.write() as tx:
                for id in (A, B):
                    await boards.add_board(tx, id=id, log_key="", seal_key="", joined_ms=0)
            async with house.connected():
                yield house

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """The hub's connection, as `hub.fleet.link` keeps one."""
        address = Address("hub", host="x", port=1, username="hub")
        async with self.broker.connect(address) as session, asyncio.TaskGroup() as tasks:
            await session.subscribe(topics.up_all())
            running = [
                tasks.create_task(self.commands.run(session), name="commands"),
                tasks.create_task(self._read(session), name="read"),
            ]
            yield
            for task in running:
                task.cancel()

    async def _read(self, session: Session) -> None:
        async for message in session.messages():
            arrival = read_arrival(message, self.now_ms())
            if isinstance(arrival, ReplyCame):
                self.commands.replied(arrival.board, arrival.reply)

    @asynccontextmanager
    async def board(self, id: str) -> AsyncIterator[Board]:
        """A board's connection, without a word from it."""
        address = Address(id, host="x", port=1, username=id)
        async with self.broker.connect(address) as session, asyncio.TaskGroup() as tasks:
            await session.subscribe(topics.down_all(id))
            board = Board(session)
            listening = tasks.create_task(board.listen(), name="listen")
            yield board
            listening.cancel()

    async def note(self, id: str, state: PresenceState, nonce: str) -> None:
        """Ingest commits that a board came or went."""
        async with self.store.write() as tx:
            await boards.save_presence(tx, [PresenceChange(id, state, nonce, self.now_ms())])
        if state == "online":
            self.commands.born(id)


# --- commands ------------------------------------------------------------------------------------


@virtual
async def test_a_board_does_what_it_is_told_and_says_so(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board:
        await house.note(A, "online", "n1")
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(house.commands.send(A, "ping", {"x": 1}, timeout_s=5), name="send")
            await asyncio.sleep(1)
            [command] = board.commands
            assert (command.board, command.nonce, command.name, command.args) == (A, "n1", "ping", {"x": 1})
            await board.reply(A, command.id, "running")
            await asyncio.sleep(1)
            assert not sent.done()
            await board.reply(A, command.id, at_ms=7)
        assert sent.result() == Reply(command.id, "done", {"at_ms": 7})
        [message] = [each for _, each in board.heard if each.topic.endswith("/command")]
        assert (message.topic, message.retain, message.expiry_s) == (topics.down(A, "command"), False, 5)
        await board.reply(A, command.id)  # late, and for nobody


@virtual
async def test_an_offline_or_unknown_board_is_refused_at_once(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house:
        for id in (A, "c" * 16):
            with pytest.raises(Refused, match="offline") as refused:
                await house.commands.send(id, "ping")
            assert refused.value.code == "offline"
        await house.note(A, "online", "n1")
        async with house.store.write() as tx:
            await boards.revoke_board(tx, A, 1)
        with pytest.raises(Refused):
            await house.commands.send(A, "ping")
        assert asyncio.get_running_loop().time() == 0


@virtual
async def test_no_answer_is_said_in_time(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A):
        await house.note(A, "online", "n1")
        with pytest.raises(LinkDown, match="within 3 s") as down:
            await house.commands.send(A, "ping", timeout_s=3)
        assert (down.value.code, asyncio.get_running_loop().time()) == ("no-answer", 3)


@virtual
async def test_only_the_board_that_was_asked_is_believed(tmp_path: Path) -> None:
    async with (
        House.open(tmp_path / "hub.db") as house,
        house.board(A) as asked,
        house.board(B) as other,
    ):
        await house.note(A, "online", "n1")
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(house.commands.send(A, "ping"), name="send")
            await asyncio.sleep(0.1)
            id = asked.commands[0].id
            await other.reply(B, id, lie=1)  # knows the id, has its own topics only
            with pytest.raises(Refused):
                await other.reply(A, id, lie=2)
            await asked.reply(A, "x" + id[1:], lie=3)  # the right board, another command
            await asyncio.sleep(0.1)
            assert not sent.done()
            await asked.reply(A, id, true=1)
        assert sent.result().data == {"true": 1}


@virtual
async def test_ids_are_not_to_be_guessed_and_used_once(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board:
        await house.note(A, "online", "n1")
        for _ in range(3):
            with pytest.raises(LinkDown):
                await house.commands.send(A, "ping", timeout_s=0.1)
        ids = {command.id for command in board.commands}
        assert len(ids) == 3
        assert all(len(id) == 22 for id in ids), "16 random bytes"


@virtual
async def test_without_its_broker_nothing_is_sent(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house:
        await house.note(A, "online", "n1")
    async with still_store(tmp_path / "hub.db") as store:
        commands = Commands(store, KEYS, lambda: WALL_MS)
        with pytest.raises(LinkDown, match="broker"):
            await commands.send(A, "ping")


# --- live ----------------------------------------------------------------------------------------


@virtual
async def test_a_board_reports_live_while_its_page_is_open(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board, house.board(B) as other:
        await house.note(A, "online", "n1")
        await house.note(B, "online", "n1")
        await asyncio.sleep(10)
        assert board.commands == []
        with house.commands.watching(A):
            await asyncio.sleep(1)
            with house.commands.watching(A):  # a second page of the same board
                await asyncio.sleep(98)
            await asyncio.sleep(1)
        await asyncio.sleep(300)
        assert board.when("/command") == pytest.approx([10, 55, 100])
        assert [(each.name, each.args) for each in board.commands] == [
            ("live", {"for_s": 60, "every_s": 2})
        ] * 3
        assert other.commands == []


@virtual
async def test_a_board_that_comes_back_is_told_again(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board:
        with house.commands.watching(A):
            await asyncio.sleep(20)
            assert board.commands == []  # it is offline
            await house.note(A, "online", "n1")
            await asyncio.sleep(5)
            await house.note(A, "offline", "n1")
            await asyncio.sleep(1)
            await house.note(A, "online", "n2")
            await asyncio.sleep(5)
        assert board.when("/command") == pytest.approx([20, 26])
        assert [command.nonce for command in board.commands] == ["n1", "n2"]


# --- time ----------------------------------------------------------------------------------------


@virtual
async def test_each_birth_is_told_the_time(tmp_path: Path) -> None:
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board, house.board(B) as other:
        await asyncio.sleep(7)
        await house.note(A, "online", "n1")
        await asyncio.sleep(1)
        assert board.times == [HubTime(A, "n1", WALL_MS + 7000)]
        [message] = [each for _, each in board.heard]
        assert (message.retain, message.expiry_s) == (False, 60)
        assert other.heard == []
        house.commands.tell_time(A)  # its about says that it does not know the time
        await asyncio.sleep(1)
        assert board.times[1] == HubTime(A, "n1", WALL_MS + 8000)


@virtual
async def test_many_births_at_once(tmp_path: Path) -> None:
    """A fleet comes back: each board is told once, in its newest session."""
    async with House.open(tmp_path / "hub.db") as house, house.board(A) as board:
        for number in range(50):
            await house.note(A, "online", f"n{number}")
        await asyncio.sleep(1)
        assert board.times[-1].nonce == "n49"
        before = len(board.times)
        await house.note(A, "offline", "n49")
        house.commands.tell_time(A)
        await asyncio.sleep(60)
        assert len(board.times) == before, "nobody is there to be told"
