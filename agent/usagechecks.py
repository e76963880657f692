"""What is wrong with the usage log of a board: a check for each problem that `agent.usage.usage` tells.

Owns their codes, how long they must last, and what to do; the sentences come with the facts.
`agent.checks` has them in its table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agent.findings import Check, Facts, Finding

MINUTE = 60.0


def _usage_stopped(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The usage log is damaged, so nothing is written into it; readings and apps go on."""
    return _trouble(facts, "usage-stopped")


def _usage_disk_full(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """What was used cannot be written down; it is not lost, the next record covers it."""
    return _trouble(facts, "usage-disk-full")


def _usage_unreceipted(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The hub has not countersigned the usage log for days, or does not take it."""
    return _trouble(facts, "usage-unreceipted")


def _trouble(facts: Facts, code: str) -> Iterator[Finding]:
    return (Finding(each.sentence, each.subject) for each in facts.troubles if each.code == code)


USAGE: tuple[Check, ...] = (
    Check(
        "usage-stopped", "fail", 0, 0, _usage_stopped,
        "`lichen-agent usage verify` names the place: keep a copy of the folder, then do what it says.",
    ),
    Check(
        "usage-disk-full", "warn", 0, 0, _usage_disk_full,
        "Free some space: the log needs about 0.4 MB a day, and what the hub has goes after 35 days.",
    ),
    Check(
        # A hub that is busy takes it the next time.
        "usage-unreceipted", "warn", 5 * MINUTE, 0, _usage_unreceipted,
        "Look at the board's page at the hub: it says whether it has seen two histories, or what it lacks.",
    ),
)  # fmt: skip
"""Every problem of the usage log, the one to mend first at the top."""
