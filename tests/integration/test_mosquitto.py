"""The hub's own broker, for real: who gets in, what they may do, and how it lives and dies."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from agent.base.broker import Address, Message, Session, connect
from agent.base.files import make_directory
from agent.wire.errors import Busy, ConfigError, LichenError, LinkDown, Refused
from hub.fleet.authority import Authority
from hub.fleet.mosquitto import HUB_USER, Mosquitto
from support.boards import ALICE, BOB, Certified, broker_settings, certify, new_authority
from support.broker import free_port

UP, DOWN = f"lichen/v1/{ALICE}/up/readings", f"lichen/v1/{ALICE}/down/ack"


@dataclass
class House:
    """A hub's authority and its running broker."""

    authority: Authority
    broker: Mosquitto
    dir: Path

    def hub(self, client_id: str = "hub-ingest") -> Address:
        return Address(client_id, unix=self.broker.settings.socket, username=HUB_USER)

    def board(self, who: Certified, client_id: str = ALICE, ca: Path | None = None) -> Address:
        settings = self.broker.settings
        return Address(
            client_id, host="127.0.0.1", port=settings.port, tls=who.context(ca or settings.ca), timeout_s=5
        )

    @property
    def process(self) -> psutil.Process:
        return next(child for child in psutil.Process().children() if child.name() == "mosquitto")


@contextlib.asynccontextmanager
async def running(broker: Mosquitto) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(broker.run(), name="broker")
        async with asyncio.timeout(10):
            await broker.wait_ready()
        yield
        task.cancel()


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[House]:
    authority = new_authority(short_path / "ca")
    broker = Mosquitto(broker_settings(authority, short_path / "broker", free_port()))
    async with running(broker):
        yield House(authority, broker, short_path)


@pytest.fixture
def alice(house: House) -> Certified:
    return certify(house.authority, ALICE, house.dir)


@pytest.fixture
def bob(house: House) -> Certified:
    return certify(house.authority, BOB, house.dir)


async def refusal(address: Address) -> LichenError:
    """How the broker declines a connection."""
    with pytest.raises((Refused, LinkDown)) as caught:
        async with connect(address):
            pass
    return caught.value


async def accepts(board: Session) -> bool:
    """Whether the broker takes a reading from Alice's board."""
    try:
        await board.publish(Message(UP, b"21.5"))
    except Refused as error:
        return error.code != "forbidden"
    return True


async def lets_in(address: Address) -> bool:
    """Whether the broker accepts the certificate."""
    try:
        async with connect(address):
            return True
    except Refused as error:
        return error.code != "certificate"


# --- who may do what -----------------------------------------------------------------------------


async def test_a_board_speaks_with_its_hub(house: House, alice: Certified) -> None:
    async with connect(house.hub()) as hub, connect(house.board(alice)) as board:
        await hub.subscribe("lichen/v1/+/up/#")
        await board.subscribe(f"lichen/v1/{ALICE}/down/#")
        await board.publish(Message(UP, b"up"))
        await hub.publish(Message(DOWN, b"down"))
        assert (await anext(hub.messages())).payload == b"up"
        assert (await anext(board.messages())).payload == b"down"


async def test_a_board_cannot_write_for_another_nor_for_the_hub(house: House, alice: Certified) -> None:
    async with connect(house.board(alice)) as board:
        for topic in (f"lichen/v1/{BOB}/up/readings", DOWN, "elsewhere"):
            with pytest.raises(Refused) as caught:
                await board.publish(Message(topic, b"forged"))
            assert caught.value.code == "forbidden"


async def test_a_board_cannot_listen_to_another(house: House, alice: Certified) -> None:
    async with connect(house.hub()) as hub, connect(house.board(alice)) as board:
        await board.subscribe(f"lichen/v1/{BOB}/down/#", "lichen/v1/#", "#")
        await hub.publish(Message(f"lichen/v1/{BOB}/down/ack", b"for bob"))
        await hub.publish(Message(DOWN, b"for alice"))
        assert (await anext(board.messages())).payload == b"for alice"


async def test_a_stolen_client_id_harms_nobody(house: House, alice: Certified, bob: Certified) -> None:
    async with connect(house.board(alice)) as board:
        # Bob says that he is Alice; the broker goes by his certificate.
        async with connect(house.board(bob, client_id=ALICE)) as thief:
            await thief.publish(Message(f"lichen/v1/{BOB}/up/readings", b"as himself"))
            with pytest.raises(Refused):
                await thief.publish(Message(UP, b"as alice"))
        await board.publish(Message(UP, b"still connected"))


