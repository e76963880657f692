"""What is wrong with a board: one check for each problem that it can find by itself.

Owns the codes, the thresholds and the words.  `CHECKS` is a table of pure functions over a
snapshot of `Facts`; `agent.health` runs them as time goes by, `agent.doctor` once.  Nothing here
waits, reads or remembers.

The first sentence of a check's function says what the problem is; docs/technician.md shows it.

>>> full = Disk("/var/lib/lichen", total_bytes=8_000_000_000, free_bytes=0)
>>> facts = Facts(wall_ms=1_700_000_000_000, vitals=Vitals(disk=full))
>>> [finding.sentence for finding in find("disk-full", facts)]
['/var/lib/lichen is full (0 MB free of 8.0 GB): readings cannot be stored.']
>>> [finding.sentence for finding in find("disk-low", facts)]
[]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agent.appchecks import APPS
from agent.findings import Check, Facts, Fault, Finding, Look, Severity, Trouble
from agent.usagechecks import USAGE
from agent.vitals import BEFORE, CAPPED, HOT, LOW, THROTTLED, Disk, Vitals
from agent.wire import words

__all__ = [
    "CHECKS",
    "Check",
    "Disk",
    "Facts",
    "Fault",
    "Finding",
    "Look",
    "Severity",
    "Trouble",
    "Vitals",
    "find",
]

LOW_SHARE, LOW_BYTES = 0.10, 1_000_000_000
"""Less than both of these free is low: a tenth of a small card is enough, and so is 1 GB of a large one."""
FULL_SHARE, FULL_BYTES = 0.01, 4 * 1024 * 1024
"""Less than both is full: a commit needs its pages twice, in the database and in its journal of 1 MiB."""
FEW_FILES = 8
"""What is written in one step needs a second file for a moment."""
AGAIN = 1.25
"""How much more must be free before the disk counts as free again; a log that rotates moves less."""
WORN, SPENT = 90, 110
"""Percent of an eMMC's life: the maker's last tenth, and more than the maker promised."""
WARM_C, WARM_AGAIN_C, MARGIN_C = 85.0, 80.0, 5.0
"""A Raspberry Pi slows down from 80 and more from 85; other boards switch off from 100 or so, of which
MARGIN_C is the last moment to say so."""
DAY_MS = 86_400_000
ENDING_DAYS = 15
"""Certificates of 90 days are renewed 30 before their end: by then it has failed for half of them."""
NEARLY_FULL, NEARLY_FULL_AGAIN = 0.8, 0.7
SILENT_MS = 600_000
"""An online link whose hub has not acknowledged anything for so long has no hub at its other end:
a batch is sent again after 30 s, doubling, so by then it was said five times."""


# --- clock -------------------------------------------------------------------------------------


def _clock(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """Nobody has set the clock since the board started: neither a time server nor the hub."""
    if facts.clock == "unsynced":
        yield Finding(f"The clock has not been set and says {words.utc(facts.wall_ms)}.")


# --- disk and card -----------------------------------------------------------------------------


def _disk_low(facts: Facts, known: Collection[str]) -> Iterator[Finding]:
    """The file system of the agent's state is nearly full."""
    disk = facts.vitals.disk
    if disk is None or _is_read_only(facts) or _is_full(disk):
        return
    factor = AGAIN if known else 1.0
    if disk.free_bytes < min(LOW_SHARE * disk.total_bytes, LOW_BYTES) * factor:
        yield Finding(f"{disk.path} has only {_room(disk)}.")


