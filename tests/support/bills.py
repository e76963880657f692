"""Usage logs of several boards, made up for statements: any records, as their boards might have written them.

records = [container(seq, to_ms, cpu_us=5) for seq, to_ms in enumerate(times)]
statement = drawn([Log(origin, records)], cards=[card(cpu_hour="0.02")], period="2026-11")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from agent.wire.package import MAX_ENTRIES
from agent.wire.usage import Common, ContainerRecord, Counters, Known, SensorRecord
from hub.ledger.billing import FIELDS, Reckoning, Terms, measured_of
from hub.ledger.period import Period
from hub.ledger.rates import Card, parse_card
from hub.ledger.statement import Checkpoint, Statement
from hub.ledger.times import Stamp, Times, boots_of
from hub.store import boards
from support.boardlog import BoardLog
from support.webhub import WebHub

HUB = "h" * 16
BOARD = "b" * 16
ORIGIN = f"{BOARD}/usage/{'e' * 16}"
BOOT = "0" * 32
NOVEMBER = Period.parse("2026-11")
MINUTE = 60_000
ROOT = "A" * 43 + "="


def container(seq: int, to_ms: int, **given: Any) -> ContainerRecord:
    """A record of a container that ended then; its boot began with 1970, unless said otherwise."""
    length = given.pop("length_ms", 10 * MINUTE)
    values: dict[str, Any] = {
        "salt": f"{seq:032x}", "boot": BOOT, "mono0_ms": to_ms - length, "mono1_ms": to_ms,
        "wall0_ms": to_ms - length, "wall1_ms": to_ms, "clock": "synced", "payer": HUB,
        "workspace": "default", "app": "blog", "service": "web", "image": "", "container": "", "run": "r",
        "mem_sample_ms": 30_000, "mem_peak": None, "oom_kills": None, "exit_code": None, "abs": Counters(),
        **dict.fromkeys(("cpu_us", "mem_byte_ms", "io_r", "io_w", "net_rx", "net_tx")),
    }  # fmt: skip
    return ContainerRecord(seq=seq, **{**values, **given})


def sensor(seq: int, to_ms: int, readings: int, **given: Any) -> SensorRecord:
    """What was delivered of a sensor."""
    values: dict[str, Any] = {
        "salt": f"{seq:032x}", "boot": BOOT, "mono0_ms": to_ms - MINUTE, "mono1_ms": to_ms,
        "wall0_ms": to_ms - MINUTE, "wall1_ms": to_ms, "clock": "synced", "sensor": "room", "unit": "Cel",
        "day": max(to_ms, 0) // 86_400_000,
    }  # fmt: skip
    return SensorRecord(seq=seq, readings=readings, **{**values, **given})


@dataclass(frozen=True)
class Log:
    """A log with all its records; ``size`` is that of its checkpoint, if not all are under it."""

    origin: str
    records: Sequence[Known]
    size: int | None = None
    root: str = ROOT

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, len(self.records) if self.size is None else self.size, self.root)


def stamps_of(records: Sequence[Common]) -> list[Stamp]:
    return [Stamp(r.seq, r.boot, r.mono0_ms, r.mono1_ms, r.wall1_ms, r.clock) for r in records]


def card(name: str = "house", *, since: str = "2026-01-01", currency: str = "EUR", **given: str) -> Card:
    """A rate card; ``given`` are prices, and for whom it is."""
    keys = ("payer", "workspace", "label", "valid_until")
    whose: dict[str, Any] = {key: given.pop(key) for key in keys if key in given}
    return parse_card(
        tomli_w.dumps({"name": name, "currency": currency, "valid_from": since, **whose, "prices": given})
    )


def reckoned(
    logs: Sequence[Log],
    cards: Sequence[Card] = (),
    period: Period | str = NOVEMBER,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Reckoning:
    """All the logs gone through."""
    period = Period.parse(period) if isinstance(period, str) else period
    reckoning = Reckoning(Terms(HUB, "north", period, tuple(cards), labels or {}))
    for log in logs:
        times = Times(boots_of(stamps_of(log.records)))
        reckoning.take(log.checkpoint, times, measured_of(log.records, HUB))
    return reckoning


def drawn(
    logs: Sequence[Log],
    cards: Sequence[Card] = (),
    period: Period | str = NOVEMBER,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    payer: str = HUB,
) -> Statement:
    """The statement of a payer."""
    return reckoned(logs, cards, period, labels).statement(payer)


def quantities(statements: Sequence[Statement]) -> dict[str, int]:
    """What statements say was used, by meter."""
    found: dict[str, int] = {}
    for charge in (charge for each in statements for line in each.lines for charge in line.charges):
        found[charge.meter] = found.get(charge.meter, 0) + int(charge.quantity)
    return found


def counted(records: Sequence[Common]) -> dict[str, int]:
    """What records say was used, by field."""
    found: dict[str, int] = {}
    for record in records:
        for name in FIELDS:
            count = getattr(record, name, None)
            if count is not None:
                found[name] = found.get(name, 0) + count
    return found


async def metered(hub: WebHub, name: str, *records: Known, log: BoardLog | None = None) -> BoardLog:
    """A board of a hub, which has received all records of its log; or one that goes on."""
    if log is None:
        log = BoardLog()
        async with hub.store.write() as tx:
            key = log.key.vkey
            await boards.add_board(
                tx, id=log.board, name=name, log_key=key, seal_key="", joined_ms=hub.now_ms
            )
    size = log.size
    log.append(*records)
    for start in range(size, log.size, MAX_ENTRIES):
        package = log.package(start, min(MAX_ENTRIES, log.size - start))
        receipt = await hub.parts.witness.take(log.board, package)
        assert receipt.state == "ok", receipt.reason
    return log