async def test_two_with_one_identity_take_over_from_each_other(house: House, alice: Certified) -> None:
    async with connect(house.board(alice)) as first, connect(house.board(alice)) as second:
        with pytest.raises(LinkDown):
            await anext(first.messages())
        await second.publish(Message(UP, b"the later one stays"))


# --- who gets in ---------------------------------------------------------------------------------


async def test_without_a_certificate_nobody_gets_in(house: House) -> None:
    settings = house.broker.settings
    nobody = ssl.create_default_context(cafile=settings.ca)
    error = await refusal(Address(ALICE, host="127.0.0.1", port=settings.port, tls=nobody, timeout_s=5))
    assert (type(error), error.code) == (Refused, "certificate")


async def test_a_certificate_of_another_authority_is_no_good(house: House) -> None:
    stranger = certify(new_authority(house.dir / "other"), ALICE, house.dir)
    error = await refusal(house.board(stranger))
    assert (type(error), error.code) == (Refused, "certificate")


async def test_a_board_does_not_talk_to_another_hub(house: House, alice: Certified) -> None:
    other = new_authority(house.dir / "other")
    error = await refusal(house.board(alice, ca=other.folder / "ca.pem"))
    assert (type(error), error.code) == (LinkDown, "tls")
    assert "does not verify" in str(error)


