"""MQTT topics: where each message travels.

    lichen/v1/<board>/up/<leaf>     written by the board, read by its hub
    lichen/v1/<board>/down/<leaf>   written by the hub, read by the board

A board id is 16 lower-case base32 characters.  Leaves are fixed names; ``reply`` and
``stream`` carry one more level, the id of the command that they answer.  Nothing that a
stranger chose ever becomes a topic level: ids are checked against their alphabet, so
neither a wildcard nor a separator can slip in (MQTT 5.0, section 4.7).

>>> up("k3yd5q7c2n4xw6ba", "readings")
'lichen/v1/k3yd5q7c2n4xw6ba/up/readings'
>>> parse("lichen/v1/k3yd5q7c2n4xw6ba/up/reply/7f3a")
Topic(board='k3yd5q7c2n4xw6ba', direction='up', leaf='reply', id='7f3a')
>>> down("+", "order")
Traceback (most recent call last):
agent.wire.errors.Refused: '+' is not a board id (16 characters of a-z and 2-7)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from agent.wire.errors import Refused

ROOT = "lichen/v1"
UP = frozenset({"presence", "about", "readings", "apps", "usage", "reply", "stream"})
DOWN = frozenset({"hub", "order", "ack", "receipt", "command", "time"})
WITH_ID = frozenset({"reply", "stream"})

_BOARD_ID = re.compile(r"[a-z2-7]{16}", re.ASCII)
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic taken apart; ``id`` is empty except under ``reply`` and ``stream``."""

    board: str
    direction: Literal["up", "down"]
    leaf: str
    id: str = ""


def check_board_id(text: str) -> str:
    """Return ``text`` if it is a board (or hub) id.  Raises Refused."""
    if not _BOARD_ID.fullmatch(text):
        raise Refused(f"{text[:64]!r} is not a board id (16 characters of a-z and 2-7)")
    return text


def up(board: str, leaf: str, id: str = "") -> str:
    """The topic on which ``board`` publishes ``leaf``.  Raises Refused."""
    return _build(board, "up", leaf, id, UP)


def down(board: str, leaf: str) -> str:
    """The topic on which the hub publishes ``leaf`` for ``board``.  Raises Refused."""
    return _build(board, "down", leaf, "", DOWN)


def down_all(board: str) -> str:
    """The filter that a board subscribes to: everything that its hub tells it."""
    return f"{ROOT}/{check_board_id(board)}/down/#"


def up_all() -> str:
    """The filter that a hub subscribes to: everything that any of its boards says."""
    return f"{ROOT}/+/up/#"


def parse(topic: str) -> Topic:
    """Take a topic apart.  Raises Refused for anything this contract does not name."""
    match topic.split("/"):
        case ["lichen", "v1", board, "up", leaf, *rest]:
            parsed = Topic(board, "up", leaf, "/".join(rest))
        case ["lichen", "v1", board, "down", leaf, *rest]:
            parsed = Topic(board, "down", leaf, "/".join(rest))
        case _:
            raise Refused(f"{topic[:128]!r} is not a Lichen topic (lichen/v1/<board>/up|down/<leaf>)")
    leaves = UP if parsed.direction == "up" else DOWN
    if _build(parsed.board, parsed.direction, parsed.leaf, parsed.id, leaves) != topic:
        raise Refused(f"{topic[:128]!r} is not a canonical topic")
    return parsed


def _build(board: str, direction: str, leaf: str, id: str, leaves: frozenset[str]) -> str:
    check_board_id(board)
    if leaf not in leaves:
        raise Refused(f"{leaf[:64]!r} is not a topic under {direction}/ ({', '.join(sorted(leaves))})")
    if (leaf in WITH_ID) != bool(id):
        raise Refused(f"the topic {direction}/{leaf} takes {'an' if leaf in WITH_ID else 'no'} id")
    if id and not _MESSAGE_ID.fullmatch(id):
        raise Refused(f"{id[:64]!r} is not a message id (letters, digits, - and _, at most 64)")
    return f"{ROOT}/{board}/{direction}/{leaf}" + (f"/{id}" if id else "")
