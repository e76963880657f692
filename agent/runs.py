"""The containers that are there, as those who deal with apps tell whoever counts what they use.

`agent.containers.reconcile` calls the `Account` after each look; `agent.usage.usage` is one.  This is where
the two meet, and neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.cgroups import Counters


@dataclass(frozen=True, slots=True)
class Run:
    """A container, and what it was started as last.

    ``state``: "waiting" while its process is there and has not been told to begin.  ``parent`` is the name of
    the cgroup that was made for it (`agent.parents`), "" for none; ``order`` the generation in force.
    ``counters`` are None where nobody opened them before it ended; ``begun_ms`` says when its process began
    (monotonic), ``is_fresh`` that they were open before it did anything.  ``started_ms`` and ``finished_ms``
    are Podman's, by the wall clock.
    """

    id: str
    name: str
    app: str
    service: str
    image: str
    state: Literal["waiting", "alive", "dead"]
    parent: str = ""
    order: int = 0
    exit_code: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    counters: Counters | None = field(default=None, compare=False)
    begun_ms: int | None = None
    is_fresh: bool = False


Account = Callable[[Sequence[Run]], None]
"""Told of all containers that are there.  It must neither wait nor raise."""
