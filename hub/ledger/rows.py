"""Records as rows of the store: their columns, and when they were.  Pure.

`hub.ledger.witness` makes the rows of each package with it.  The time of a row is for lists and charts; what
is billed goes by `hub.ledger.times`, which looks at the whole log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.wire.usage import (
    BoardRecord,
    ClockRecord,
    ContainerRecord,
    EpochRecord,
    HoleRecord,
    Known,
    OrderRecord,
    Other,
    Record,
    SensorRecord,
)
from hub.store.ledgers import RecordRow


@dataclass(slots=True)
class Clockwork:
    """What is known of time in one log, up to an entry of it.

    ``last_ms``: when the record before was; ``offsets``: what to add to the monotonic clock of each boot in
    question, None as long as no record of it had a clock that was right; ``learned``: those of the boots that
    it was None for, and that say so now: rows of them that are stored have to be set right.
    """

    last_ms: int
    offsets: dict[str, int | None]
    learned: dict[str, int] = field(default_factory=dict)

    def time(self, record: Known) -> tuple[int, bool]:
        """When a record ended, and whether that is certain."""
        if record.clock != "unsynced":
            offset_ms = record.wall1_ms - record.mono1_ms
            if self.offsets.get(record.boot) is None:
                self.learned[record.boot] = offset_ms
            self.offsets[record.boot] = offset_ms
        known_ms = self.offsets.get(record.boot)
        if known_ms is None:
            return self.last_ms, False
        self.last_ms = record.mono1_ms + known_ms
        return self.last_ms, True


def boots_in(records: Iterable[Record]) -> set[str]:
    """The boots that records speak of."""
    return {record.boot for record in records if not isinstance(record, Other)}


def rows_of(log: int, records: Iterable[Record], clockwork: Clockwork) -> list[RecordRow]:
    """The rows of records, in order; those of a later version have none, and stay as entries.

    A record that comes before the one by which its boot knows the time gets its own with the stored ones.
    """
    return [_row(log, record, *clockwork.time(record)) for record in records if not isinstance(record, Other)]


def _row(log: int, record: Known, at_ms: int, is_certain: bool) -> RecordRow:
    head = (
        log,
        record.seq,
        record.type,
        record.boot,
        record.mono0_ms,
        record.mono1_ms,
        record.wall0_ms,
        record.wall1_ms,
        record.clock,
        at_ms,
        int(is_certain),
    )
    match record:
        case ContainerRecord():
            return RecordRow(
                *head,
                record.payer,
                record.workspace,
                record.app,
                record.service,
                record.image,
                record.container,
                record.run,
                record.lease,
                record.order,
                record.cpu_us,
                record.mem_byte_ms,
                record.mem_sample_ms,
                record.mem_peak,
                record.io_r,
                record.io_w,
                record.net_rx,
                record.net_tx,
                int(record.reset),
                record.oom_kills,
                int(record.ended),
                record.exit_code,
            )
        case BoardRecord():
            return RecordRow(
                *head,
                cpus=record.cpus,
                memory_bytes=record.memory_bytes,
                disk_bytes=record.disk_bytes,
            )
        case SensorRecord():
            return RecordRow(
                *head, sensor=record.sensor, unit=record.unit, readings=record.readings, day=record.day
            )
        case OrderRecord():
            return RecordRow(*head, generation=record.generation)
        case ClockRecord() | EpochRecord() | HoleRecord():
            return RecordRow(*head)
