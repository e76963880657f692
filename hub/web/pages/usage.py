"""The page of what was used: by app, board or workspace over time; and how a board's log stands.

Owns how uses and logs look in a browser.  What is charged for them is on the pages of statements; what a
record says exactly, the command line and the API tell.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlencode

from aiohttp import web

from agent.wire import words
from agent.wire.errors import Refused
from agent.wire.usage_words import seconds
from hub.store import usage
from hub.store.boards import BoardRow
from hub.store.database import Tx
from hub.store.usage import Sums
from hub.web.api.usage import logs_of
from hub.web.api.usage_logs import UsageLog, standing_of
from hub.web.pages.render import page
from hub.web.pages.span import RANGES, Span, read_span
from hub.web.parts import parts_of

By = Literal["app", "board", "workspace"]
GROUPS: tuple[tuple[By, str], ...] = (("app", "Apps"), ("board", "Boards"), ("workspace", "Workspaces"))
FILTERS: tuple[By, ...] = get_args(By)
DRAWN = 6
"""Lines in a chart: as many colours as can be told apart."""
LISTED = 200
WHOLE_MS = 2**62
"""A bucket for everything."""
MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Used:
    """What one app, board or workspace used in the whole range, in words; ``address``: of it alone."""

    key: str
    name: str
    address: str
    processor: str
    memory: str
    disk: str
    network: str
    records: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The log of a board as its page shows it; ``over`` are logs that it wrote before."""

    log: UsageLog
    over: tuple[UsageLog, ...]

    @property
    def conflicts(self) -> int:
        """How often the board signed two histories, in all its logs."""
        return sum(each.conflicts for each in (self.log, *self.over))


async def show_usage(request: web.Request) -> web.Response:
    """The page; ``by``, ``range``, and filters ``app``, ``board``, ``workspace`` in the address."""
    parts, query = parts_of(request), request.query
    now_ms = parts.now_ms()
    span = read_span({"range": "1d", **query}, 0, now_ms)
    by = _group(query.get("by", "app"))
    wanted: dict[str, str] = {name: query.get(name, "")[:256] for name in FILTERS if query.get(name)}
    async with parts.store.read() as tx:
        logs = list(await logs_of(tx, wanted["board"])) if "board" in wanted else None
        sums = await usage.sums(
            tx,
            span.from_ms,
            span.to_ms,
            bucket_ms=WHOLE_MS,
            by=by,
            logs=logs,
            workspace=wanted.get("workspace"),
            app=wanted.get("app"),
        )
        has_any = bool(sums) or bool(await usage.list_logs(tx, limit=1))
        names = await usage.names_of(tx, [each.key for each in sums]) if by == "board" else {}
    link = functools.partial(_address, by=by, span=span, wanted=wanted)
    ordered = sorted(sums, key=lambda each: (-(each.cpu_us or 0), each.key))
    return page(
        request,
        "usage.html",
        {
            "here": "/usage",
            "by": by,
            "groups": [(name, word, link(by=name)) for name, word in GROUPS],
            "ranges": [(name, word, link(range=name)) for name, word in RANGES],
            "span": span,
            "filters": [(name, text, link(without=name)) for name, text in wanted.items()],
            "rows": [_used(each, by, names, span, wanted) for each in ordered[:LISTED]],
            "more": max(0, len(ordered) - LISTED),
            "drawn": DRAWN,
            "source": f"/api/v1/usage/sums?{urlencode({'by': by, **wanted})}",
            "has_any": has_any,
        },
    )


async def ledger_of(tx: Tx, board: BoardRow) -> Ledger | None:
    """How the log of a board stands; None before it has one."""
    logs = await standing_of(tx, await usage.list_logs(tx, of=[board.id], limit=1000))
    current = next((each for each in logs if each.is_current), None)
    return None if current is None else Ledger(current, tuple(each for each in logs if each is not current))


# --- in words --------------------------------------------------------------------------------------


def _group(text: str) -> By:
    for name in FILTERS:
        if text == name:
            return name
    raise Refused(f"by: {text[:32]!r} is not one of {', '.join(FILTERS)}")


def _address(
    *, by: str, span: Span, wanted: Mapping[str, str], range: str = "", without: str = "", **more: str
) -> str:
    """The address of this page with something else in it."""
    pairs = {"by": by, **wanted, **more}
    pairs.pop(without, None)
    if range or span.name:
        pairs["range"] = range or span.name
    else:
        pairs |= {"from_ms": str(span.from_ms), "to_ms": str(span.to_ms)}
    return f"/usage?{urlencode(pairs)}"


def _used(each: Sums, by: By, names: Mapping[str, str], span: Span, wanted: Mapping[str, str]) -> Used:
    name = names.get(each.key, each.key)
    # What is chosen by one is of interest by the other.
    other = "app" if by == "board" else "board"
    length_ms = max(1, span.to_ms - span.from_ms)
    return Used(
        key=each.key,
        name=name or "without a name",
        address=_address(by=other, span=span, wanted={**wanted, by: name}),
        processor=processor(each.cpu_us),
        memory=words.value(None if each.mem_byte_ms is None else each.mem_byte_ms // length_ms, "By"),
        disk=_pair(each.io_r, each.io_w),
        network=_pair(each.net_rx, each.net_tx),
        records=each.records,
    )


def processor(cpu_us: int | None) -> str:
    """Processor time in words.

    >>> processor(1_500_000), processor(4_500_000_000), processor(None)
    ('1.50 s', '1\\xa0h 15\\xa0min', '–')
    """
    if cpu_us is None or cpu_us < MINUTE_US:
        return seconds(cpu_us)
    return words.duration(cpu_us // 1000)


def _pair(into: int | None, out: int | None) -> str:
    return f"{words.value(into, 'By')} / {words.value(out, 'By')}"
