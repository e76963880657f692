"""Usage logs as static files, for whoever checks them with tools of their own (https://c2sp.org/tlog-tiles).

Below ``/tlog/<board id>/<epoch>/``:

| file | what | an admin | peer | payer |
|---|---|---|---|---|
| checkpoint | the newest one, signed by the board and by this hub | yes | yes | no |
| keys.toml | the public keys of both | yes | yes | yes |
| tile/<level>/<number> | hashes | yes | yes | no |
| tile/entries/<number> | the records | yes | no | no |
| proof/<index>.tlog-proof | a record with its proof; ``?size=``: under that checkpoint | yes | no | own |

An admin comes with a session or an API token; the others with a reading token (`hub.access.readers`).  What a
payer may not see is not there for it, so that it learns nothing of the others.
"""

from __future__ import annotations

from aiohttp import web

from agent.base.logfolder import KEYS, Keys, keys_text
from agent.wire.errors import Refused
from agent.wire.proofs import SUFFIX
from agent.wire.tiles import CHECKPOINT, ENTRIES, Tile
from agent.wire.usage import origin_of
from hub.ledger.claims import key_of
from hub.ledger.shown import head_of, proof_of, tile_of
from hub.store import boards, usage
from hub.store.database import Tx
from hub.store.ledgers import LogRow
from hub.store.readers import ReaderRow
from hub.web.guard import READER
from hub.web.parts import Parts, parts_of

FOR_EVER = "private, max-age=31536000, immutable"
"""A tile never changes; but it is for who may see it alone."""
BILLED = ("container", "sensor")
"""The records that statements are made of."""


def add_files(router: web.UrlDispatcher) -> None:
    """The addresses."""
    log = "/tlog/{board}/{epoch}"
    router.add_get(f"{log}/{CHECKPOINT}", show_checkpoint)
    router.add_get(f"{log}/{KEYS}", show_keys)
    router.add_get(f"{log}/tile/{{path:.+}}", show_tile)
    router.add_get(f"{log}/proof/{{name}}", show_proof)


async def show_checkpoint(request: web.Request) -> web.Response:
    """The head of the log."""
    _allow(request, "peer")
    log = await _newly_signed(request)
    async with parts_of(request).store.read() as tx:
        head = await head_of(tx, log)
    # SPEC tlog-tiles: served as a checkpoint with `Content-Type: text/plain; charset=utf-8`.
    return _text(head.note)


async def show_keys(request: web.Request) -> web.Response:
    """The public keys that the log is checked with."""
    _allow(request, "peer", "payer")
    parts = parts_of(request)
    async with parts.store.read() as tx:
        log = await _log(request, tx)
        return _text(keys_text(await keys_of(parts, tx, log)))


async def show_tile(request: web.Request) -> web.Response:
    """A tile of hashes, or a bundle of entries."""
    try:
        tile = Tile.parse(f"tile/{request.match_info['path']}")
    except Refused as error:
        raise Refused(str(error), code="not-found") from error
    _allow(request, *(() if tile.level == ENTRIES else ("peer",)))
    async with parts_of(request).store.read() as tx:
        data = await tile_of(tx, await _log(request, tx), tile)
    # SPEC tlog-tiles: This endpoint is immutable, so its caching headers SHOULD be long-lived.
    headers = {"Cache-Control": FOR_EVER}
    response = web.Response(body=data, content_type="application/octet-stream", headers=headers)
    if tile.level == ENTRIES:
        # SPEC tlog-tiles: Entry bundles SHOULD be compressed at the HTTP layer.
        response.enable_compression()
    return response


async def show_proof(request: web.Request) -> web.Response:
    """A record with its proof."""
    _allow(request, "payer")
    parts, name = parts_of(request), request.match_info["name"].removesuffix(SUFFIX)
    index, size = _number(name), _number(request.query.get("size", "0"))
    log = await _newly_signed(request)
    async with parts.store.read() as tx:
        if reader := request.get(READER):
            await _own(tx, log, index, reader, parts.id)
        proof = await proof_of(tx, log, index, size)
    response = _text(proof.text())
    response.headers["Content-Disposition"] = f'attachment; filename="{log.board}-{index}{SUFFIX}"'
    return response


async def keys_of(parts: Parts, tx: Tx, log: LogRow) -> Keys:
    """The keys of a log: that of its board, under the name of the log, and ours of receipts."""
    row = await boards.get_board(tx, log.board)
    return Keys(key_of(log.origin, row.log_key), parts.witness.verifier)


# --- who may ---------------------------------------------------------------------------------------


def _allow(request: web.Request, *scopes: str) -> None:
    """Raise Refused (code "forbidden") for a reading token of another scope; admins see everything."""
    reader = request.get(READER)
    if reader is not None and reader.scope not in scopes:
        raise Refused(
            f"the reading token {reader.name} of scope {reader.scope} does not open this",
            code="forbidden",
            hint="ask an admin of this hub",
        )


async def _own(tx: Tx, log: LogRow, index: int, reader: ReaderRow, hub: str) -> None:
    """Raise Refused (code "not-found") unless a record is about what this payer pays for."""
    row = await usage.find_record(tx, log.id, index)
    if row is None or row.type not in BILLED or (row.payer or hub) != reader.payer:
        raise Refused(
            f"{log.origin} has no record {index} that {reader.payer} pays for",
            code="not-found",
            hint="the statement names the records that it is made of",
        )


async def _log(request: web.Request, tx: Tx) -> LogRow:
    board, epoch = request.match_info["board"], request.match_info["epoch"]
    try:
        origin = origin_of(board, epoch)
    except Refused as error:
        raise Refused(str(error), code="not-found") from error
    return await usage.get_log(tx, origin)


async def _newly_signed(request: web.Request) -> LogRow:
    """The log, whose newest checkpoint has a receipt by the key that is told in `KEYS`."""
    parts = parts_of(request)
    async with parts.store.read() as tx:
        log = await _log(request, tx)
    await parts.witness.renew(log)
    return log


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 17):
        raise Refused(f"{text[:40]!r} is not the number of a record", code="not-found")
    return int(text)


def _text(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain", charset="utf-8")
