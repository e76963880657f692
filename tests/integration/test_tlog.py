"""Usage logs as files below /tlog/: what is served, that it verifies, and who may see what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from agent.base.logfolder import Keys, check, files_of, read_keys
from agent.wire.audit import audit
from agent.wire.cosignature import open_cosigned
from agent.wire.errors import Refused
from agent.wire.note import Verifier, open_note
from agent.wire.proofs import ProofFile
from agent.wire.tiles import bundles_of, tiles_of
from agent.wire.tlog import Checkpoint
from agent.wire.usage import ContainerRecord, read
from hub.access.readers import Readers
from support.bills import metered
from support.boardlog import BoardLog, began, delivered, offered, used
from support.webhub import ADMIN, WebHub

PARTNER = "h" * 16  # whom `used` makes pay


class Visitor:
    """Somebody who asks for files of one log with a token."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self.http, self.url, self.token = http, url, token

    async def get(self, path: str, status: int = 200, *, root: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.http.get(f"{root or self.url}/{path}", headers=headers) as response:
            body = await response.read()
            assert response.status == status, (path, response.status, body)
            self.headers = response.headers
            return body


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path) as hub:
        yield hub


@pytest.fixture
async def log(hub: WebHub) -> BoardLog:
    """300 entries: of the epoch, the board, a sensor, and of containers."""
    return await metered(hub, "pump", began(), offered(1), delivered(2), *(used(at) for at in range(297)))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
def readers(hub: WebHub) -> Readers:
    return Readers(hub.store, lambda: hub.now_ms)


@pytest.fixture
async def admin(hub: WebHub, log: BoardLog, http: aiohttp.ClientSession) -> Visitor:
    token = await hub.access.new_api_token(ADMIN, "test")
    return Visitor(http, f"{hub.url}/tlog/{log.board}/{log.epoch}", token)


async def copied(visitor: Visitor, size: int, folder: Path, *, entries: bool = True) -> None:
    """The files of a log of ``size`` in a folder."""
    tiles = [tile.path for tile in tiles_of(size)]
    bundles = [tile.path for tile in bundles_of(size)] if entries else []
    for path in ("checkpoint", "keys.toml", *tiles, *bundles):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(await visitor.get(path))


async def test_what_is_served_verifies_with_the_keys_beside_it(
    admin: Visitor, hub: WebHub, log: BoardLog, tmp_path: Path
) -> None:
    await copied(admin, 300, tmp_path / "copy")
    keys = read_keys(tmp_path / "copy")
    assert keys == Keys(Verifier(log.origin, log.key.public_key), hub.parts.witness.verifier)
    found = check(files_of(tmp_path / "copy"), keys)
    assert (found.entries, found.first_entry, found.receipt_size) == (300, 0, 300)


async def test_files_are_served_as_the_specification_says(admin: Visitor) -> None:
    await admin.get("checkpoint")
    assert admin.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert admin.headers["Cache-Control"] == "no-store"
    await admin.get("tile/0/000")
    assert admin.headers["Content-Type"] == "application/octet-stream"
    assert "immutable" in admin.headers["Cache-Control"]
    assert "private" in admin.headers["Cache-Control"]


ABSENT = (
    "tile/0/001",
    "tile/0/001.p/45",
    "tile/0/1",
    "tile/0/000.p/256",
    "tile/8/000",
    "tile/x",
    "tile/entries/001",
    "tile/entries/002.p/1",
    "tile/0/%2e%2e%2f%2e%2e%2fcheckpoint",
    "proof/300",
    "proof/-1",
    "proof/x",
    "proof/99999999999999999999",
    "proof/1?size=7",
    "proof/1?size=x",
    "nothing",
)


async def test_what_is_not_there_is_not_found(admin: Visitor, hub: WebHub, log: BoardLog) -> None:
    for path in ABSENT:
        await admin.get(path, 404)
    for other in (f"{log.board}/{'z' * 16}", f"{'z' * 16}/{log.epoch}", "a/b", f"{log.board}/%2e%2e"):
        await admin.get("checkpoint", 404, root=f"{hub.url}/tlog/{other}")


async def test_each_record_is_proven_under_the_newest_and_under_an_older_checkpoint(
    admin: Visitor, hub: WebHub, log: BoardLog
) -> None:
    key, witness = Verifier(log.origin, log.key.public_key), hub.parts.witness.verifier
    for index in (0, 255, 256, 299):
        for name in (f"proof/{index}", f"proof/{index}.tlog-proof"):
            proven = ProofFile.parse(await admin.get(name)).verify(None, key, [witness])
            assert (proven.entry, proven.index) == (log.entries[index], index)
            assert proven.checkpoint.size == 300
    old = ProofFile.parse(await admin.get("proof/7?size=256")).verify(None, key, [witness])
    assert (old.checkpoint.size, old.entry) == (256, log.entries[7])


