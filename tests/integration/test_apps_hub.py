"""Apps on a hub that runs, with its real broker: orders over TLS, new keys, restore, boards that go."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.base.broker import Message, Session, connect
from agent.wire import note, topics
from agent.wire.apps import Apps
from agent.wire.joining import HubDocument
from agent.wire.messages import About, Presence, read_text
from agent.wire.order import Order
from agent.wire.plain import dumps
from support.applicant import Applicant, address, join, join_file
from support.apps import BOOT, push_image, recipe, running
from support.lab import Lab
from support.registry import Registry, registry

pytestmark = pytest.mark.slow

PASSPHRASE = "a horse of another colour"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture
async def lab(short_path: Path, shop: Registry) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        with (lab.hub_dir / "hub.toml").open("a") as file:
            file.write(f'\n[registries]\nplain_http = ["{shop.address}"]\n')
        await lab.start_hub()
        yield lab


class Ear:
    """A board's side of the broker: what it is told, the newest document's keys in force."""

    def __init__(self, applicant: Applicant, session: Session, document: HubDocument) -> None:
        self.applicant, self.session, self.document = applicant, session, document

    async def order(self, generation: int) -> Order:
        """The next order, which is to be of this generation; documents on the way are taken."""
        async for message in self.session.messages():
            leaf = message.topic.rpartition("/")[2]
            if leaf == "hub":
                text = message.payload.decode().rpartition("\n\n")[0] + "\n"
                self.document = read_text("hub", HubDocument, text)
            if leaf == "order" and message.payload:
                verifier = note.Verifier.parse(self.document.keys.order)
                order = read_text("order", Order, note.open_note(message.payload, verifier))
                if order.generation == generation:
                    return order
        raise AssertionError("unreachable")

    async def say(self, leaf: str, said: object) -> None:
        topic = topics.up(self.applicant.board, leaf)
        await self.session.publish(Message(topic, dumps(said), retain=True))


@asynccontextmanager
async def board_of(lab: Lab, applicant: Applicant, joined: dict[str, Any]) -> AsyncIterator[Ear]:
    """A board that has joined, and says that it is there."""
    document = read_text("hub", HubDocument, joined["hub_note"].rpartition("\n\n")[0] + "\n")
    async with connect(address(lab, applicant, joined["certificate_pem"])) as session:
        ear = Ear(applicant, session, document)
        await session.subscribe(topics.down_all(applicant.board))
        about = About(applicant.board, "1", "", "", BOOT, 1, arch="aarch64")
        await ear.say("about", about)
        await ear.say("presence", Presence("online", "n1", BOOT, 1))

        async def is_known() -> bool:
            row = await lab.api("GET", f"/boards/{applicant.board}")
            return row["presence"] == "online" and "about" in row

        await lab.until(is_known, "the hub knows the board")
        yield ear


async def state_of(lab: Lab, app: str = "demo") -> str:
    return str((await lab.api("GET", f"/apps/{app}"))["state"])


async def test_an_order_goes_its_way_and_is_signed_anew_with_new_keys(lab: Lab, shop: Registry) -> None:
    pump = Applicant()
    _, joined = await join(lab, pump.request(await join_file(lab, name="pump")))
    async with board_of(lab, pump, joined) as ear:
        image = push_image(shop, "demo", "1", "arm64")
        await lab.api("POST", "/apps", json={"name": "demo", "files": recipe(image), "boards": ["pump"]})
        order = await ear.order(1)
        [secret] = order.apps[0].secrets
        password = pump.seal_key.unseal(secret.box)
        await ear.say("apps", Apps(1, (running("demo", 1),)))

        async def is_running() -> bool:
            return await state_of(lab) == "running"

        await lab.until(is_running, "the hub has heard that it runs")
        await lab.command("lichen-hub", "keys", "rotate", "--role", "order", "--dir", str(lab.hub_dir))
        again = await ear.order(2)
        assert pump.seal_key.unseal(again.apps[0].secrets[0].box) == password
        await lab.api("POST", "/boards/pump/revoke")
        assert await state_of(lab) == "gone"


async def test_after_a_restore_secrets_are_there_and_orders_higher(lab: Lab, shop: Registry) -> None:
    pump = Applicant()
    _, joined = await join(lab, pump.request(await join_file(lab, name="pump")))
    image = push_image(shop, "demo", "1", "arm64")
    (lab.dir / "passphrase").write_text(PASSPHRASE + "\n")
    words = ("--passphrase-file", str(lab.dir / "passphrase"))
    async with board_of(lab, pump, joined) as ear:
        await lab.api("POST", "/apps", json={"name": "demo", "files": recipe(image), "boards": ["pump"]})
        order = await ear.order(1)
        password = pump.seal_key.unseal(order.apps[0].secrets[0].box)
        backup = str(lab.dir / "hub.backup")
        await lab.command("lichen-hub", "backup", backup, "--dir", str(lab.hub_dir), *words)
    await lab.hub.kill()
    shutil.rmtree(lab.hub_dir)
    await lab.command("lichen-hub", "restore", backup, str(lab.hub_dir), *words)
    assert (lab.hub_dir / "keys" / "vault.key").stat().st_mode & 0o777 == 0o600
    lab.api_token = ""
    await lab.start_hub()
    async with board_of(lab, pump, joined) as ear:
        await ear.order(1)  # published anew: the broker has forgotten it
        await ear.say("apps", Apps(5, (running("demo", 3),)))
        order = await ear.order(6)
        assert pump.seal_key.unseal(order.apps[0].secrets[0].box) == password


async def test_the_apps_of_a_board_move_with_its_place(lab: Lab, shop: Registry) -> None:
    old, new = Applicant(), Applicant()
    _, joined = await join(lab, old.request(await join_file(lab, name="pump")))
    image = push_image(shop, "demo", "1", "arm64")
    async with board_of(lab, old, joined) as ear:
        await lab.api("POST", "/apps", json={"name": "demo", "files": recipe(image), "boards": ["pump"]})
        order = await ear.order(1)
        password = old.seal_key.unseal(order.apps[0].secrets[0].box)
    _, joined = await join(lab, new.request(await join_file(lab, replaces="pump")))
    async with board_of(lab, new, joined) as ear:
        order = await ear.order(1)
        assert new.seal_key.unseal(order.apps[0].secrets[0].box) == password
        [place] = (await lab.api("GET", "/apps/demo"))["boards"]
        assert (place["board"], place["name"]) == (new.board, "pump")
