"""The link over a broker in memory: what is sent, what is believed, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.base.broker import Address, Message
from agent.clock import Clock
from agent.config import Config, Report
from agent.config import Link as Settings
from agent.identity import Identity, open_identity
from agent.link import Link
from agent.outbox import Outbox
from agent.status import LinkState
from agent.wire import note, topics
from agent.wire.apps import Apps, AppState
from agent.wire.decode import decode_json
from agent.wire.envelope import unpack
from agent.wire.errors import Busy, Refused
from agent.wire.messages import About, Ack, HubTime, Problem, Reading, Reply, Sensor, compose
from agent.wire.plain import dumps
from fakes.broker import FakeBroker, lichen_rule
from support.homehub import Ear, HomeHub

BOOT = "b" * 32
NOW_MS = 1_764_000_000_000
FAST = Settings(keepalive_s=90, backoff_low_s=0.01, backoff_high_s=0.05, resend_s=0.2, window=4)


@dataclass
class Bench:
    """A board, its hub, and the broker between them."""

    identity: Identity
    hub: HomeHub
    outbox: Outbox
    broker: FakeBroker
    ear: Ear
    config: Config
    sensors: tuple[Sensor, ...] = ()
    problems: tuple[Problem, ...] = ()
    states: list[LinkState] = field(default_factory=list)
    hurried: list[tuple[float, float]] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock.system)
    committed: int = 0

    @property
    def board(self) -> str:
        return self.identity.board

    @property
    def state(self) -> LinkState:
        return self.states[-1]

    async def describe(self) -> About:
        outbox, clock = await self.outbox.state(), self.clock.state()
        return About(
            self.board, "1", "", "", BOOT, 0,
            clock=clock, sensors=self.sensors, outbox=outbox, problems=self.problems,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def linked(self, **options: Any) -> AsyncIterator[Link]:
        """The link, running."""
        link = Link(
            self.identity,
            self.outbox,
            self.config,
            self.clock,
            connect=options.pop("connect", self.broker.connect),
            describe=self.describe,
            tell=self.states.append,
            hurry=lambda every_s, for_s: self.hurried.append((every_s, for_s)),
            **options,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run(), name="link")
            yield link
            task.cancel()

    async def commit(self, count: int) -> None:
        first = self.committed + 1
        self.committed += count
        values = range(first, first + count)
        await self.outbox.append(
            [Reading("room", float(n), n, 1_700_000_000_000 + n) for n in values], "synced"
        )

    @property
    def all_stored(self) -> bool:
        return self.ear.values == [float(n) for n in range(1, self.committed + 1)]


async def until(condition: Callable[[], object], within_s: float = 5) -> None:
    """Let everything else run until the condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[HomeHub, Path]:
    """A hub, and the state of a board that has joined it: openssl takes its time, so once for all."""
    folder = tmp_path_factory.mktemp("joined")
    hub = HomeHub(folder / "hub")
    hub.admit(open_identity(folder / "state"))
    return hub, folder / "state"


@pytest.fixture
async def bench(tmp_path: Path, joined: tuple[HomeHub, Path]) -> AsyncIterator[Bench]:
    hub, state = joined
    identity = open_identity(shutil.copytree(state, tmp_path / "state"))
    broker, ear = FakeBroker(allow=lichen_rule), Ear(identity.board)
    async with (
        Outbox.open(tmp_path / "outbox.db", boot=BOOT, max_bytes=10**7) as outbox,
        asyncio.TaskGroup() as group,
    ):
        listening = group.create_task(ear.listen(broker.connect, Address("hub", username="hub")), name="ear")
        await until(lambda: ear.session)
        yield Bench(identity, hub, outbox, broker, ear, Config(link=FAST))
        listening.cancel()


async def tell(bench: Bench, leaf: str, payload: bytes, *, retain: bool = False) -> None:
    """The hub (or whoever holds the broker) says something to the board."""
    bench.broker.publish(Message(topics.down(bench.board, leaf), payload, retain=retain))