async def test_a_revoked_certificate_is_no_good(house: House, alice: Certified, bob: Certified) -> None:
    house.authority.revoke([alice.serial], time.time_ns() // 1_000_000)
    house.broker.reload()
    async with asyncio.timeout(5):
        while await lets_in(house.board(alice)):  # SIGHUP is answered in the broker's own time
            pass
    async with connect(house.board(bob, BOB)) as other:
        await other.publish(Message(f"lichen/v1/{BOB}/up/readings", b"not revoked"))


async def test_a_denied_board_is_cut_off_while_it_is_connected(house: House, alice: Certified) -> None:
    async with connect(house.hub()) as hub, connect(house.board(alice)) as board:
        await hub.subscribe("lichen/v1/+/up/#")
        await board.publish(Message(UP, b"before"))
        house.broker.deny([ALICE])
        async with asyncio.timeout(5):
            while await accepts(board):  # SIGHUP is answered in the broker's own time
                pass
            house.broker.deny([])
            while not await accepts(board):
                pass
        await hub.publish(Message(DOWN, b"the hub was never denied"))


@pytest.mark.parametrize(("denied", "left"), [((), [b"offline"]), ((ALICE,), [])])
async def test_the_will_of_a_session_that_is_taken_over_meets_the_access_list(
    house: House, alice: Certified, denied: tuple[str, ...], left: list[bytes]
) -> None:
    will = Message(f"lichen/v1/{ALICE}/up/presence", b"offline", retain=True)
    with pytest.raises(LinkDown):
        await taken_over(house, replace(house.board(alice), will=will), denied)
    marker = Message(DOWN, b"the end")
    found = []
    async with connect(house.hub()) as hub:
        await hub.subscribe(f"lichen/v1/{ALICE}/#")
        await hub.publish(marker)
        async for message in hub.messages():
            if message.topic == marker.topic:
                break
            found.append(message.payload)
    assert found == left


async def taken_over(house: House, board: Address, denied: tuple[str, ...]) -> None:
    """A session of Alice's board, until the hub takes it.  Raises LinkDown."""
    async with connect(board) as session:
        house.broker.deny(denied)
        async with connect(house.hub(ALICE)):
            await anext(session.messages())


# --- how it lives and dies -----------------------------------------------------------------------


async def test_its_death_is_normal(house: House, alice: Certified) -> None:
    async with connect(house.board(alice)) as board:
        house.process.kill()
        with pytest.raises(LinkDown):
            await anext(board.messages())
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(LinkDown):
                async with connect(house.board(alice)) as board:
                    await board.publish(Message(UP, b"back"))
                break
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_what_was_retained_survives_a_stop(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    broker = Mosquitto(broker_settings(authority, short_path / "broker", free_port()))
    hub = Address("hub-ingest", unix=broker.settings.socket, username=HUB_USER)
    async with running(broker), connect(hub) as session:
        await session.publish(Message(DOWN, b"kept", retain=True))
    async with running(broker), connect(hub) as session:
        await session.subscribe(DOWN)
        assert (await anext(session.messages())).payload == b"kept"


async def test_it_may_open_as_many_files_as_the_system_allows(house: House) -> None:
    soft, hard = house.process.rlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.slow
async def test_a_frozen_one_is_stopped_all_the_same(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    broker = Mosquitto(broker_settings(authority, short_path / "broker", free_port()))
    house = House(authority, broker, short_path)
    began_at = time.monotonic()
    async with running(broker):
        frozen = house.process
        frozen.suspend()
    assert not frozen.is_running()
    assert time.monotonic() - began_at < 5


HUB = """
import asyncio, sys
from pathlib import Path
from hub.fleet.mosquitto import Mosquitto, Settings

async def main():
    folder, ca = Path(sys.argv[1]), Path(sys.argv[2])
    broker = Mosquitto(Settings(folder, "127.0.0.1", int(sys.argv[3]), ca / "ca.pem",
                                ca / "server.pem", ca / "server.key", ca / "crl.pem"))
    async with asyncio.TaskGroup() as group:
        group.create_task(broker.run(), name="broker")
        await broker.wait_ready()
        print(broker.settings.socket, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_it_never_outlives_a_hub_that_is_killed(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    settings = broker_settings(authority, short_path / "broker", free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HUB, str(settings.dir), str(authority.folder), str(settings.port),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline()
    [broker] = psutil.Process(process.pid).children()
    process.kill()
    await process.wait()
    # The next hub starts at once, and finds port and socket free.
    async with running(Mosquitto(settings)):
        assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE
        address = Address("hub-ingest", unix=settings.socket, username=HUB_USER)
        async with connect(address) as session:
            await session.publish(Message(DOWN, b""))


# --- what an operator can get wrong --------------------------------------------------------------


async def test_a_taken_port_is_named_with_the_key_to_change(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken") as caught:
            await Mosquitto(broker_settings(authority, short_path / "broker", port)).run()
    assert "mqtt_port" in caught.value.hint


async def test_a_configuration_that_it_does_not_take_is_told_in_its_words(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    settings = broker_settings(authority, short_path / "broker", free_port())
    with pytest.raises(ConfigError, match="mosquitto does not start: Unable to load"):
        await Mosquitto(replace(settings, certificate=short_path / "missing.pem")).run()


@pytest.mark.slow
async def test_two_in_one_folder_are_refused(house: House) -> None:
    second = Mosquitto(replace(house.broker.settings, port=free_port()))
    with pytest.raises(Busy, match="another broker runs in"):
        await second.run()


async def test_a_space_in_its_path_leads_nowhere_else(short_path: Path) -> None:
    folder = make_directory(short_path / "our hub")
    authority = new_authority(folder / "ca")
    broker = Mosquitto(broker_settings(authority, folder / "broker", free_port()))
    house = House(authority, broker, folder)
    async with running(broker), connect(house.hub()) as hub:
        await hub.publish(Message(DOWN, b"{}"))
    assert [path.name for path in short_path.iterdir()] == ["our hub"]  # no socket called "our"


def test_a_long_path_is_refused_before_it_fails(short_path: Path) -> None:
    authority = new_authority(short_path / "ca")
    with pytest.raises(ConfigError, match="too long for a unix socket") as caught:
        Mosquitto(broker_settings(authority, short_path / ("d" * 100), 1))
    assert "shorter path" in caught.value.hint


@pytest.mark.parametrize(("present", "missing"), [((), "setpriv"), (("setpriv",), "mosquitto")])
def test_a_missing_program_is_named_with_its_package(
    short_path: Path, present: tuple[str, ...], missing: str
) -> None:
    for name in present:
        (short_path / name).touch(mode=0o755)
    settings = broker_settings(new_authority(short_path / "ca"), short_path / "broker", 1)
    with pytest.raises(ConfigError, match=f"the program {missing} is missing") as caught:
        Mosquitto(settings, search=str(short_path))
    assert "sudo apt-get install" in caught.value.hint


def test_only_the_hubs_user_can_reach_its_socket_and_read_its_files(house: House) -> None:
    folder = house.broker.settings.dir
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "acl").stat().st_mode & 0o777 == 0o600
    assert (folder / "mosquitto.conf").stat().st_mode & 0o777 == 0o600
