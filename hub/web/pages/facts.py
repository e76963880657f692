"""What a board is, in words: hardware, system, clock, outbox; and what it has lost."""

from __future__ import annotations

from collections.abc import Iterator

from agent.wire import words
from agent.wire.messages import About, Traffic
from hub.store.boards import BoardRow
from hub.store.gaps import GapRow

Fact = tuple[str, str, int | None]
"""A word, what there is to say, or (when it is a time) the time in ms."""

CLOCKS = {"synced": "set by the network", "hub": "set by this hub", "unsynced": "not set, times may be wrong"}
REASONS = {"outbox-full": "the outbox of the board was full", "lost": "the board no longer has them"}


def facts_of(row: BoardRow, about: About | None, waiting: int | None) -> list[Fact]:
    """The facts that there are; what a board does not say is left out.

    ``waiting``: how many readings it holds that this hub lacks; None when it did not say yet.
    """
    facts = list(_said(about, waiting)) if about else []
    facts += [("Joined", "", row.joined_ms), ("Id", row.id, None)]
    if row.revoked_ms is not None:
        facts.append(("Revoked", "", row.revoked_ms))
    return [fact for fact in facts if fact[1] or fact[2]]


def _said(about: About, waiting: int | None) -> Iterator[Fact]:
    yield "Host name", about.hostname, None
    yield "System", about.system, None
    yield "Kernel", " ".join(filter(None, (about.kernel, about.arch))), None
    yield "Processors", str(about.cpus or ""), None
    yield "Memory", _bytes(about.memory_bytes), None
    yield "Disk", _bytes(about.disk_bytes), None
    yield "Clock", CLOCKS[about.clock], None
    yield "Reports", f"every {words.every(about.report_every_ms)}", None
    yield "Outbox", _outbox(about, waiting), None
    yield "Data used", _traffic(about.traffic), None
    yield "Certificate until", "", about.certificate_until_ms
    yield "Agent", about.version, None
    yield "Agent started", "", about.started_ms


def _outbox(about: About, waiting: int | None) -> str:
    """How much the board holds that this hub lacks, as its last report said; how much it can, and lost."""
    outbox = about.outbox
    text = "empty"
    if waiting is None:
        text = "not known before its next report"
    elif waiting:
        text = f"{_readings(waiting)} {'waits' if waiting == 1 else 'wait'}"
    if outbox.max_bytes:
        text += f"; room for {_bytes(outbox.max_bytes)}"
    return text + (f"; {_readings(outbox.dropped)} dropped" if outbox.dropped else "")


def _traffic(traffic: Traffic) -> str:
    """Bytes of a day, which is the board's idea of one; it tells them now and then, so there may be more.

    >>> words.plain(_traffic(Traffic(day=20_779, sent=420_000, received=80_000, before=1_200_000)))
    'at least 500 kB on 2026-11-22 (420 kB sent); 1.20 MB the day before'
    """
    if not traffic.day:
        return ""
    total = words.value(traffic.sent + traffic.received, "By")
    day = words.utc(traffic.day * words.DAY_MS).partition(" ")[0]
    text = f"at least {total} on {day} ({words.value(traffic.sent, 'By')} sent)"
    return text + (f"; {words.value(traffic.before, 'By')} the day before" if traffic.before else "")


def _readings(count: int) -> str:
    return f"{count} reading" + ("" if count == 1 else "s")


def _bytes(amount: int) -> str:
    return words.value(amount, "By") if amount else ""


def lost_in_words(gap: GapRow) -> tuple[str, int | None, int | None]:
    """A gap as a sentence, with its first and last time.

    >>> lost_in_words(GapRow("b", "s", 1, 40, 5, 9, "outbox-full", 10))
    ('40 readings lost: the outbox of the board was full', 5, 9)
    """
    return f"{_readings(gap.count)} lost: {REASONS.get(gap.reason, gap.reason)}", gap.from_ms, gap.to_ms