# --- what is said --------------------------------------------------------------------------------


async def test_a_session_begins_with_presence_and_about_retained(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.states and bench.state.state == "online")
    first, second = (message for message in bench.broker.log[:2])
    assert [first.topic, second.topic] == [topics.up(bench.board, leaf) for leaf in ("presence", "about")]
    assert first.retain
    assert second.retain


async def test_a_clean_stop_says_offline_in_the_same_session(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
    await until(lambda: len(bench.ear.presences) == 2)
    online, offline = bench.ear.presences
    assert (online.state, offline.state) == ("online", "offline")
    assert online.nonce == offline.nonce


async def test_a_lost_link_comes_back_as_another_session(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        bench.broker.cut(bench.board)
        await until(lambda: len(bench.ear.abouts) == 2)
        bench.broker.cut(bench.board)
        await until(lambda: len(bench.ear.abouts) == 3)
        states = [state.state for state in bench.states if state.state != "connecting"]
    presences = [presence for presence in bench.ear.presences if presence.state == "online"]
    assert len({presence.nonce for presence in presences}) == 3
    assert [before for before, after in pairwise(states) if before != after] == ["online", "offline"] * 2
    # The wills wait, and whoever is back in time was never gone.
    assert [presence.state for presence in bench.ear.presences[:3]] == ["online"] * 3


async def test_about_is_said_again_when_it_says_something_else(bench: Bench) -> None:
    async with bench.linked(about_every_s=0.05) as link:
        await until(lambda: bench.ear.abouts)
        await bench.commit(3)
        link.changed.set()  # only what is held has changed, which is no news
        await until(lambda: bench.all_stored)
        bench.sensors = (Sensor("room", "file", error="unplugged"),)
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 2)
        bench.sensors = (Sensor("room", "file"),)
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 3)
    assert [about.sensors[0].error for about in bench.ear.abouts[1:]] == ["unplugged", ""]


async def test_a_problem_is_said_before_the_quiet_time_is_over(bench: Bench) -> None:
    async with asyncio.timeout(6), bench.linked(about_every_s=6) as link:
        await until(lambda: bench.ear.abouts)
        bench.sensors = (Sensor("room", "file", error="unplugged"),)
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 2)
        bench.sensors = ()  # which can wait
        bench.problems = (Problem("disk-full", "The disk is full."),)
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 3)
        bench.problems = ()
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 4)
    assert [len(about.problems) for about in bench.ear.abouts] == [0, 0, 1, 0]