def _disk_full(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The file system of the agent's state is full; new readings stay in memory, the newest 10,000."""
    disk = facts.vitals.disk
    if disk is not None and not _is_read_only(facts) and _is_full(disk):
        room = "no more files" if _lacks_files(disk) else _room(disk)
        yield Finding(f"{disk.path} is full ({room}): readings cannot be stored.")
    elif facts.refusal == "disk-full":
        yield Finding("The disk is full: readings cannot be stored.")


def _disk_read_only(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The file system of the agent's state cannot be written any more, as after a fault of the card."""
    if _is_read_only(facts):
        where = f" of {facts.vitals.disk.path}" if facts.vitals.disk is not None else ""
        yield Finding(f"The file system{where} is read-only: readings cannot be stored.")


def _is_read_only(facts: Facts) -> bool:
    """Whether the kernel says so, or whoever tried to write."""
    disk = facts.vitals.disk
    return (disk is not None and disk.read_only) or facts.refusal == "disk-read-only"


def _is_full(disk: Disk) -> bool:
    return _lacks_files(disk) or disk.free_bytes < min(FULL_SHARE * disk.total_bytes, FULL_BYTES)


def _lacks_files(disk: Disk) -> bool:
    return disk.free_files is not None and disk.free_files < FEW_FILES


def _room(disk: Disk) -> str:
    return f"{_bytes(disk.free_bytes)} free of {_bytes(disk.total_bytes)}"


def _card(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The flash memory says that it has been written nearly as often as it can be."""
    for card in facts.vitals.cards:
        if card.used >= SPENT or card.reserve >= 3:
            yield Finding(f"{card.name} is worn out: its reserve is used up.", card.name, "fail")
        elif card.used >= WORN:
            yield Finding(f"{card.name} has used {card.used - 10} to {card.used} % of its life.", card.name)
        elif card.reserve == 2:
            yield Finding(f"{card.name} has used 80 % of its reserve blocks.", card.name)


# --- supply and heat ---------------------------------------------------------------------------


def _supply(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The supply voltage was too low, now or since the board started; it counts how often."""
    power = facts.vitals.power
    if power & LOW:
        yield Finding("The supply voltage is too low.")
    elif power & LOW << BEFORE and "under-voltage" not in facts.seen:
        yield Finding("The supply voltage has been too low since the board was switched on.")


def _throttled(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The processor is slowed down against heat (or was, since the board started)."""
    power = facts.vitals.power
    if facts.vitals.slowed:
        yield Finding("The processor is slowed down because it is hot.")
    elif _is_slow(power):
        hot = " because it is hot" if power & HOT else ""
        yield Finding(f"The processor is slowed down{hot}.")
    elif _is_slow(power >> BEFORE) and "throttled" not in facts.seen:
        yield Finding("The processor has been slowed down since the board was switched on.")


def _is_slow(power: int) -> bool:
    """Whether it is, and not because of the supply, which is a problem of its own."""
    return bool(power & (CAPPED | THROTTLED | HOT)) and not power & LOW


def _heat(facts: Facts, known: Collection[str]) -> Iterator[Finding]:
    """A part of the board is too hot."""
    for heat in facts.vitals.heat:
        # A board that switches off at less than 90 is warned of earlier.
        top = min(WARM_C, heat.critical - MARGIN_C) if heat.critical is not None else WARM_C
        limit = top - (WARM_C - WARM_AGAIN_C) if heat.zone in known else top
        if heat.celsius < limit:
            continue
        told, severity = "", None
        if heat.critical is not None and heat.celsius >= heat.critical - MARGIN_C:
            told, severity = f", and the board switches off at {heat.critical:.0f} °C", "fail"
        yield Finding(f"{heat.zone} is at {heat.celsius:.0f} °C{told}.", heat.zone, severity)  # type: ignore[arg-type]


def _memory_cgroup(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The kernel does not count memory by container, so apps can neither be measured nor limited."""
    if facts.vitals.memory_cgroup is False:
        yield Finding("The kernel does not count memory by container (cgroup controller memory is off).")


# --- the hub -----------------------------------------------------------------------------------


def _hub(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """There is no connection to the hub; readings are kept until it is back."""
    link = facts.link
    if link.state == "online":
        heard_ms = max(link.since_ms, link.acknowledged_ms or 0)
        if facts.outbox.readings and facts.wall_ms - heard_ms > SILENT_MS:
            yield Finding(f"The broker at {link.broker} answers, but the hub does not acknowledge readings.")
    elif link.state == "offline":
        yield Finding(f"The hub is not reached: {link.error.rstrip('.')}.")


def _certificate(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The certificate of the board ends soon, although it should have been renewed before."""
    until_ms = facts.certificate_until_ms
    if until_ms is None or facts.clock == "unsynced":
        return
    if until_ms <= facts.wall_ms:
        yield Finding(f"The board's certificate ended on {words.utc(until_ms)}.", severity="fail")
    elif until_ms - facts.wall_ms < ENDING_DAYS * DAY_MS:
        yield Finding(f"The board's certificate ends on {words.utc(until_ms)} and was not renewed.")


# --- readings ----------------------------------------------------------------------------------


def _outbox(facts: Facts, known: Collection[str]) -> Iterator[Finding]:
    """So many readings wait for the hub that soon the oldest must go."""
    outbox = facts.outbox
    share = outbox.bytes / max(1, outbox.max_bytes)
    if share >= (NEARLY_FULL_AGAIN if known else NEARLY_FULL):
        yield Finding(
            f"{outbox.readings} readings wait for the hub and fill {100 * share:.0f} % of the outbox"
            f" ({_bytes(outbox.max_bytes)})."
        )


def _dropped(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The outbox was full, and the oldest readings went; told until a day has passed without it."""
    if facts.dropped:
        yield Finding(f"{facts.dropped} readings were dropped because the outbox was full.")


def _unsaved(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """Readings were lost before they could be written; told until a day has passed without it."""
    if facts.unsaved:
        yield Finding(f"{facts.unsaved} readings could not be written and are lost.")


def _sensor(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """A sensor could not tell its value; the others go on."""
    for fault in facts.faults:
        if not fault.implausible:
            yield Finding(f"{fault.sensor} fails: {fault.error.rstrip('.')}.", fault.sensor)


def _implausible(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """A sensor says what cannot be, by its minimum and maximum; such values are not stored."""
    for fault in facts.faults:
        if fault.implausible:
            yield Finding(f"{fault.sensor}: {fault.error.rstrip('.')}.", fault.sensor)


def _bytes(count: int) -> str:
    """Bytes as people say them.  `words.value` says it finer, and costs the agent the module decimal."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# --- the table ---------------------------------------------------------------------------------

MINUTE, HOUR = 60.0, 3600.0

# Grace: what comes and goes by itself within it is nobody's business.  Clear: two episodes closer
# together than that are one, so that what flutters is one problem and counts its appearances.
CHECKS: tuple[Check, ...] = (
    Check(
        "disk-read-only", "fail", 0, 0, _disk_read_only,
        "Restart the board. If that comes back, the card is dying (`dmesg` says more): copy it, replace it.",
    ),
    Check(
        "disk-full", "fail", 0, MINUTE, _disk_full,
        "Free some space: `sudo journalctl --vacuum-size=50M`, `sudo apt clean`; `sudo du -xhd 2 /`"
        " says what is large.",
    ),
    Check(
        "card-worn", "warn", 0, 0, _card,
        "Replace the card or the board before it fails: copy it, or join a new one with a token made for it.",
    ),
    Check(
        # A dip of a second is worth knowing, and the next within an hour is the same bad cable.
        "under-voltage", "warn", 0, HOUR, _supply,
        "Use the power supply made for this board and a short, thick cable; unplug what draws power by USB.",
    ),
    Check(
        # A compiler at work may do it for a minute.
        "over-temperature", "warn", 2 * MINUTE, 5 * MINUTE, _heat,
        "Give the board air: clean the fan, open the case, move it out of the sun.",
    ),
    Check(
        "throttled", "warn", 2 * MINUTE, HOUR, _throttled,
        "Give the board air, and check its power supply: until then it works, but slowly.",
    ),
    Check(
        # Three reports; a broker or a router that restarts is back before.
        "hub-unreachable", "warn", MINUTE, 0, _hub,
        "`lichen-agent doctor` says at which step it fails: network, name, port, certificate, or the hub.",
    ),
    Check(
        # A time server or the hub answers within a minute of the network, and that may take some.
        "clock-unsynced", "warn", 5 * MINUTE, 0, _clock,
        "Let the board reach a time server (`timedatectl` shows whether it does) or its hub, which tells"
        " the time, too.",
    ),
    Check(
        "certificate-ending", "warn", 0, 0, _certificate,
        "It renews itself when the hub can be reached on the port of `hub_url`: open that, beside the"
        " broker's.",
    ),
    Check(
        "readings-unsaved", "fail", 0, 0, _unsaved,
        "Make the disk writable and free some space; what is lost stays lost.",
    ),
    Check(
        "readings-dropped", "warn", 0, 0, _dropped,
        "Bring the link to the hub back, or raise `outbox.max_bytes` in agent.toml.",
    ),
    Check(
        "outbox-nearly-full", "warn", 0, 0, _outbox,
        "Bring the link to the hub back, or raise `outbox.max_bytes` in agent.toml.",
    ),
    Check(
        "disk-low", "warn", 5 * MINUTE, 0, _disk_low,
        "Free some space before it is full: `sudo journalctl --vacuum-size=50M`, `sudo apt clean`.",
    ),
    Check(
        # It was asked again by then, most of them five times.
        "sensor-failing", "warn", MINUTE, 2 * MINUTE, _sensor,
        "Check its wiring and its lines in agent.toml; `lichen-agent sensors read NAME` asks it once.",
    ),
    Check(
        "value-implausible", "warn", MINUTE, 2 * MINUTE, _implausible,
        "Check the sensor, or correct its `minimum`, `maximum`, `scale` or `offset` in agent.toml.",
    ),
    *APPS,
    *USAGE,
    Check(
        "memory-cgroup-off", "notice", 0, 0, _memory_cgroup,
        "Only apps need it: add `cgroup_enable=memory` to /boot/firmware/cmdline.txt and restart.",
    ),
)  # fmt: skip
"""Every problem that a board finds by itself, the one to mend first at the top."""


def find(code: str, facts: Facts, known: Collection[str] = ()) -> list[Finding]:
    """What one check says to these facts."""
    check = next(check for check in CHECKS if check.code == code)
    return list(check.look(facts, known))