async def test_after_a_new_receipt_key_what_is_shown_is_signed_with_it(
    admin: Visitor, hub: WebHub, log: BoardLog
) -> None:
    before = hub.parts.witness.verifier
    keys = hub.parts.witness._keys
    keys.adopt(keys.renewed(["receipt"]))
    key, witness = Verifier(log.origin, log.key.public_key), hub.parts.witness.verifier
    assert witness != before
    for path in ("checkpoint", "proof/7"):
        note = (await admin.get(path)).decode()
        note = note if path == "checkpoint" else ProofFile.parse(note).note
        assert Checkpoint.parse(open_cosigned(note, witness)[0]).size == 300
        assert open_note(note, key)
    # An older one stays as it was signed: a cosignature says that there was no newer one then.
    old = ProofFile.parse(await admin.get("proof/7?size=256"))
    assert Checkpoint.parse(open_cosigned(old.note, before)[0]).size == 256


async def test_a_stranger_sees_nothing(admin: Visitor, readers: Readers) -> None:
    everything = ("checkpoint", "keys.toml", "tile/0/000", "tile/entries/000", "proof/5")
    _, ended = await readers.new("ended", "peer", ttl_ms=None, author=ADMIN)
    await readers.revoke((await readers.list())[0].id, ADMIN)
    for token in ("", "x", ended):
        for path in everything:
            await Visitor(admin.http, admin.url, token).get(path, 401)


async def test_a_peer_sees_heads_and_tiles_alone(
    admin: Visitor, readers: Readers, log: BoardLog, tmp_path: Path
) -> None:
    _, token = await readers.new("other hub", "peer", ttl_ms=None, author=ADMIN)
    peer = Visitor(admin.http, admin.url, token)
    await copied(peer, 300, tmp_path / "copy", entries=False)
    fetch = files_of(tmp_path / "copy")
    for path in ("tile/entries/000", "tile/entries/001.p/44", "proof/5"):
        await peer.get(path, 403)
    # Two heads and the tiles are what a peer needs to see that a log only grew.
    assert audit(fetch, log.key.verifier).entries == 0


async def test_a_payer_sees_proofs_of_own_records_alone(
    admin: Visitor, readers: Readers, hub: WebHub, log: BoardLog
) -> None:
    _, token = await readers.new("partner", "payer", payer=PARTNER, ttl_ms=None, author=ADMIN)
    payer = Visitor(admin.http, admin.url, token)
    proven = ProofFile.parse(await payer.get("proof/5")).verify(
        None, Verifier(log.origin, log.key.public_key), [hub.parts.witness.verifier]
    )
    record = read(proven.entry)
    assert isinstance(record, ContainerRecord)
    assert record.payer == PARTNER
    await payer.get("keys.toml")
    for path in ("checkpoint", "tile/0/000", "tile/entries/000"):
        await payer.get(path, 403)
    for index in (0, 1, 2, 300):  # the epoch, the board, readings of this hub, nothing
        assert b"no record" in await payer.get(f"proof/{index}", 404)
    _, other = await readers.new("somebody", "payer", payer="s" * 16, ttl_ms=None, author=ADMIN)
    await Visitor(admin.http, admin.url, other).get("proof/5", 404)
    _, own = await readers.new("house", "payer", payer=hub.parts.id, ttl_ms=None, author=ADMIN)
    house = Visitor(admin.http, admin.url, own)
    await house.get("proof/2")
    await house.get("proof/1", 404)


async def test_a_reading_token_opens_nothing_else(admin: Visitor, readers: Readers, hub: WebHub) -> None:
    _, token = await readers.new("other hub", "peer", ttl_ms=None, author=ADMIN)
    peer = Visitor(admin.http, hub.url, token)
    for path in (
        "api/v1/hub",
        "api/v1/boards",
        "api/v1/usage/logs",
        "",
        "usage",
        "metrics",
        "tlog/",
        "tlogs",
    ):
        await peer.get(path, 401)


async def test_a_reading_token_ends_in_time(admin: Visitor, readers: Readers, hub: WebHub) -> None:
    _, token = await readers.new("short", "peer", ttl_ms=60_000, author=ADMIN)
    peer = Visitor(admin.http, admin.url, token)
    await peer.get("checkpoint")
    hub.skew_ms += 60_001
    await peer.get("checkpoint", 401)


async def test_a_reading_token_says_what_it_is_for(readers: Readers) -> None:
    for name, scope, payer in (("", "peer", ""), ("x", "peer", "p"), ("x", "payer", ""), ("x\n", "peer", "")):
        with pytest.raises(Refused):
            await readers.new(name, scope, payer=payer, ttl_ms=None, author=ADMIN)  # type: ignore[arg-type]
