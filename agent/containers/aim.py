"""What an app is to be now: the order's manifest, the one before it, or nothing.

Pure.  An order says what is wanted; what is aimed at may be something else: a revision that has
failed is not tried again, so the aim is the last good one; an update may have to wait, so the aim is
still the one before.  Going back is therefore no special case anywhere: it is planning with another
aim.

>>> one, two = App("demo", 1), App("demo", 2)
>>> choose("demo", two, Past(good=one)).mode
'update'
>>> failed = Past(good=one, failure=Failure(2, 0, "waiting", "web ended with 1"))
>>> choose("demo", two, failed).mode, choose("demo", two, failed).app.revision
('back', 1)
>>> choose("demo", None, failed).mode
'remove'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.wire.apps import Failure
from agent.wire.order import App

Mode = Literal["steady", "update", "persist", "back", "wait", "stop", "remove", "clean", "rest"]
"""steady: as accepted. update: on the way to a new revision, which may fail. persist: a new one that has
failed, and is kept all the same. back: to the last good one, since a newer one failed. wait: as accepted,
a newer one waits. stop: everything stays, nothing runs. remove: it goes. clean: what a first revision
that failed has left goes, but for volumes. rest: nothing is done."""


Kept = Literal["", "continue", "pause"]
REMOVAL = -1
"""The revision, as it were, of an app that goes."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of an app.

    ``good`` is the manifest that came up last.  ``begun`` is the revision whose update has begun, at
    ``begun_ms`` of the monotonic clock (None in a boot before this one).  ``failure`` is why a
    revision did not come up; ``kept``: it was not gone back from.
    """

    good: App | None = None
    failure: Failure | None = None
    kept: Kept = ""
    begun: int = 0
    begun_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be reached.  Containers of ``keep`` stay, stopped, so that one can go back to them.

    ``deadline_ms``: when an update must have come up; ``error``: what went wrong last on the way.
    """

    mode: Mode
    app: App
    keep: App | None = None
    deadline_ms: int | None = None
    error: str = ""

    @property
    def key(self) -> tuple[str, int, bool]:
        """What makes it another aim: what was planned, done or went wrong for one says nothing of another."""
        return self.mode, self.app.revision, self.app.purge


def choose(name: str, ordered: App | None, past: Past, *, hold: str = "", error: str = "") -> Aim:
    """The aim of an app.  ``hold``: why an update may not begin now.  An app that has begun goes on."""
    good, failure = past.good, past.failure
    gone = App(name, 1 if good is None else good.revision)
    if ordered is None or ordered.purge:
        if hold and good is not None and past.begun != REMOVAL:
            return Aim("wait", good, good)
        return Aim("remove", gone if ordered is None else ordered, good)
    if good is not None and good.revision == ordered.revision:
        return Aim("steady", ordered, ordered)
    if failure is not None and failure.revision == ordered.revision:
        if past.kept:
            return Aim("persist" if past.kept == "continue" else "rest", ordered, good)
        # Of the failed manifest only the order of its services is of use, and how long they may take.
        return Aim("clean", gone, ordered) if good is None else Aim("back", good, good)
    if hold and past.begun != ordered.revision:
        return Aim("rest", ordered) if good is None else Aim("wait", good, good)
    if ordered.stopped:
        return Aim("stop", ordered, good)  # never accepted: what one goes back to is something that ran
    began_ms = past.begun_ms if past.begun == ordered.revision else None
    deadline_ms = None if began_ms is None else began_ms + ordered.timeout_ms
    return Aim("update", ordered, good, deadline_ms, error)
