"""A board whose clock is wrong joins, connects, and learns the time; over real TLS and a real broker.

OpenSSL goes by the clock of this machine, which no test sets.  So the certificates are moved in
place of the clock: one that begins next year looks to this machine as today's does to a board
that wakes up last year.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.app import Agent
from agent.base.broker import Address, connect
from agent.clock import Clock
from agent.config import Config, Link, Report
from agent.identity import Identity, open_identity
from agent.join import join
from agent.sensors.driver import read_sensor
from agent.wire.errors import Corrupt, LinkDown
from agent.wire.messages import ClockState
from agent.wire.plain import dumps
from hub.fleet.authority import Authority
from support.broker import free_port, mosquitto
from support.homehub import Ear, HomeHub, now_ms, website

BOOT = "b" * 32
DAY = dt.timedelta(days=1)
WRONG = {"a year behind": (365 * DAY, 730 * DAY), "a year ahead": (-730 * DAY, -365 * DAY)}
"""How far the board's clock is off, as the dates of a certificate that then seems wrong."""


@dataclass
class Machine:
    """A board's clock: what the kernel says of it, and what it believes; it was switched on just now."""

    state: ClockState = "unsynced"
    wall_ms: int = 0
    _began_ms: int = field(default_factory=lambda: Clock.system().mono_ms())

    @property
    def clock(self) -> Clock:
        return Clock(BOOT, self.mono_ms, lambda: self.wall_ms + self.mono_ms(), lambda: self.state)

    def mono_ms(self) -> int:
        return Clock.system().mono_ms() - self._began_ms


def move(authority: Authority, begins: dt.timedelta, ends: dt.timedelta) -> None:
    """Let the server's certificate be good for another time than now."""
    now = dt.datetime.now(dt.UTC)
    issuer = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    ca_key = serialization.load_pem_private_key((authority.folder / "ca.key").read_bytes(), None)
    server = x509.load_pem_x509_certificate(authority.server_certificate.read_bytes())
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(server.subject)
        .issuer_name(issuer.subject)
        .public_key(server.public_key())  # type: ignore[arg-type]  # the hub's own, EC
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
    for extension in server.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    moved = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    authority.server_certificate.write_bytes(moved)


# --- joining ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_board_with_a_wrong_clock_joins(tmp_path: Path, wrong: str) -> None:
    hub, identity = HomeHub(tmp_path / "hub"), open_identity(tmp_path / "state")
    move(hub.authority, *WRONG[wrong])
    path = tmp_path / "join.toml"
    pages = {
        "GET /ca.pem": (200, hub.authority.ca_pem.encode()),
        "POST /join": lambda _: (200, dumps(hub.answer(identity))),
    }
    with website(hub.authority.server_context(), pages) as site:
        path.write_text(tomli_w.dumps(hub.join_file(site.url)))
        with pytest.raises(Corrupt, match="does not hold"):  # who says that the clock is right is believed
            await join(identity, path, Machine(state="synced").clock)
        assert identity.membership() is None
        await join(identity, path, Machine().clock)
    assert identity.membership() is not None
    assert identity.certificate()[0] is None  # nobody knows when that was


# --- connecting ------------------------------------------------------------------------------------------


@dataclass
class Field:
    """A board that has joined, a broker whose certificate seems wrong, and the hub's ear at it."""

    identity: Identity
    hub: HomeHub
    ear: Ear
    config: Config
    port: int


@asynccontextmanager
async def fielded(folder: Path, begins: dt.timedelta, ends: dt.timedelta) -> AsyncIterator[Field]:
    port = free_port()
    hub = HomeHub(folder / "hub", port)
    identity = open_identity(folder / "state")
    hub.admit(identity)
    move(hub.authority, begins, ends)
    secure = f"""listener {port} 127.0.0.1
cafile {folder}/hub/ca.pem
certfile {hub.authority.server_certificate}
keyfile {hub.authority.server_key}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
    config = Config(
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        join_file=folder / "none",
        report=Report(every_s=0.1, commit_every_s=0.1),
        link=Link(backoff_low_s=0.05, backoff_high_s=0.2),
        sensors=(read_sensor({"name": "load", "kind": "capacity", "interval_s": 0.1}, "sensors[0]"),),
    )
    async with mosquitto(folder, secure) as broker, asyncio.TaskGroup() as group:
        ear = Ear(identity.board)
        address = Address("hub", host="127.0.0.1", port=broker.port, username="hub")
        listening = group.create_task(ear.listen(connect, address), name="ear")
        await until(lambda: ear.session)
        yield Field(identity, hub, ear, config, port)
        listening.cancel()


async def until(condition: object, within_s: float = 10) -> None:
    assert callable(condition)
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_board_with_a_wrong_clock_connects(tmp_path: Path, wrong: str) -> None:
    async with fielded(tmp_path, *WRONG[wrong]) as field:
        board = field.identity

        def address(state: ClockState) -> Address:
            tls = board.tls(board.document().ca_pem, state)
            return Address(board.board, host="127.0.0.1", port=field.port, tls=tls, username=board.board)

        with pytest.raises(LinkDown, match="does not verify"):
            async with connect(address("synced")):
                pass
        for state in ("unsynced", "hub"):
            async with connect(address(state)):  # type: ignore[arg-type]
                pass


@pytest.mark.slow
async def test_a_board_that_wakes_up_in_1970_connects_and_learns_the_time(tmp_path: Path) -> None:
    async with fielded(tmp_path, *WRONG["a year behind"]) as field, asyncio.TaskGroup() as group:
        ear, machine = field.ear, Machine()
        blocks = ear.blocks
        agent = group.create_task(Agent(field.config, machine.clock).run(), name="agent")
        await until(lambda: blocks and ear.session and ear.presences)
        assert blocks[0].clock == "unsynced"
        assert blocks[0].wall_ms[0] < 3_600_000  # an hour after 1970
        assert ear.session is not None
        told = field.hub.time(field.identity.board, ear.presences[0].nonce, now_ms())
        await ear.say(ear.session, "time", told)
        await until(lambda: blocks[-1].clock == "hub")
        last = blocks[-1]
        # Those of the commit in which the time became known, too, though they were taken before.
        assert all(abs(now_ms() - block.wall_ms[0]) < 5_000 for block in blocks if block.clock == "hub")
        # By the boot, which is one, whoever has both can tell when the first was.
        assert last.boot == blocks[0].boot
        machine.wall_ms = 365 * 86_400_000  # and somebody sets the clock by hand, to nonsense
        seen = len(blocks)
        await until(lambda: len(blocks) > seen + 2)
        assert abs(now_ms() - blocks[-1].wall_ms[0]) < 5_000
        agent.cancel()
