"""An app on a board as pages show it: words for states, figures and containers.  Pure.

Owns how `hub.apps.view` reads on a screen; the pages of apps and the page of a board use it.  What a
board said is only text here: templates escape it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from agent.wire import words
from agent.wire.apps import ContainerState, Failure, Progress
from hub.apps.view import ORDER, AppOnBoard, AppPicture, State, what_is_left

LOOKS: dict[State, str] = {
    "running": "fine",
    "stopped": "off",
    "gone": "off",
    "sent": "busy",
    "waiting": "busy",
    "updating": "busy",
    "removing": "busy",
    "degraded": "attention",
    "failed": "broken",
    "refused": "broken",
}
"""How a state looks: its icon and its colour (static/apps.css)."""

DONE = {
    "deploy": "deployed",
    "rollback": "rolled back",
    "scale": "scaled",
    "restart": "restarted",
    "stop": "stopped",
    "start": "started",
    "undeploy": "removed",
    "cancel": "cancelled the change",
}
"""Actions of a history in words."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container in words.  ``look`` as in LOOKS."""

    service: str
    name: str
    look: str
    state: str
    restarts: int
    cpu: str
    memory: str
    started_ms: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """An app on a board.  ``title`` and ``link`` name the other one of the two, whosever page it is.

    ``is_away``: the board is offline, so all of it is as it was last told.  ``left`` is what there is of it
    after its ``failure``.  ``share`` and ``amount`` say how
    far a step is; ``share`` is None while nobody knows.
    """

    key: str
    title: str
    link: str
    logs: str
    app: str
    at: AppOnBoard
    version: str
    look: str
    sentence: str
    is_away: bool
    failure: Failure | None
    left: str
    notes: tuple[str, ...]
    containers: tuple[Container, ...]
    summary: str
    is_moving: bool
    share: int | None
    amount: str


def place_of(at: AppOnBoard, *, app: str, title: str, link: str, version: str = "") -> Place:
    """An app on a board, in words."""
    said = at.reported
    failure = said.failure if said else None
    told_twice = failure is not None and at.state == "failed" and failure.revision == at.revision
    containers = tuple(container_of(each) for each in said.containers) if said else ()
    share, amount = progress_of(said.progress if said else None)
    return Place(
        key=f"{app}-{at.board}",
        title=title,
        link=link,
        logs=logs_link(app, at.name),
        app=app,
        at=at,
        version=version,
        look=LOOKS[at.state],
        sentence="" if told_twice or at.sentence == at.state else at.sentence,
        is_away=at.presence == "offline",
        failure=failure,
        left=what_is_left(failure.revision, at.running, said) if failure else "",
        notes=said.notes if said else (),
        containers=containers,
        summary=summary_of(containers),
        is_moving=at.state in ("updating", "removing"),
        share=share,
        amount=amount,
    )


def container_of(said: ContainerState) -> Container:
    """A container in words.

    >>> container_of(ContainerState("web", "demo_web.0", "ended", exit_code=137, oom=True)).state
    'ended: out of memory'
    """
    look, state = _condition(said)
    return Container(
        service=said.service,
        name=said.name,
        look=look,
        state=state,
        restarts=said.restarts,
        cpu=words.value(None if said.cpu_milli is None else said.cpu_milli / 10, "%"),
        memory=words.value(said.memory_bytes, "By"),
        started_ms=said.started_ms if said.state == "running" else None,
    )


def _condition(said: ContainerState) -> tuple[str, str]:
    if said.state == "running":
        looks = {"unhealthy": "attention", "starting": "busy"}
        return looks.get(said.health, "fine"), said.health or "running"
    if said.state == "ended":
        if said.oom:
            return "attention", "ended: out of memory"
        if said.exit_code == 0:
            return "off", "done"
        return "attention", f"ended with exit code {said.exit_code}" if said.exit_code else "ended"
    return "off", said.state


def summary_of(containers: Sequence[Container]) -> str:
    """Containers in a few words.

    >>> up = container_of(ContainerState("web", "a", "running", health="healthy"))
    >>> summary_of([up, up]), summary_of([up, container_of(ContainerState("db", "b", "stopped"))])
    ('2 containers, all healthy', '2 containers: 1 healthy, 1 stopped')
    """
    counts = Counter(each.state for each in containers)
    total = f"{len(containers)} container" + ("" if len(containers) == 1 else "s")
    if len(counts) == 1:
        [state] = counts
        return f"{total}, {'all ' if len(containers) > 1 else ''}{state}"
    return f"{total}: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def progress_of(progress: Progress | None) -> tuple[int | None, str]:
    """How far a step is, in percent if that is known, and in words.

    >>> progress_of(Progress(43, 100, "layers")), words.plain(progress_of(Progress(5_000_000, 0, "By"))[1])
    ((43, '43 of 100 layers'), '5.00 MB')
    """
    if progress is None or not progress.unit:
        return None, ""
    done, total = progress.done, progress.total
    unit = "By" if progress.unit == "By" else ""
    text = words.value(done, unit) + (f" of {words.value(total, unit)}" if total else "")
    share = min(100, done * 100 // total) if total else None
    return share, text if unit else f"{text} {progress.unit}"


def summed(picture: AppPicture) -> str:
    """The states of an app over its boards: "running on 3 of 3 boards"."""
    there = [place for place in picture.boards if place.state != "gone"]
    if not there:
        return "on no board"
    if len(there) == 1:
        return f"{picture.state} on {there[0].name}"
    counts = Counter(place.state for place in there)
    first, *others = sorted(counts, key=ORDER.index)
    more = "".join(f", {state} on {counts[state]}" for state in others)
    return f"{first} on {counts[first]} of {len(there)} boards{more}"


def away(picture: AppPicture) -> str:
    """Whose state is only as it was last told, in a sentence; empty when every board is there."""
    names = [place.name for place in picture.boards if place.presence == "offline" and not place.is_pending]
    if not names:
        return ""
    return f"{boards_in_words(names)} {'is' if len(names) == 1 else 'are'} offline: as last told"


def logs_link(app: str, board: str, **more: str) -> str:
    """The address of the logs of an app on a board."""
    pairs = [("board", board), *((key, value) for key, value in more.items() if value)]
    return f"/apps/{app}/logs?{urlencode(pairs)}"


def boards_in_words(names: Sequence[str]) -> str:
    """Boards on a button.

    >>> boards_in_words(["pump"]), boards_in_words(["a", "b", "c"])
    ('pump', '3 boards')
    """
    return names[0] if len(names) == 1 else f"{len(names)} boards"
