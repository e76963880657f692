"""Lines of a board that says more than anybody reads."""

from __future__ import annotations

from agent.wire.apps import LogLine, LogLines
from hub.fleet.lines import LineStream


def lines(seq: int, count: int = 1, **more: int | bool) -> LogLines:
    return LogLines(seq, (LogLine("web", None, "stdout", "x"),) * count, **more)  # type: ignore[arg-type]


async def read(stream: LineStream) -> list[LogLines]:
    return [each async for each in stream.read(first_s=1, whole_s=1)]


def waiting(stream: LineStream) -> int:
    """How many messages are held."""
    return len(stream._waiting)


async def test_messages_that_say_nothing_take_no_room() -> None:
    stream = LineStream("a" * 16, "logs")
    for seq in range(1, 1_001):
        stream.push(LogLines(seq))
    assert waiting(stream) == 0
    stream.push(lines(1_001))
    for seq in range(1_002, 2_000):
        stream.push(LogLines(seq))
    assert waiting(stream) == 1
    stream.push(LogLines(2_000, end=True))
    assert [len(each.lines) for each in await read(stream)] == [1, 0]


async def test_those_that_only_count_are_counted_together() -> None:
    stream = LineStream("a" * 16, "logs")
    for seq in range(1, 1_001):
        stream.push(LogLines(seq, dropped=2))
    assert waiting(stream) == 1
    stream.push(lines(1_001, end=True))
    came = await read(stream)
    assert (sum(each.dropped for each in came), came[-1].end) == (2_000, True)


async def test_after_its_end_nothing_is_taken() -> None:
    stream = LineStream("a" * 16, "logs")
    for seq in range(1, 1_001):
        stream.push(LogLines(seq, end=True))
    assert waiting(stream) == 1
    assert len(await read(stream)) == 1
