"""What a board's state is, in one word and one sentence: the age of what is known comes first.

Owns the judgement "fine", "attention" or "silent", for pages, API and metrics alike;
`static/state.js` is its twin that keeps a page honest while it stays open, and
tests/vectors/state.json holds the two against each other.  Pure: the time is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.wire import words
from hub.fleet.silence import GRACE_MS, silent_at_ms

State = Literal["fine", "attention", "silent"]
STATES: tuple[State, ...] = ("fine", "attention", "silent")

STALE_AFTER = 2
"""A value older than this many of its intervals is shown with its age, faded."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a board's contact with its hub; times in ms by the hub's clock.

    ``problem`` is the sentence of its worst problem that asks for somebody, or empty.
    """

    heard_ms: int | None
    joined_ms: int
    presence: str
    every_ms: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A board's state and the sentence that says why."""

    state: State
    sentence: str


def state_of(seen: Seen, now_ms: int) -> State:
    """A board's state at ``now_ms``, for counting many."""
    is_late = now_ms > silent_at_ms(seen.heard_ms, seen.joined_ms, seen.every_ms)
    if seen.heard_ms is None:
        return "silent" if is_late else "fine"
    if seen.presence != "online" or is_late:
        return "silent"
    return "attention" if seen.problem else "fine"


def judge(seen: Seen, now_ms: int) -> Judgement:
    """A board's state at ``now_ms``, with its sentence."""
    state = state_of(seen, now_ms)
    if seen.heard_ms is None:
        return Judgement(state, f"Joined {words.age(now_ms - seen.joined_ms)}, not heard yet")
    every = words.every(seen.every_ms)
    if state == "silent":
        last = "Offline, last" if seen.presence != "online" else "Last"
        return Judgement(state, f"{last} heard {words.age(now_ms - seen.heard_ms)}, expected every {every}")
    return Judgement(state, seen.problem or f"Reports every {every}")


def is_stale(at_ms: int, interval_ms: int, now_ms: int) -> bool:
    """Whether a value of ``at_ms`` is too old to be shown without its age."""
    return now_ms - at_ms > STALE_AFTER * interval_ms + GRACE_MS


def worst(problems: Sequence[tuple[str, str]]) -> str:
    """The sentence that asks for somebody, of (severity, sentence) pairs; a notice asks nobody."""
    for severity in ("fail", "warn"):
        for each, sentence in problems:
            if each == severity:
                return sentence
    return ""
