"""When a board counts as silent: by the interval that it has itself announced.  Pure.

One rule for the pages (`hub.web.state`) and for the problem "board-silent" (`hub.fleet.alerts`).
Times in milliseconds by the hub's clock.

>>> silent_at_ms(heard_ms=1000, joined_ms=0, every_ms=60_000)
186000
>>> silent_at_ms(heard_ms=None, joined_ms=0, every_ms=60_000)
180000
"""

from __future__ import annotations

MISSED = 3
"""Reports that may be missed before a board counts as silent."""
GRACE_MS = 5_000
"""What a report may take longer on top: the way, and a commit."""
FIRST_MS = 180_000
"""How long a board that has just joined may take until it is first heard."""


def silent_at_ms(heard_ms: int | None, joined_ms: int, every_ms: int) -> int:
    """The last moment at which a board that says nothing more is not silent yet."""
    return joined_ms + FIRST_MS if heard_ms is None else heard_ms + MISSED * every_ms + GRACE_MS
