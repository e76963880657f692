"""How long each problem lasts after the last sign of it, and what is said of some.

Tables for `hub.fleet.alerts`, which raises and clears; a problem that is not in them ends when it is told to.
"""

from __future__ import annotations

DAY_S = 86_400.0

QUIET_S = {
    "limits-exceeded": 300.0,
    "messages-refused": 900.0,
    "readings-gap": DAY_S,
    "identity-twice": 3_600.0,
    "hub-behind": 60.0,
    "usage-conflict": 7 * DAY_S,
    "usage-hole": DAY_S,
    "usage-epoch": DAY_S,
    "usage-limit": 3_600.0,
    "usage-late": 1_500.0,
}
"""How long after the last sign of it a problem is over.  Others end when they are told to."""

LOGGED = {"identity-twice", "hub-disk-low", "usage-conflict", "usage-hole", "usage-epoch", "usage-limit"}
"""What nobody else writes to the journal; a fleet that falls silent at once is no news for it."""

LOST_HINTS = {
    "outbox-full": "[outbox] max_bytes in its agent.toml gives it more room for the next outage",
    "lost": "its state was deleted or set back, or this hub was restored from a backup",
}
