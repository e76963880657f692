"""The logs of an app's containers: merged, in portions, and none twice or lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.broker import Message
from agent.containers.engine import LABEL_APP, Container
from agent.containers.logs import (
    BURST,
    CHUNK_BYTES,
    CHUNK_LINES,
    MAX_TEXT,
    REFILL,
    Log,
    Logs,
    chunks,
    merge,
    newest,
)
from agent.containers.names import LABEL_SERVICE
from agent.wire import topics
from agent.wire.apps import LogLine, LogLines, LogsWanted
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED, unpack
from agent.wire.errors import LinkDown, Refused
from agent.wire.messages import Reply
from agent.wire.plain import dumps
from fakes.podman import FakePodman
from support.virtual import virtual

BOARD = "b" * 16
WEB = Container("1", "demo_web.0", {LABEL_APP: "demo", LABEL_SERVICE: "web"}, "running")


def line(text: str, at_ms: int | None = 0, container: str = "") -> LogLine:
    return LogLine(container, at_ms, "stdout", text)


def texts(lines: Sequence[LogLine]) -> list[str]:
    return [each.text for each in lines]


# --- how far a log has been read ---------------------------------------------------------------


def test_what_is_known_is_not_taken_again() -> None:
    log = Log(WEB)
    first = [line("a", 1), line("b", 5), line("c", 5)]
    assert texts(log.take(first)) == ["a", "b", "c"]
    assert log.take(first) == []
    assert texts(log.take([*first, line("c", 5), line("d", 6)])) == ["c", "d"]
    assert log.at_ms == 6


def test_equal_lines_of_one_millisecond_are_as_many_as_were_written() -> None:
    log = Log(WEB)
    assert len(log.take([line("again", 5)] * 3)) == 3
    assert len(log.take([line("again", 5)] * 5)) == 2


def test_a_line_that_was_not_finished_is_taken_again_when_it_is() -> None:
    log = Log(WEB)
    log.take([line("loading", 5)])
    assert texts(log.take([line("loading ... done", 5)])) == ["loading ... done"]


def test_a_line_without_a_time_has_that_of_the_one_before() -> None:
    log = Log(WEB)
    lines = [line("start", None), line("a", 5), line("more of a", None)]
    assert [each.at_ms for each in log.take(lines)] == [None, 5, 5]
    assert texts(log.take([*lines[1:], line("and more", None)])) == ["and more"]


def test_lines_before_the_asked_time_are_left_out() -> None:
    log = Log(WEB, 5_500)  # Podman counts in whole seconds, and answers from 5,000 on
    assert texts(log.take([line("a", 5_000), line("b", 5_500), line("c", 6_000)])) == ["b", "c"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.booleans())))
def test_each_line_is_taken_once_however_often_one_looks(written: list[tuple[int, str, bool]]) -> None:
    """``written``: how long after the last, what, and whether somebody looks then."""
    log, lines, taken, now_ms = Log(WEB), [], [], 1_000
    for pause_ms, text, looks in written:
        now_ms += pause_ms
        lines.append(line(text, now_ms))
        if looks:
            since_ms = (log.at_ms or 0) // 1000 * 1000
            taken += log.take([each for each in lines if each.at_ms >= since_ms])
    taken += log.take(lines)
    assert [(each.at_ms, each.text) for each in taken] == [(each.at_ms, each.text) for each in lines]


# --- merging and portions ----------------------------------------------------------------------


def test_lines_are_merged_by_time_and_each_container_keeps_its_order() -> None:
    web = [line("w1", 1, "web"), line("w2", 5, "web"), line("w3", 5, "web")]
    db = [line("d1", 0, "db"), line("d2", 5, "db"), line("d3", 9, "db")]
    assert texts(merge([web, db])) == ["d1", "w1", "w2", "w3", "d2", "d3"]
    set_back = [line("before", 9), line("after", 2)]
    assert texts(merge([set_back])) == ["before", "after"]


def test_of_too_many_lines_the_newest_are_kept() -> None:
    lines = [line(f"{number:03}") for number in range(100)]
    size = len(dumps(lines[0]))
    kept, left = newest(lines, 10 * size + 5)
    assert texts(kept) == [f"{number:03}" for number in range(90, 100)]
    assert left == 5


def test_a_long_line_is_cut_and_shows_it() -> None:
    kept, _ = newest([line("x" * (MAX_TEXT + 1)), line("y" * MAX_TEXT)], BURST)
    assert [(len(each.text), each.text[-1]) for each in kept] == [(MAX_TEXT, "…"), (MAX_TEXT, "y")]


@given(st.lists(st.text(max_size=60).map(lambda text: line(text * 80)), max_size=40))
def test_portions_are_small_and_nothing_is_lost(lines: list[LogLine]) -> None:
    kept, _ = newest(lines, BURST * 10)
    portions = list(chunks(kept))
    assert [each for portion in portions for each in portion] == kept
    for portion in portions:
        assert sum(len(dumps(each)) for each in portion) <= CHUNK_BYTES


def test_a_portion_has_a_bounded_number_of_lines() -> None:
    sizes = [len(portion) for portion in chunks([line("")] * (2 * CHUNK_LINES + 1))]
    assert sizes == [CHUNK_LINES, CHUNK_LINES, 1]


# --- the command -------------------------------------------------------------------------------


class Lab:
    """A board with an app of two services, and what its hub gets."""

    def __init__(self) -> None:
        self.podman = FakePodman()
        self.got: list[LogLines] = []
        self.takes = True
        self.logs = Logs(BOARD, self.podman, self._publish)

    async def _publish(self, message: Message) -> bool:
        assert message.topic == topics.up(BOARD, "stream", "c1")
        payload = unpack(message.payload, message.content_type)
        self.got.append(decode_json(LogLines, payload, max_bytes=MAX_INFLATED))
        return self.takes

    async def add(self, name: str, service: str, app: str = "demo") -> None:
        image = self.podman.publish(f"registry.example/{name}")
        await self.podman.pull(image)
        labels = {LABEL_APP: app, LABEL_SERVICE: service}
        await self.podman.start(await self.podman.create({"name": name, "image": image, "labels": labels}))

    async def ask(self, wanted: LogsWanted) -> Reply:
        return await self.logs.answer(wanted, "c1", await self.podman.containers())

    @property
    def lines(self) -> list[LogLine]:
        return [each for message in self.got for each in message.lines]

    def check_stream(self) -> None:
        """Numbered from 1, and ended once, by the last."""
        assert [message.seq for message in self.got] == list(range(1, len(self.got) + 1))
        assert [message.end for message in self.got] == [False] * (len(self.got) - 1) + [True]


async def lab_with_app() -> Lab:
    lab = Lab()
    await lab.add("web", "web")
    await lab.add("db", "db")
    await lab.add("other", "web", app="wiki")
    return lab


@virtual
async def test_the_lines_of_an_app() -> None:
    lab = await lab_with_app()
    for number in range(4):
        lab.podman.say(("web", "db", "other", "web")[number], f"line {number}")
        await asyncio.sleep(0.5)
    reply = await lab.ask(LogsWanted("demo"))
    assert reply == Reply("c1", "done", {"lines": 3, "dropped": 0})
    assert [(each.container, each.text) for each in lab.lines] == [
        ("web", "line 0"),
        ("db", "line 1"),
        ("web", "line 3"),
    ]
    lab.check_stream()


@virtual
async def test_the_last_lines_of_all_containers_together() -> None:
    lab = await lab_with_app()
    for number in range(6):
        lab.podman.say(("web", "db")[number % 2], f"line {number}")
        await asyncio.sleep(0.001)
    await lab.ask(LogsWanted("demo", tail=3))
    assert texts(lab.lines) == ["line 3", "line 4", "line 5"]


@virtual
async def test_the_lines_of_one_service_since_a_time() -> None:
    lab = await lab_with_app()
    lab.podman.say("web", "early")
    await asyncio.sleep(10)
    lab.podman.say("web", "late")
    lab.podman.say("db", "late too")
    at_ms = (await lab.podman.logs("web"))[-1].at_ms
    await lab.ask(LogsWanted("demo", service="web", since_ms=at_ms))
    assert texts(lab.lines) == ["late"]


@virtual
async def test_following_ends_in_time_and_misses_nothing() -> None:
    lab = await lab_with_app()
    lab.podman.say("web", "before")
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(lab.ask(LogsWanted("demo", tail=0, follow_s=10)), name="logs")
        for number in range(40):
            await asyncio.sleep(0.2)
            lab.podman.say(("web", "db")[number % 2], str(number))
            lab.podman.say("db", f"{number} again")
        reply = await asked
    assert 10 <= loop.time() - began_s < 10.5
    assert reply.status == "done"
    assert sorted(texts(lab.lines)) == sorted(
        [str(number) for number in range(40)] + [f"{number} again" for number in range(40)]
    )
    assert len(lab.got) <= 12  # a message for each look that found something
    lab.check_stream()


@virtual
async def test_who_is_removed_ends_the_stream_early() -> None:
    lab = await lab_with_app()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(lab.ask(LogsWanted("demo", service="web", follow_s=600)), name="logs")
        await asyncio.sleep(3.5)
        await lab.podman.remove("web")
        assert (await asked).status == "done"
    assert loop.time() - began_s < 5
    lab.check_stream()


@virtual
async def test_a_flood_is_cut_to_the_newest_and_counted() -> None:
    lab = await lab_with_app()
    for number in range(2_000):
        lab.podman.say("web", f"{number:04}" + "x" * 496)
    reply = await lab.ask(LogsWanted("demo", tail=10_000))
    sizes = [len(dumps(each)) for each in lab.lines]
    assert BURST - 1_000 < sum(sizes) <= BURST
    assert reply.data == {"lines": len(sizes), "dropped": 2_000 - len(sizes)}
    assert sum(message.dropped for message in lab.got) == 2_000 - len(sizes)
    assert lab.lines[-1].text.startswith("1999")
    assert all(later.text > earlier.text for earlier, later in pairwise(lab.lines))


@virtual
async def test_a_flood_while_following_is_slowed_down() -> None:
    lab = await lab_with_app()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(lab.ask(LogsWanted("demo", follow_s=60)), name="logs")
        for _second in range(60):
            for _ in range(100):
                lab.podman.say("web", "x" * 500)
            await asyncio.sleep(1)
        reply = await asked
    sent = sum(len(dumps(each)) for each in lab.lines)
    assert sent <= BURST + 61 * REFILL
    assert reply.data["lines"] + reply.data["dropped"] == 6_000
    assert reply.data["dropped"] > 0


@virtual
async def test_nothing_to_show_is_said() -> None:
    lab = await lab_with_app()
    reply = await lab.ask(LogsWanted("demo", service="cache"))
    assert reply.status == "refused"
    assert re.search("'cache' of the app 'demo'", reply.error)
    assert (await lab.ask(LogsWanted("nothing"))).status == "refused"
    assert lab.got == []


@virtual
async def test_podman_that_goes_away_ends_the_stream_with_the_reason() -> None:
    lab = await lab_with_app()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(lab.ask(LogsWanted("demo", follow_s=60)), name="logs")
        await asyncio.sleep(1.5)
        lab.podman.missing = True
        reply = await asked
    assert reply.status == "failed"
    assert "not installed" in reply.error
    lab.check_stream()


@virtual
async def test_a_session_that_ends_ends_it() -> None:
    lab = await lab_with_app()
    lab.podman.say("web", "a")

    async def publish(message: Message) -> bool:
        raise LinkDown("the session has ended")

    logs, containers = Logs(BOARD, lab.podman, publish), await lab.podman.containers()
    with pytest.raises(LinkDown, match="the session has ended"):
        await logs.answer(LogsWanted("demo", follow_s=60), "c1", containers)


@virtual
async def test_a_broker_that_takes_nothing_ends_it() -> None:
    lab = await lab_with_app()
    lab.podman.say("web", "a")
    lab.takes = False
    with pytest.raises(Refused, match="does not take"):
        await lab.ask(LogsWanted("demo", follow_s=60))
    assert len(lab.got) == 1
