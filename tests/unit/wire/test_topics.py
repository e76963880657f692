"""Topics: built and taken apart without a stranger's text becoming a level."""

from __future__ import annotations

import pytest

from agent.wire import topics
from agent.wire.errors import Refused

BOARD = "k3yd5q7c2n4xw6ba"


@pytest.mark.parametrize("leaf", sorted(topics.UP - topics.WITH_ID))
def test_what_a_board_says(leaf: str) -> None:
    topic = topics.up(BOARD, leaf)
    assert topic == f"lichen/v1/{BOARD}/up/{leaf}"
    assert topics.parse(topic) == topics.Topic(BOARD, "up", leaf)


@pytest.mark.parametrize("leaf", sorted(topics.WITH_ID))
def test_what_answers_a_command_names_it(leaf: str) -> None:
    topic = topics.up(BOARD, leaf, "a-Z_9")
    assert topics.parse(topic) == topics.Topic(BOARD, "up", leaf, "a-Z_9")
    with pytest.raises(Refused, match="takes an id"):
        topics.up(BOARD, leaf)


@pytest.mark.parametrize("leaf", sorted(topics.DOWN))
def test_what_a_hub_says(leaf: str) -> None:
    topic = topics.down(BOARD, leaf)
    assert topics.parse(topic) == topics.Topic(BOARD, "down", leaf)


def test_filters() -> None:
    assert topics.down_all(BOARD) == f"lichen/v1/{BOARD}/down/#"
    assert topics.up_all() == "lichen/v1/+/up/#"


@pytest.mark.parametrize(
    "board",
    ["", "+", "#", "k3yd5q7c2n4xw6b", f"{BOARD}a", "K3YD5Q7C2N4XW6BA", "k3yd5q7c2n4xw6b/", "k3yd5q7c2n4xw6b1",
     "k3yd5q7c2n4xw6bä", f"{BOARD}\n", f"\x00{BOARD[1:]}", "lichen/v1", "$SYS"],
)  # fmt: skip
def test_ids_that_are_none(board: str) -> None:
    for build in (
        topics.check_board_id,
        topics.down_all,
        lambda b: topics.up(b, "about"),
        lambda b: topics.down(b, "ack"),
    ):
        with pytest.raises(Refused, match="is not a board id"):
            build(board)
    with pytest.raises(Refused):
        topics.parse(f"lichen/v1/{board}/up/about")


@pytest.mark.parametrize("leaf", ["", "+", "#", "about/", "about/x", "orders", "../down/order", "order"])
def test_leaves_that_are_none(leaf: str) -> None:
    with pytest.raises(Refused):
        topics.up(BOARD, leaf)
    with pytest.raises(Refused):
        topics.parse(f"lichen/v1/{BOARD}/up/{leaf}")


@pytest.mark.parametrize("message_id", ["+", "#", "a/b", "a b", "ä", "a\n", "x" * 65, "$"])
def test_message_ids_that_are_none(message_id: str) -> None:
    with pytest.raises(Refused):
        topics.up(BOARD, "reply", message_id)
    with pytest.raises(Refused):
        topics.parse(f"lichen/v1/{BOARD}/up/reply/{message_id}")


@pytest.mark.parametrize(
    "topic",
    ["", "/", "lichen", f"lichen/v1/{BOARD}", f"lichen/v1/{BOARD}/up", f"lichen/v1/{BOARD}/up/",
     f"/lichen/v1/{BOARD}/up/about",
     f"lichen/v1/{BOARD}/up/about/", f"lichen/v1/{BOARD}/up/reply/", f"lichen/v1/{BOARD}/down/readings",
     f"lichen/v2/{BOARD}/up/about", f"Lichen/v1/{BOARD}/up/about", f"lichen/v1/{BOARD}/sideways/about",
     f"lichen/v1/{BOARD}/down/ack/x", "x" * 70_000],
)  # fmt: skip
def test_topics_that_are_none(topic: str) -> None:
    with pytest.raises(Refused) as raised:
        topics.parse(topic)
    assert len(str(raised.value)) < 300
