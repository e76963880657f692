"""What checks are about, and what they are: facts, findings, and the shape of one check.

The types that `agent.checks`, `agent.appchecks`, `agent.usagechecks`, `agent.health` and `agent.doctor`
share; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

from agent.status import LinkState
from agent.vitals import Vitals
from agent.wire.messages import ClockState, OutboxState

Severity = Literal["notice", "warn", "fail"]


class Fault(NamedTuple):
    """A channel that could not tell its value, and why; ``implausible``: it told an impossible one."""

    sensor: str
    error: str
    implausible: bool = False


class Trouble(NamedTuple):
    """Something that is wrong with apps or the usage log: the code of its problem, which app (or ""), and a
    sentence."""

    code: str
    subject: str
    sentence: str


class Facts(NamedTuple):
    """A snapshot of what the checks are about.

    ``refusal``: the code of why the outbox takes no readings now, or "".  ``dropped`` and
    ``unsaved``: readings that were lost, until a day has passed without more.  ``seen``: the codes
    of the problems that there have been since the machine started.
    """

    wall_ms: int
    clock: ClockState = "synced"
    vitals: Vitals = Vitals()
    link: LinkState = LinkState()
    outbox: OutboxState = OutboxState()
    faults: tuple[Fault, ...] = ()
    refusal: str = ""
    dropped: int = 0
    unsaved: int = 0
    certificate_until_ms: int | None = None
    seen: Collection[str] = frozenset()
    troubles: tuple[Trouble, ...] = ()


class Finding(NamedTuple):
    """That something is wrong with ``subject`` (a sensor, a card; "" for the board itself).

    ``severity`` where it is not the check's own.
    """

    sentence: str
    subject: str = ""
    severity: Severity | None = None


Look = Callable[[Facts, Collection[str]], Iterator[Finding]]
"""What is wrong, given the subjects of which it is known: where values flutter they clear later."""


class Check(NamedTuple):
    """One problem: how long it must last before it is told, and be gone before it is over."""

    code: str
    severity: Severity
    grace_s: float
    clear_s: float
    look: Look
    hint: str

    @property
    def meaning(self) -> str:
        """What the problem is, in a sentence."""
        return " ".join((self.look.__doc__ or "").split())
