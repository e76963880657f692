"""What a board says of its apps, and how one looks into them.

``up/apps`` (retained) is `Apps`: which order the board has, whether it takes it, and where each app is
between what it should be and what it is.  A command "logs" (`LogsWanted`) is answered with the
lines on ``up/stream/<id of the command>``, as `LogLines` until one says ``end``, and then by its reply.

>>> Apps(generation=4, apps=(AppState("demo", revision=2, running=2, state="running"),)).apps[0].failure
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.wire.decode import Length, Range
from agent.wire.messages import Count, Millis, Text
from agent.wire.order import AppName, Noun

Sentence = Annotated[str, Length(0, 1024)]
Tail = Annotated[str, Length(0, 8192)]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is: ``done`` of ``total`` in ``unit``; a total of 0 is not known.

    ``unit`` is "By" where Podman tells bytes, "layers" where it tells only those.
    """

    done: Count = 0
    total: Count = 0
    unit: Literal["By", "layers", ""] = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a revision of an app did not come up.  ``step`` is the one that failed, ``log`` the last lines
    of the container, ``rolled_back_to`` the revision that is gone back to, 0 when none is: it runs once the
    app is not "updating" any more."""

    revision: Count
    at_ms: Millis
    step: Text
    reason: Sentence
    hint: Sentence = ""
    code: Text = ""
    service: Text = ""
    exit_code: int | None = None
    log: Tail = ""
    rolled_back_to: Count = 0


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container now.  ``image`` is pinned, as in the order.  ``cpu_milli`` and ``memory_bytes`` are
    None where nobody counts them."""

    service: Noun
    name: Text
    state: Literal["made", "running", "stopped", "ended", "removing"]
    image: Annotated[str, Length(0, 512)] = ""
    revision: Count = 0
    health: Literal["", "starting", "healthy", "unhealthy"] = ""
    started_ms: Millis | None = None
    exit_code: int | None = None
    oom: bool = False
    restarts: Count = 0
    next_restart_ms: Millis | None = None
    cpu_milli: Count | None = None
    memory_bytes: Count | None = None


@dataclass(frozen=True, slots=True)
class AppState:
    """An app: which ``revision`` is wanted, which one ``running`` (0: none, or stopped), and what happens.

    ``waiting``: something must hold first, and ``step`` says what (an update window, a lock file, memory).
    ``step`` is what is being done, in words; ``notes`` are what the operator should know of how it
    was done ("stop-first, because it has a volume").
    """

    name: AppName
    revision: Count
    running: Count
    state: Literal["waiting", "updating", "running", "degraded", "failed", "stopped", "removing"]
    since_ms: Millis = 0
    step: Sentence = ""
    progress: Progress | None = None
    failure: Failure | None = None
    notes: Annotated[tuple[Sentence, ...], Length(0, 16)] = ()
    containers: Annotated[tuple[ContainerState, ...], Length(0, 256)] = ()


@dataclass(frozen=True, slots=True)
class Apps:
    """``up/apps``.  ``generation`` is that of the order in force, 0 before there is one; ``refused`` is a
    newer one that this board does not take, and ``reason`` says why.  ``engine`` is Podman's version,
    empty when it does not answer."""

    generation: Count
    apps: Annotated[tuple[AppState, ...], Length(0, 64)] = ()
    refused: Count = 0
    reason: Sentence = ""
    hint: Sentence = ""
    engine: Text = ""


# --- logs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogsWanted:
    """The arguments of the command "logs".  ``service`` empty: of all; ``follow_s``: how long to go on."""

    app: AppName
    service: Annotated[str, Length(0, 128)] = ""
    tail: Annotated[int, Range(0, 10_000)] = 100
    since_ms: Millis | None = None
    follow_s: Annotated[int, Range(0, 600)] = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of one container."""

    container: Text
    at_ms: Millis | None
    stream: Literal["stdout", "stderr"]
    text: Annotated[str, Length(0, 16384)]


@dataclass(frozen=True, slots=True)
class LogLines:
    """``up/stream/<id>``: the next lines; ``seq`` counts from 1, ``dropped`` lines were too many to send."""

    seq: Count
    lines: Annotated[tuple[LogLine, ...], Length(0, 1000)] = field(default=())
    end: bool = False
    dropped: Count = 0
