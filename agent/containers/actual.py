"""What is there, as a planner sees it: the containers of an app, and what they need.

Values without behaviour of their own, made by `agent.containers.observer` from what Podman says and
from what the agent remembers, and read by `agent.containers.plan` and the report.  Times are of the
monotonic clock unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.containers.engine import Container
from agent.containers.names import (
    LABEL_BARE,
    LABEL_RESTARTED,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SLOT,
    LABEL_SPEC,
)

Health = Literal["", "starting", "healthy", "unhealthy"]
Standing = Literal["made", "switched", "left", "bare"]
"""How a container stands with the names of its service: as it was made; with them, since it was switched
to; on its way out, with none any more; without any, since it is started again after that."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One container.

    ``health`` is empty where there is no healthcheck.  ``up_ms``: how long it has been running.
    ``rested``: it does not run because the agent stopped it, or since before this boot; to start it is no
    restart.  ``ends``: how often it ended by itself, ``back_ms`` when it may be started again.
    ``begun``: when its process began, counted from the boot of the board: clocks that are set do not matter.
    """

    container: Container
    health: Health = ""
    health_output: str = ""
    up_ms: int = 0
    standing: Standing = "made"
    rested: bool = False
    ends: int = 0
    back_ms: int = 0
    begun: int | None = None

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def service(self) -> str:
        return self.container.labels.get(LABEL_SERVICE, "")

    @property
    def slot(self) -> int:
        return _number(self.container.labels.get(LABEL_SLOT))

    @property
    def spec(self) -> str:
        return self.container.labels.get(LABEL_SPEC, "")

    @property
    def revision(self) -> int:
        return _number(self.container.labels.get(LABEL_REVISION))

    @property
    def restarted(self) -> int:
        return _number(self.container.labels.get(LABEL_RESTARTED))

    @property
    def is_broken(self) -> bool:
        """Half made or half removed: only removing it helps."""
        return self.container.phase in ("broken", "removing")

    @property
    def runs(self) -> bool:
        return self.container.phase in ("running", "paused")

    @property
    def serves(self) -> bool:
        """Whether others reach it under the name of its service."""
        is_named = self.standing == "made" and not self.container.labels.get(LABEL_BARE)
        return self.runs and (is_named or self.standing == "switched")

    @property
    def leaves(self) -> bool:
        """Whether it serves those who are connected to it, and nobody finds it any more."""
        return self.runs and self.standing == "left"

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.container.phase == "exited" and not self.rested


@dataclass(frozen=True, slots=True)
class Seen:
    """One app on this board, and what of the board matters to it.

    ``images``: whether those that are there are whole, by reference.  ``networks``, ``volumes`` and
    ``secrets``: names with their labels; ``used`` are the networks of other apps.  ``ending``: containers of
    other apps which Podman still takes off a network of this one.
    """

    now_ms: int
    containers: tuple[Sight, ...] = ()
    images: Mapping[str, Literal["whole", "broken"]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    ending: tuple[str, ...] = ()


def _number(text: str | None) -> int:
    """A label that somebody may have written by hand."""
    return int(text) if text is not None and text.isdecimal() else 0