class OneApp:
    """A desk with one app."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.state = AppState("demo", 1, 0, "updating")

    def report(self) -> Apps:
        return Apps(1, (self.state,))

    def be(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.changed.set()

    async def take(self, text: str, key: note.Verifier, hub: str) -> None:
        raise AssertionError("nothing was ordered")

    async def logs(self, *_: object) -> Reply:
        raise AssertionError("nobody asked")


async def test_how_a_change_of_an_app_has_ended_is_said_at_once_and_its_steps_in_their_time(
    bench: Bench,
) -> None:
    desk, loop = OneApp(), asyncio.get_running_loop()

    def said() -> list[AppState]:
        found = [each for each in bench.broker.log if topics.parse(each.topic).leaf == "apps"]
        reports = [
            decode_json(Apps, unpack(each.payload, each.content_type), max_bytes=10**6) for each in found
        ]
        return [report.apps[0] for report in reports]

    async with bench.linked(desk=desk, apps_every_s=0.4):
        await until(lambda: len(said()) == 1)
        began = loop.time()
        desk.be(step="pulling")
        await asyncio.sleep(0)
        desk.be(step="starting")
        await until(lambda: len(said()) == 2)
        assert loop.time() - began > 0.2
        began = loop.time()
        desk.be(step="waiting")
        await asyncio.sleep(0)
        desk.be(step="", running=1, state="running")
        await until(lambda: len(said()) == 3)
        assert loop.time() - began < 0.2
    assert [(each.state, each.step) for each in said()] == [
        ("updating", ""),
        ("updating", "starting"),
        ("running", ""),
    ]


class Notebook:
    """Books that say something in each session, and keep what they hear."""

    def __init__(self, board: str) -> None:
        self.message = Message(topics.up(board, "usage"), b"{}")
        self.began = self.ended = 0
        self.receipts: list[bytes] = []

    async def keep(self, publish: Callable[[Message], Awaitable[bool]]) -> NoReturn:
        self.began += 1
        try:
            assert await publish(self.message)
            while True:
                await asyncio.Event().wait()
        finally:
            self.ended += 1

    def heard(self, payload: bytes) -> None:
        self.receipts.append(payload)
        if not payload.startswith(b"{"):
            raise Refused("that is no receipt")


async def test_the_usage_log_speaks_in_each_session_and_hears_receipts(bench: Bench) -> None:
    books, topic = Notebook(bench.board), topics.down(bench.board, "receipt")
    async with bench.linked(books=books):
        await until(lambda: [each.topic for each in bench.broker.log].count(books.message.topic) == 1)
        bench.broker.publish(Message(topic, b"nothing"))  # which ends no session
        bench.broker.publish(Message(topic, b'{"size":1}', retain=True))
        await until(lambda: books.receipts == [b"nothing", b'{"size":1}'])
        bench.broker.cut(bench.board)
        await until(lambda: (books.began, books.ended) == (2, 1))
        await until(lambda: books.receipts[2:] == [b'{"size":1}'])  # the broker had kept it
    assert books.ended == 2


async def test_an_about_that_was_refused_is_said_again(bench: Bench) -> None:
    bench.broker.allow = lambda user, action, topic: (
        lichen_rule(user, action, topic) and not topic.endswith("/about")
    )
    async with bench.linked(about_every_s=0.05) as link:
        await until(lambda: bench.states and bench.state.refused)
        bench.sensors = (Sensor("room", "file", error="unplugged"),)
        link.changed.set()
        await asyncio.sleep(0.1)
        assert not bench.ear.abouts
        bench.broker.allow = lichen_rule
        await until(lambda: bench.ear.abouts)  # nothing has changed since it was refused
        await until(lambda: not bench.state.refused)
    assert [about.sensors[0].error for about in bench.ear.abouts] == ["unplugged"]


async def test_what_the_link_has_used_is_told_and_outlives_a_restart(bench: Bench) -> None:
    bench.clock = Clock(BOOT, Clock.system().mono_ms, lambda: NOW_MS, lambda: "synced")
    async with bench.linked():
        await bench.commit(500)
        await until(lambda: bench.state.traffic.sent > 500)
    used = bench.state.traffic
    assert used.day == NOW_MS // 86_400_000
    async with bench.linked() as link:
        await until(lambda: len(bench.ear.abouts) == 2)
        assert link.traffic.sent >= used.sent
    assert bench.ear.abouts[1].traffic.sent >= used.sent


# --- readings ------------------------------------------------------------------------------------


async def test_what_is_committed_arrives_and_is_deleted(bench: Bench) -> None:
    await bench.commit(5)
    async with bench.linked():
        await until(lambda: bench.all_stored)
        await bench.commit(5)
        await until(lambda: bench.all_stored)
        async with asyncio.timeout(5):
            while (await bench.outbox.state()).readings:  # until the acknowledgement has come back, too
                await asyncio.sleep(0.002)
    assert bench.state.acknowledged_ms


async def test_a_backlog_goes_out_through_the_window(bench: Bench) -> None:
    for _ in range(60):
        await bench.commit(512)
    async with bench.linked():
        await until(lambda: bench.all_stored, within_s=20)
    assert bench.ear.batches >= 30


async def test_a_batch_that_got_lost_is_sent_again_with_all_behind_it(bench: Bench) -> None:
    bench.ear.deaf = lambda count: count in (2, 5)
    for _ in range(12):
        await bench.commit(512)
    async with bench.linked():
        await until(lambda: bench.all_stored)
    assert bench.ear.batches < 40


async def test_a_silent_hub_is_asked_again_ever_later(bench: Bench) -> None:
    bench.ear.silent = True
    await bench.commit(1)
    async with bench.linked():
        await until(lambda: bench.ear.batches == 3)  # at 0, 0.05 and 0.1 s; the cap is the back-off's
        bench.ear.silent = False
        await until(lambda: bench.state.acknowledged_ms)
    assert bench.all_stored


async def test_a_retained_acknowledgement_of_old_does_not_send_again(bench: Bench) -> None:
    await tell(bench, "ack", dumps(Ack({"z" * 16: 500})), retain=True)
    await bench.commit(3)
    async with bench.linked():
        await until(lambda: bench.all_stored)
        await until(lambda: bench.state.acknowledged_ms)
    assert bench.ear.batches == 1


async def test_reports_wait_for_their_time_but_a_backlog_does_not(bench: Bench) -> None:
    bench.config = replace(bench.config, report=Report(every_s=0.3, commit_every_s=0.1))
    for _ in range(6):  # more than four at once, and less than what gets a lane of its own
        await bench.commit(512)
    async with bench.linked():
        await until(lambda: bench.all_stored)
        before = bench.ear.batches
        for _ in range(5):
            await bench.commit(1)
        await until(lambda: bench.all_stored)
    assert bench.ear.batches == before + 1


async def test_a_refused_message_is_noticed_and_not_repeated_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def no_readings(user: str, action: Any, topic: str) -> bool:
        return lichen_rule(user, action, topic) and not topic.endswith("/readings")

    bench.broker.allow = no_readings
    await bench.commit(1)
    async with bench.linked():
        await until(lambda: bench.states and bench.state.refused)
        bench.broker.allow = lichen_rule
        await until(lambda: bench.all_stored)
        await until(lambda: not bench.state.refused)
    assert [record.message for record in caplog.records].count("message refused") == 1


async def test_nothing_is_lost_while_the_link_breaks_again_and_again(bench: Bench) -> None:
    async with bench.linked():
        for round in range(10):
            await until(lambda: bench.board in bench.broker.connected)
            await bench.commit(600)
            if round % 2:
                bench.broker.cut(bench.board)
            else:
                next_one = bench.ear.batches + 1
                bench.ear.deaf = next_one.__eq__
        await until(lambda: bench.all_stored, within_s=10)


# --- what is believed ----------------------------------------------------------------------------


async def test_a_command_is_done_once_in_its_own_session(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        ping = bench.hub.command(bench.board, nonce, "ping", id="p1")
        await tell(bench, "command", ping)
        await tell(bench, "command", ping)
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "reboot", id="p2"))
        await tell(bench, "command", bench.hub.command(bench.board, "earlier", "ping", id="p3"))
        await until(lambda: len(bench.ear.replies) == 3)
    assert [(reply.id, reply.status) for reply in bench.ear.replies] == [
        ("p1", "done"),
        ("p2", "refused"),
        ("p3", "refused"),
    ]
    assert "'reboot'" in bench.ear.replies[1].error


async def test_a_refused_reply_is_forgotten_with_the_next_one(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.presences and bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        bench.broker.allow = lambda user, action, topic: (
            lichen_rule(user, action, topic) and "/reply/" not in topic
        )
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping", id="p1"))
        await until(lambda: bench.state.refused)
        bench.broker.allow = lichen_rule
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping", id="p2"))
        await until(lambda: bench.ear.replies)
        await until(lambda: not bench.state.refused)


async def test_a_live_order_hurries_sampler_and_reports_for_its_time(bench: Bench) -> None:
    bench.config = replace(bench.config, report=Report(every_s=3600, commit_every_s=60))
    async with bench.linked():
        await bench.commit(1)
        await until(lambda: bench.all_stored)  # and the next report is an hour away
        await bench.commit(1)
        nonce = bench.ear.presences[0].nonce
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "live", args={"for_s": 60}))
        await until(lambda: bench.all_stored)
        await until(lambda: bench.ear.replies)
        bad = bench.hub.command(bench.board, nonce, "live", id="c2", args={"for_s": 10**9})
        await tell(bench, "command", bad)
        await until(lambda: len(bench.ear.replies) == 2)
    done, refused = bench.ear.replies
    assert (done.status, done.data) == ("done", {"every_s": 2, "for_s": 60})
    assert refused.status == "refused"
    assert "for_s" in refused.error
    assert bench.hurried == [(2, 60)]


async def test_a_metered_link_is_not_watched_every_two_seconds(bench: Bench) -> None:
    bench.config = replace(bench.config, report=Report(profile="metered", every_s=300))
    async with bench.linked():
        await until(lambda: bench.ear.presences)
        nonce = bench.ear.presences[0].nonce
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "live"))
        await until(lambda: bench.ear.replies)
    assert bench.hurried == [(10, 60)]
    assert bench.ear.replies[0].data == {"every_s": 10, "for_s": 60}


# --- the time ------------------------------------------------------------------------------------


@dataclass
class Wrong:
    """A clock that wakes up in 1970; the test says how long the board has been up."""

    mono_ms: int = 5_000

    @property
    def clock(self) -> Clock:
        return Clock(BOOT, lambda: self.mono_ms, lambda: self.mono_ms, lambda: "unsynced")


async def test_the_hub_tells_the_time_from_1970_on(bench: Bench) -> None:
    bench.clock = Wrong().clock
    async with bench.linked(about_every_s=0.01) as link:
        await until(lambda: bench.ear.abouts)
        assert bench.ear.abouts[0].clock == "unsynced"
        await tell(bench, "time", bench.hub.time(bench.board, bench.ear.presences[0].nonce, NOW_MS))
        await until(lambda: bench.clock.state() == "hub")
        link.changed.set()
        await until(lambda: len(bench.ear.abouts) == 2)
    assert bench.clock.wall_ms() == NOW_MS
    assert bench.ear.abouts[1].clock == "hub"


async def test_nobody_but_the_hub_tells_this_session_the_time(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.clock = Wrong().clock
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce, hub = bench.ear.presences[0].nonce, bench.hub
        for signer in (hub.keys.command, hub.keys.order, hub.keys.root):
            await tell(bench, "time", hub.time(bench.board, nonce, NOW_MS, signer=signer))
        await tell(bench, "time", hub.time("a" * 16, nonce, NOW_MS))
        await tell(bench, "time", hub.time(bench.board, "earlier", NOW_MS), retain=True)
        command = compose("command", HubTime(bench.board, nonce, NOW_MS))  # the right key, another kind
        await tell(bench, "time", note.sign(command, hub.keys.time).encode())
        await tell(bench, "time", b"now")
        await tell(bench, "command", hub.command(bench.board, nonce, "ping"))
        await until(lambda: bench.ear.replies)
    assert bench.clock.state() == "unsynced"
    assert [record.message for record in caplog.records].count("message not taken") == 7


async def test_the_time_never_goes_back_within_a_session(bench: Bench) -> None:
    wrong = Wrong()
    bench.clock = wrong.clock
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        first = bench.hub.time(bench.board, nonce, NOW_MS)
        await tell(bench, "time", first)
        await until(lambda: bench.clock.state() == "hub")
        wrong.mono_ms += 3_600_000
        await tell(bench, "time", first)  # somebody held it back for an hour, or sends it again
        await tell(bench, "time", bench.hub.time(bench.board, nonce, NOW_MS + 3_590_000))
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping"))
        await until(lambda: bench.ear.replies)
        assert bench.clock.wall_ms() == NOW_MS + 3_600_000
        await tell(bench, "time", bench.hub.time(bench.board, nonce, NOW_MS + 3_600_500))
        await until(lambda: bench.clock.wall_ms() == NOW_MS + 3_600_500)


async def test_a_first_time_that_was_held_back_is_not_taken(bench: Bench) -> None:
    wrong = Wrong()
    bench.clock = wrong.clock
    async with bench.linked(about_every_s=0.01) as link:
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        held_back = bench.hub.time(bench.board, nonce, NOW_MS)
        wrong.mono_ms += 120_000
        await tell(bench, "time", held_back)
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping"))
        await until(lambda: bench.ear.replies)
        assert bench.clock.state() == "unsynced"
        bench.sensors = (Sensor("room", "file"),)
        link.changed.set()  # the hub is told again that the board does not know, and answers that
        await until(lambda: len(bench.ear.abouts) == 2)
        await tell(bench, "time", bench.hub.time(bench.board, nonce, NOW_MS + 120_000))
        await until(lambda: bench.clock.state() == "hub")
    assert bench.clock.wall_ms() == NOW_MS + 120_000


async def test_a_later_session_may_set_the_clock_back(bench: Bench) -> None:
    bench.clock = Wrong().clock
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        await tell(bench, "time", bench.hub.time(bench.board, bench.ear.presences[0].nonce, NOW_MS + 10**9))
        await until(lambda: bench.clock.state() == "hub")
        bench.broker.cut(bench.board)  # somebody sets the hub's clock right
        await until(lambda: len(bench.ear.abouts) == 2)
        await tell(bench, "time", bench.hub.time(bench.board, bench.ear.presences[1].nonce, NOW_MS))
        await until(lambda: bench.clock.wall_ms() == NOW_MS)


async def test_nobody_but_the_hub_is_believed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        keys = bench.hub.keys
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping", signer=keys.order))
        await tell(bench, "command", bench.hub.command("a" * 16, nonce, "ping"))
        await tell(bench, "command", b"{}")
        await tell(bench, "ack", b"garbage")
        await tell(bench, "hub", bench.hub.document(7, signer=keys.command).encode())
        await tell(bench, "order", b"from a newer hub")
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping", id="honest"))
        await until(lambda: bench.ear.replies)
    assert [reply.id for reply in bench.ear.replies] == ["honest"]
    assert bench.identity.document().number == 1
    assert [record.message for record in caplog.records].count("message not taken") == 5


async def test_a_newer_document_brings_its_command_key(bench: Bench, tmp_path: Path) -> None:
    other = HomeHub(tmp_path / "other")
    keys = replace(bench.hub.keys.public, command=other.keys.command.vkey)
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        await tell(bench, "hub", bench.hub.document(2, keys=keys).encode(), retain=True)
        await until(lambda: bench.identity.document().number == 2)
        signed = bench.hub.command(bench.board, nonce, "ping", signer=other.keys.command)
        await tell(bench, "command", signed)
        await until(lambda: bench.ear.replies)
        assert len(bench.ear.abouts) == 1  # the same session


async def test_a_document_that_renewing_brought_is_gone_by_when_the_hub_says_it(
    bench: Bench, tmp_path: Path
) -> None:
    other = HomeHub(tmp_path / "other")
    keys = replace(bench.hub.keys.public, command=other.keys.command.vkey)
    document = bench.hub.document(2, keys=keys)
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        nonce = bench.ear.presences[0].nonce
        assert bench.identity.replace_document(document)
        await tell(bench, "hub", document.encode(), retain=True)
        await tell(bench, "command", bench.hub.command(bench.board, nonce, "ping", signer=other.keys.command))
        await until(lambda: bench.ear.replies)


async def test_a_document_that_cannot_be_written_does_not_end_the_link(bench: Bench) -> None:
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        (bench.identity.directory / ".hub.note.new").mkdir()  # as a card does that fails
        await tell(bench, "hub", bench.hub.document(2).encode(), retain=True)
        await bench.commit(1)
        await until(lambda: bench.all_stored)
    assert bench.identity.document().number == 1


async def test_a_hub_that_moves_is_followed(bench: Bench) -> None:
    addresses: list[str] = []

    def connect(address: Address) -> Any:
        addresses.append(str(address))
        return bench.broker.connect(address)

    async with bench.linked(connect=connect):
        await until(lambda: bench.ear.abouts)
        moved = bench.hub.document(2, mqtt_host="elsewhere.example", mqtt_port=1234)
        await tell(bench, "hub", moved.encode(), retain=True)
        await until(lambda: len(bench.ear.abouts) == 2)
    assert addresses == ["127.0.0.1:8422", "elsewhere.example:1234"]


# --- bad days --------------------------------------------------------------------------------------


async def test_a_broker_that_is_not_there_is_tried_with_back_off(bench: Bench) -> None:
    dead = FakeBroker(dead=True)
    draws: list[float] = []

    def draw() -> float:
        draws.append(1.0)
        return 1.0

    async with bench.linked(connect=dead.connect, draw=draw):
        await until(lambda: bench.states and bench.state.attempts >= 4)
        offline = bench.state
        dead.start()
        await until(lambda: bench.state.state == "online")
    assert offline.error == "nothing listens there"
    assert {state.since_ms for state in bench.states if state.state == "offline"} == {offline.since_ms}
    assert len(draws) >= 4


async def test_a_certificate_that_is_not_accepted_is_told_and_the_next_one_tried_at_once(
    bench: Bench,
) -> None:
    told, again = asyncio.Event(), asyncio.Event()
    broker = bench.broker

    class Strict:
        """Accepts nobody until the certificate was renewed."""

        def __init__(self, address: Address) -> None:
            self.link = broker.connect(address)

        async def __aenter__(self) -> Any:
            if not again.is_set():
                raise Refused("the broker does not accept our certificate", code="certificate")
            return await self.link.__aenter__()

        async def __aexit__(self, *ending: Any) -> None:
            await self.link.__aexit__(*ending)

    bench.config = replace(bench.config, link=replace(FAST, backoff_low_s=3600, backoff_high_s=3600))
    linked = bench.linked(connect=Strict, uncertified=told.set, again=again, draw=lambda: 1.0)
    async with linked, asyncio.timeout(5):
        await told.wait()
        await asyncio.sleep(0)  # it has gone to sleep for an hour
        again.set()
        await until(lambda: bench.ear.abouts)


@pytest.mark.slow
async def test_a_file_that_another_process_holds_does_not_end_the_link(bench: Bench, tmp_path: Path) -> None:
    class Held(Outbox):
        """An outbox whose file somebody else has locked now and then."""

        locked = False

        async def take(self, *args: Any, **options: Any) -> Any:
            if self.locked:
                raise Busy("outbox.db has been locked by another process for 5 s")
            return await super().take(*args, **options)

        async def acknowledge(self, ack: Ack) -> Any:
            if self.locked:
                raise Busy("outbox.db has been locked by another process for 5 s")
            return await super().acknowledge(ack)

    async with Held.open(tmp_path / "held.db", boot=BOOT, max_bytes=10**7) as outbox:
        assert isinstance(outbox, Held)
        bench.outbox = outbox
        async with bench.linked():
            await bench.commit(3)
            await until(lambda: bench.all_stored)
            outbox.locked = True
            await tell(bench, "ack", dumps(Ack({outbox.stream: 3})))
            await bench.commit(3)
            await asyncio.sleep(0.1)
            outbox.locked = False
            await until(lambda: bench.all_stored, within_s=8)


async def test_a_stop_while_the_broker_is_frozen_takes_no_more_than_a_second(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    async with bench.linked():
        await until(lambda: bench.ear.abouts)
        bench.broker.freeze()
        await bench.commit(1)
        began_s = loop.time()
    assert loop.time() - began_s < 1
    bench.broker.thaw()
