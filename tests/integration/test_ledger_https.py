"""The boards' HTTPS side of usage logs, on a running hub: who may send and fetch what, in which form."""

from __future__ import annotations

import io
import ssl
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.wire.decode import decode
from agent.wire.envelope import ZLIB_JSON, unpack
from agent.wire.package import Package, Receipt, read_package
from agent.wire.series import encode_series
from agent.wire.tlog import Checkpoint, Frontier, check_consistency
from support.applicant import Applicant, address, ask, join, join_file
from support.boardlog import BoardLog, hole
from support.lab import Lab

pytestmark = pytest.mark.slow


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        await lab.start_hub()
        yield lab


class Sender:
    """A board that has joined, with a log in memory."""

    def __init__(self, lab: Lab, applicant: Applicant, shows: ssl.SSLContext) -> None:
        self.lab, self.shows = lab, shows
        self.log = BoardLog(applicant.log_key)

    @classmethod
    async def joined(cls, lab: Lab) -> Sender:
        applicant = Applicant()
        _, answer = await join(lab, applicant.request(await join_file(lab)))
        shows = address(lab, applicant, answer["certificate_pem"]).tls
        assert isinstance(shows, ssl.SSLContext)
        return cls(lab, applicant, shows)

    async def post(self, body: bytes) -> tuple[int, dict[str, Any]]:
        url = f"https://127.0.0.1:{self.lab.board_port}/ledger"
        data = io.BytesIO(body)  # aiohttp warns of much as bytes
        async with aiohttp.ClientSession() as http, http.post(url, data=data, ssl=self.shows) as response:
            return response.status, await response.json(content_type=None)

    async def send(self, *packages: Package) -> Receipt:
        status, answer = await self.post(encode_series(packages))
        assert status == 200, answer
        return decode(Receipt, answer)

    async def fetch(self, start: int, epoch: str = "") -> Package:
        url = f"https://127.0.0.1:{self.lab.board_port}/ledger/{epoch or self.log.epoch}?start={start}"
        async with aiohttp.ClientSession() as http, http.get(url, ssl=self.shows) as response:
            assert response.status == 200, await response.text()
            return read_package(unpack(await response.read(), ZLIB_JSON))


async def test_what_a_board_sends_it_can_fetch_back(lab: Lab) -> None:
    sender = await Sender.joined(lab)
    log = sender.log
    log.grow(600)
    receipt = await sender.send(log.package(0, 256), log.package(256, 256), log.package(512, 88))
    assert (receipt.state, receipt.size) == ("ok", 600)
    log.grow(10)
    log.append(hole(600, 10))
    log.grow(5)
    receipt = await sender.send(log.package(600, 16, lost=10))
    assert receipt.size == 616
    tree, at = Frontier(), 0
    found: list[bytes] = []
    while at < 616:
        package = await sender.fetch(at)
        tree.extend(package.leaves())
        checkpoint = Checkpoint.parse(package.checkpoint.partition("\n\n")[0] + "\n")
        check_consistency(package.end, checkpoint.size, package.proof, tree.root(), checkpoint.root)
        found += [b""] * len(package.lost) + list(package.entries)
        at = package.end
    assert found == [*log.entries[:600], *[b""] * 10, *log.entries[610:]]
    assert (await sender.fetch(616)).end == 616


async def test_only_with_its_certificate_and_only_its_own(lab: Lab) -> None:
    sender, other = await Sender.joined(lab), await Sender.joined(lab)
    sender.log.grow(3)
    body = encode_series([sender.log.package(0, 3)])
    for method, path in (("POST", "/ledger"), ("GET", f"/ledger/{sender.log.epoch}")):
        status, problem = await ask(lab, method, path, body if method == "POST" else None)
        assert (status, problem["type"]) == (403, "urn:lichen:problem:forbidden")
    status, problem = await other.post(body)
    assert (status, problem["type"]) == (403, "urn:lichen:problem:forbidden")
    assert (await sender.send(sender.log.package(0, 3))).size == 3
    status, _ = await ask(lab, "GET", f"/ledger/{sender.log.epoch}?start=0", shows=other.shows)
    assert status == 404
    await lab.api("POST", f"/boards/{sender.log.board}/revoke")
    status, problem = await sender.post(body)
    assert (status, problem["type"]) == (403, "urn:lichen:problem:revoked")


async def test_what_is_no_package_is_refused_by_what_is_wrong_with_it(lab: Lab) -> None:
    sender = await Sender.joined(lab)
    log = sender.log
    log.grow(3)
    forged = BoardLog(epoch=log.epoch)
    forged.grow(3)
    foreign = Package(log.origin, "n", 0, tuple(log.entries), (), forged.checkpoint())
    for body, status in (
        (b"", 422),
        (b"{}", 422),
        (zlib.compress(b"{}\n"), 422),
        (zlib.compress(bytes(3 * 1024 * 1024)), 413),
        (bytes(1024 * 1024 + 1), 413),
        (encode_series([foreign]), 422),
    ):
        found, problem = await sender.post(body)
        assert found == status, problem
        assert problem["detail"]
    for start in ("-1", "x", "1" * 30):
        found, _ = await ask(lab, "GET", f"/ledger/{log.epoch}?start={start}", shows=sender.shows)
        assert found == 422
    found, _ = await ask(lab, "GET", "/ledger/nonsense?start=0", shows=sender.shows)
    assert found == 422
    assert (await sender.send(log.package(0, 3))).size == 3
