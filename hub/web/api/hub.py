"""The hub itself in the API: who it is, its description, and what it tells as it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from aiohttp import web

from agent.wire.decode import Length, Range
from hub.fleet.retention import Storage
from hub.store import boards
from hub.web import live
from hub.web.api.route import Call, json_response
from hub.web.census import Counts
from hub.web.guard import identify
from hub.web.wiring import CENSUS, DOCUMENT, STREAMS

MOST_BOARDS = 500


@dataclass(frozen=True, slots=True)
class Hub:
    """This hub: its ``id`` follows from its root key; ``boards`` counts them by state,
    ``storage`` says how much room readings take."""

    name: str
    id: str
    version: str
    now_ms: int
    boards: Counts
    storage: Storage


@dataclass(frozen=True, slots=True)
class LiveQuery:
    """What to follow."""

    board: Annotated[tuple[str, ...], Length(0, MOST_BOARDS)] = field(
        default=(), metadata={"says": "Only this board (id or name); repeat it for several"}
    )
    sensor: Annotated[tuple[str, ...], Length(0, 512)] = field(
        default=(), metadata={"says": "Only values of this sensor; repeat it for several"}
    )
    counts: Annotated[int, Range(0, 1)] = field(
        default=0, metadata={"says": "1: the fleet in numbers as well"}
    )


async def show_hub(call: Call) -> Hub:
    """Say which hub this is."""
    counts = (await call.request.config_dict[CENSUS].count()).counts
    parts = call.parts
    return Hub(parts.name, parts.id, parts.version, parts.now_ms(), counts, parts.storage())


async def show_document(call: Call) -> web.Response:
    """Describe this API (OpenAPI 3.1)."""
    return json_response(call.request.config_dict[DOCUMENT]())


async def follow_live(call: Call, query: LiveQuery) -> web.StreamResponse:
    """Follow what changes, as server-sent events.

    `event: board` has board, heard_ms, presence, every_ms, problem (a sentence, or empty), waiting
    (readings that the board still holds, or null) and values: sensor to [value, time in ms].
    `event: hub` has now_ms and, when asked for, counts. Each connection begins with the full
    state, so nothing has to be remembered between two.
    """
    ids = frozenset([await _board_id(call, name) for name in query.board])
    wanted = live.Wanted(ids, frozenset(query.sensor), bool(query.counts))
    assert call.principal is not None, "not a public route"
    source = live.Source(
        latest=call.parts.latest,
        census=call.request.config_dict[CENSUS],
        now_ms=call.parts.now_ms,
        still_holds=lambda: identify(call.request),
        watching=call.parts.commands.watching,
    )
    with call.request.config_dict[STREAMS].hold(call.principal.id) as closing:
        return await live.stream(call.request, wanted, source, closing)


async def _board_id(call: Call, name: str) -> str:
    """The id of a board; a page asks by id, and for many, so those that are known are not looked up."""
    if name in call.parts.latest.boards:
        return name
    async with call.parts.store.read() as tx:
        return (await boards.get_board(tx, name)).id
