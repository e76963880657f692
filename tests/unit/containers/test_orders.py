"""Which orders a board takes, and what it keeps of them; `tests/integration/test_apps_agent.py` has the
way there, with signatures of other keys, other boards and older generations."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.base.sqlite import Database
from agent.containers.apps import FILE
from agent.containers.memory import SCHEMA, VERSION
from agent.containers.orders import Orders, check
from agent.wire import note
from agent.wire.errors import Corrupt, Refused
from agent.wire.messages import compose
from agent.wire.order import App, Dependency, Given, Mount, Order, Service
from support.apphouse import BOARD, KEY
from support.appmodel import demo, image, web

HUB, OTHER = "h" * 16, "o" * 16


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Orders]:
    async with Database.open(folder / FILE, SCHEMA, version=VERSION) as database:
        yield await Orders.load(database, BOARD)


def signed(generation: int, *apps: App, signer: note.Signer = KEY) -> str:
    return note.sign(compose("order", Order(BOARD, generation, 0, apps)), signer)


async def test_what_was_taken_outlives_the_agent_and_older_ones_stay_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as orders:
        assert await orders.take(signed(3, demo(1, web())), KEY.verifier, HUB)
    async with opened(tmp_path) as orders:
        assert orders.order is not None
        assert orders.order.apps == (demo(1, web()),)
        with pytest.raises(Refused, match="older than 3"):
            await orders.take(signed(2), KEY.verifier, HUB)
        assert orders.refusal is not None
        assert not await orders.take(signed(3, demo(1, web())), KEY.verifier, HUB)
        assert orders.refusal is None  # the one in force was said again


async def test_the_same_order_by_a_new_key_is_no_news(tmp_path: Path) -> None:
    rotated = note.generate("hub/order")
    async with opened(tmp_path) as orders:
        await orders.take(signed(3), KEY.verifier, HUB)
        assert not await orders.take(signed(3, signer=rotated), rotated.verifier, HUB)
        with pytest.raises(Corrupt):
            await orders.take(signed(4), rotated.verifier, HUB)


async def test_what_the_hub_signed_is_named_by_its_hash(tmp_path: Path) -> None:
    rotated, stranger = note.generate("hub/order"), note.generate("hub/order")
    async with opened(tmp_path) as orders:
        assert orders.sha256 == ""
        await orders.take(signed(3), KEY.verifier, HUB)
        text = compose("order", Order(BOARD, 3, 0))
        assert orders.sha256 == hashlib.sha256(text.encode()).hexdigest()
        await orders.take(signed(3, signer=rotated), rotated.verifier, HUB)  # the same words by another key
        with pytest.raises(Refused):
            await orders.take(signed(2), KEY.verifier, HUB)
        assert orders.refusal is not None
        assert (
            orders.refusal.sha256 == hashlib.sha256(compose("order", Order(BOARD, 2, 0)).encode()).hexdigest()
        )
        with pytest.raises(Corrupt):
            await orders.take(signed(9, signer=stranger), KEY.verifier, HUB)
        assert orders.refusal.sha256 == "", "that is nobody's word"


async def test_another_hub_counts_for_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as orders:
        await orders.take(signed(30, demo(1, web())), KEY.verifier, HUB)
        assert await orders.take(signed(1), KEY.verifier, OTHER)
    async with opened(tmp_path) as orders:
        assert orders.order is not None
        assert orders.order.generation == 1
        with pytest.raises(Refused):
            await orders.take(signed(29), KEY.verifier, HUB)


async def test_the_order_of_an_earlier_hub_comes_in_force_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as orders:
        await orders.take(signed(30, demo(1, web())), KEY.verifier, HUB)
        await orders.take(signed(1), KEY.verifier, OTHER)
    async with opened(tmp_path) as orders:
        assert await orders.take(signed(30, demo(1, web())), KEY.verifier, HUB)
        assert orders.order is not None
        assert orders.order.generation == 30
        assert not await orders.take(signed(30, demo(1, web())), KEY.verifier, HUB)
    async with opened(tmp_path) as orders:
        assert orders.order is not None
        assert orders.order.generation == 30


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ([{"name": "a"}, {"name": "a"}], "is there twice"),
        ([{"name": "a", "depends_on": (Dependency("b"),)}], "dependency b"),
        ([{"name": "a", "network_mode": "service:b"}], "service b"),
        ([{"name": "a", "secrets": (Given("key", "/k"),)}], "secret or config key"),
        ([{"name": "a", "mounts": (Mount("volume", "/d", "data"),)}], "volume data"),
        (
            [
                {"name": "a", "depends_on": (Dependency("b"),)},
                {"name": "b", "depends_on": (Dependency("a"),)},
            ],
            "wait for each other in a circle: a, b",
        ),
    ],
)
def test_an_order_that_contradicts_itself_is_refused(services: list[dict[str, Any]], words: str) -> None:
    app = App("demo", 1, services=tuple(Service(image=image(), **each) for each in services))
    with pytest.raises(Refused, match=words):
        check(Order(BOARD, 1, 0, (app,)))
