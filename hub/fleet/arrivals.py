"""Messages of boards, read: from what the broker hands over to what ingest believes.  Pure.

Ingest calls it for each message.  Checks form only; whether the board is known, and what of
its readings is new, the database says.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.apps import Apps, LogLines
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED, unpack
from agent.wire.errors import Refused
from agent.wire.messages import About, Batch, Presence, Reply, read_batch
from agent.wire.package import Package, read_package


@dataclass(frozen=True, slots=True)
class ReadingsCame:
    """A batch, and its bytes as they travelled: those are what is stored."""

    board: str
    at_ms: int
    batch: Batch
    payload: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class PresenceCame:
    """A birth or a will; ``retained``: the broker had kept it, so it is the last one there was."""

    board: str
    at_ms: int
    presence: Presence
    retained: bool


@dataclass(frozen=True, slots=True)
class AboutCame:
    """What a board says of itself."""

    board: str
    at_ms: int
    about: About


@dataclass(frozen=True, slots=True)
class AppsCame:
    """What a board says of its apps."""

    board: str
    at_ms: int
    apps: Apps


@dataclass(frozen=True, slots=True)
class LinesCame:
    """Lines of a log that somebody asked for; nothing for the store."""

    board: str
    id: str
    lines: LogLines


@dataclass(frozen=True, slots=True)
class ReplyCame:
    """What became of a command; nothing for the store."""

    board: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class UsageCame:
    """A package of a usage log, or a question about one; for the witness."""

    board: str
    package: Package


Arrival = ReadingsCame | PresenceCame | AboutCame | AppsCame
LEAVES = frozenset({"readings", "presence", "about", "apps", "usage", "reply", "stream"})


def read_arrival(message: Message, at_ms: int) -> Arrival | UsageCame | ReplyCame | LinesCame | None:
    """Unpack, decode and check a message that came at ``at_ms`` by the hub's clock.

    None when it says nothing to ingest: an emptied retained topic, or one for somebody else.
    Raises Refused.
    """
    topic = topics.parse(message.topic)
    if topic.direction != "up" or not message.payload:
        return None
    if topic.leaf not in LEAVES:
        return None
    payload = unpack(message.payload, message.content_type)
    if topic.leaf == "readings":
        return ReadingsCame(topic.board, at_ms, read_batch(payload), message.payload, message.content_type)
    if topic.leaf == "presence":
        presence = decode_json(Presence, payload, max_bytes=MAX_INFLATED)
        return PresenceCame(topic.board, at_ms, presence, message.retain)
    if topic.leaf == "usage":
        return UsageCame(topic.board, read_package(payload))
    if topic.leaf == "reply":
        reply = decode_json(Reply, payload, max_bytes=MAX_INFLATED)
        if reply.id != topic.id:
            raise Refused(f"reply: {reply.id!r} is written on the topic of {topic.id!r}")
        return ReplyCame(topic.board, reply)
    if topic.leaf == "stream":
        return LinesCame(topic.board, topic.id, decode_json(LogLines, payload, max_bytes=MAX_INFLATED))
    if topic.leaf == "apps":
        return AppsCame(topic.board, at_ms, decode_json(Apps, payload, max_bytes=MAX_INFLATED))
    about = decode_json(About, payload, max_bytes=MAX_INFLATED)
    if about.board != topic.board:
        raise Refused(f"about: board {about.board[:64]!r} writes on the topic of {topic.board}")
    return AboutCame(topic.board, at_ms, about)


def sender(topic: str) -> str:
    """The board that a message is from, as its topic says: the broker held the board to that."""
    levels = topic.split("/", 3)
    return levels[2][:16] if len(levels) > 2 else ""
