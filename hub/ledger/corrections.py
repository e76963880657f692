"""What is issued after a statement was: records that came late, times that became known, a price set right.

Owns how an issued statement is continued.  A line is never changed: one that does not hold any more is taken
back, whole and with its amounts negative, and what is right stands in lines of its own.  Pure; called by
`hub.ledger.books`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hub.ledger.billing import Reckoning
from hub.ledger.statement import Charge, Line, Reference, Statement, digest_of


def continued(
    reckoning: Reckoning, payer: str, issued: Sequence[Statement], issued_ms: int
) -> Statement | None:
    """The statement to issue for a payer after those that were, oldest first; None: they say it all.

    The first one is issued also when nothing was used.
    """
    wanted = reckoning.statement(payer).lines
    if not issued:
        return reckoning.compose(payer, wanted, number=1, issued_ms=issued_ms)
    held = holding(issued)
    right = set(wanted)
    known = set(held.values())
    lines = (
        *(_taken_back(line, reference) for reference, line in held.items() if line not in right),
        *(line for line in wanted if line not in known),
    )
    if not lines:
        return None
    for log in (log for statement in issued for log in statement.logs):
        reckoning.reach(log)  # what is taken back may be beyond what a hub holds that was restored
    previous = digest_of(issued[-1])
    return reckoning.compose(
        payer, lines, number=issued[-1].number + 1, previous=previous, issued_ms=issued_ms
    )


def holding(issued: Sequence[Statement]) -> dict[Reference, Line]:
    """The lines of some statements that no later one of them has taken back."""
    held: dict[Reference, Line] = {}
    for statement in issued:
        digest = digest_of(statement)
        for number, line in enumerate(statement.lines):
            if line.takes_back is None:
                held[Reference(digest, number)] = line
            else:
                held.pop(line.takes_back, None)
    return held


def _taken_back(line: Line, reference: Reference) -> Line:
    charges = tuple(_negative(charge) for charge in line.charges)
    return replace(line, charges=charges, takes_back=reference)


def _negative(charge: Charge) -> Charge:
    return replace(charge, quantity=str(-int(charge.quantity)), amount=-charge.amount)
