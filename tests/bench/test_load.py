"""The load tool measures what it says: against a real mosquitto and hubs of a few lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.base.broker import Address, Message, connect
from agent.wire import topics
from agent.wire.decode import dumps
from agent.wire.envelope import unpack
from agent.wire.messages import Ack, read_batch
from bench import packets
from bench.certificates import issue
from bench.load import Fleet, report_of
from bench.simulated import Broker, board_ids
from hub.fleet.authority import Authority
from support.broker import Mosquitto, free_port, mosquitto


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path, extra="max_queued_messages 100000\n") as running:
        yield running


@asynccontextmanager
async def hub(broker: Mosquitto, believes: Callable[[str], bool]) -> AsyncIterator[None]:
    """Acknowledges each batch of the boards that it believes, if it is the next one."""
    contiguous: dict[str, int] = {}

    async def answer() -> None:
        async for message in session.messages():
            topic = topics.parse(message.topic)
            if topic.leaf != "readings" or not believes(topic.board):
                continue
            (block,) = read_batch(unpack(message.payload, message.content_type)).blocks
            if block.seq0 == contiguous.get(block.stream, 0) + 1:
                contiguous[block.stream] = block.next - 1
            ack = dumps(Ack({block.stream: contiguous[block.stream]}))
            await session.publish(Message(topics.down(topic.board, "ack"), ack, qos=0))

    address = Address(client_id="hub", host="127.0.0.1", port=broker.port, username="hub")
    async with connect(address) as session:
        await session.subscribe(topics.up_all())
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(answer(), name="hub")
            yield
            answering.cancel()


async def test_what_the_hub_acknowledges_counts_as_delivered(broker: Mosquitto) -> None:
    async with (
        hub(broker, lambda board: True),
        Fleet.connect(Broker(port=broker.port), board_ids(40)) as fleet,
    ):
        await fleet.announce()
        await fleet.send(rate_per_s=400, seconds=0.5, readings=15)
        assert await fleet.settle(10)
        report = report_of(fleet)
    assert (report.boards, report.messages, report.readings) == (40, 200, 3000)
    assert report.acked_readings == 3000
    assert fleet.tally.pubacks == 200 + 2 * 40
    assert (report.refused, report.lost_connections) == (0, 0)
    assert len(fleet.tally.delays_s) == 200
    assert 0 < report.delay_p50_ms <= report.delay_p99_ms <= report.delay_max_ms


async def test_what_the_hub_does_not_acknowledge_counts_as_lost(broker: Mosquitto) -> None:
    ids = board_ids(10)
    async with (
        hub(broker, lambda board: board != ids[3]),
        Fleet.connect(Broker(port=broker.port), ids) as fleet,
    ):
        await fleet.send(rate_per_s=1000, seconds=0.02, readings=10)
        assert not await fleet.settle(0.5)
        report = report_of(fleet)
    assert (report.readings, report.acked_readings) == (200, 180)


async def test_what_is_not_acknowledged_is_sent_again(broker: Mosquitto) -> None:
    async with Fleet.connect(Broker(port=broker.port), board_ids(2)) as fleet:
        await fleet.send(rate_per_s=1000, seconds=0.004, readings=10)
        async with hub(broker, lambda board: True):
            assert not await fleet.settle(0.3)  # too early to send again
            for board in fleet.boards:
                board.send_again(board.sent[0].again_s)
            assert fleet.tally.resent == 4
            assert await fleet.settle(10)
        assert (fleet.tally.messages, fleet.tally.acked_readings) == (4, 40)


async def test_a_refused_publish_is_counted(broker: Mosquitto) -> None:
    async with Fleet.connect(Broker(port=broker.port), board_ids(2)) as fleet:
        first, second = fleet.boards
        first.id = second.id  # writes on another board's topics from now on
        first.send_batch(1)
        async with asyncio.timeout(10):
            while fleet.tally.refused == 0:
                await asyncio.sleep(0.01)
        assert fleet.tally.pubacks == 0


async def test_the_rate_is_kept(broker: Mosquitto) -> None:
    async with Fleet.connect(Broker(port=broker.port), board_ids(5)) as fleet:
        started = asyncio.get_running_loop().time()
        await fleet.send(rate_per_s=100, seconds=0.5, readings=1)
        took = asyncio.get_running_loop().time() - started
    assert fleet.tally.messages == 50
    assert 0.45 < took < 2
    assert [board.next for board in fleet.boards] == [11] * 5


async def test_boards_come_in_over_mutual_tls_each_as_itself(tmp_path: Path) -> None:
    ids, port = board_ids(3), free_port()
    authority = Authority.create(tmp_path, "h" * 16, "127.0.0.1", time.time_ns() // 1_000_000)
    issue(tmp_path, ids[:2], tmp_path / "certificates")
    tls = (
        f"listener {port} 127.0.0.1\nrequire_certificate true\n"
        f"cafile {authority.certificate}\ncertfile {authority.server_certificate}\n"
        f"keyfile {authority.server_key}\nuse_identity_as_username true\n"
    )
    certified = Broker(port=port, certificates=tmp_path / "certificates")
    async with (
        mosquitto(tmp_path, extra=tls) as running,
        hub(running, lambda board: True),
        Fleet.connect(certified, ids[:2]) as fleet,
    ):
        fleet.boards[0].send_batch(10)
        assert await fleet.settle(10)
        fleet.boards[1].id = ids[0]  # its certificate still says who it is
        fleet.boards[1].send_batch(10)
        async with asyncio.timeout(10):
            while fleet.tally.refused == 0:
                await asyncio.sleep(0.01)
    assert fleet.tally.acked_readings == 10
    with pytest.raises(FileNotFoundError):
        certified.tls(ids[2])


async def test_a_broker_that_is_not_there_is_an_error(broker: Mosquitto) -> None:
    broker.kill()
    with pytest.raises(ExceptionGroup) as raised:
        async with Fleet.connect(Broker(port=broker.port), board_ids(2)):
            pass
    assert raised.group_contains(ConnectionError)


def test_packets_are_split_wherever_the_stream_is_cut() -> None:
    data = packets.publish(7, "a/b", b"x" * 200, "t") + packets.disconnect() + b"\x40\x02\x00\x07"
    whole, rest = packets.split(data)
    assert ([packet.kind for packet in whole], rest) == ([3, 14, 4], b"")
    for cut in range(len(data)):
        first, rest = packets.split(data[:cut])
        second, rest = packets.split(rest + data[cut:])
        assert (first + second, rest) == (whole, b"")


def test_an_inbound_publish_is_read() -> None:
    body = b"\x00\x03a/b" + b"\x04\x03\x00\x01t" + b"payload"
    assert packets.delivery(packets.Packet(packets.PUBLISH, 1, body)) == ("a/b", b"payload")
    with pytest.raises(ValueError, match="not at QoS 0"):
        packets.delivery(packets.Packet(packets.PUBLISH, 2, body))


def test_a_length_that_never_ends_is_an_error() -> None:
    with pytest.raises(ValueError, match="four bytes"):
        packets.split(b"\x30\xff\xff\xff\xff\x01")


def test_the_ids_are_those_of_boards() -> None:
    ids = board_ids(1000)
    assert len(set(ids)) == 1000
    assert ids == board_ids(1000)
    assert all(topics.check_board_id(id) for id in ids)
