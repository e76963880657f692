"""Why a revision of an app did not come up on a board, in words: for who waits for it and who looks later.

Pure.  A place is an app on a board as the API shows it (`AppOnBoard`); what a board says goes through
`words.plain`, so that nothing in it gives orders to a terminal.
"""

from __future__ import annotations

from typing import Any

from agent.wire import words

Place = dict[str, Any]


def failure_of(place: Place, revision: int) -> dict[str, Any] | None:
    """What the board says of why a revision failed there; None when it says nothing of that one."""
    reported = place.get("reported") or {}
    failure: dict[str, Any] | None = reported.get("failure")
    return failure if failure and failure["revision"] == revision else None


def what_failed(place: Place) -> str:
    """One clause: where it failed, why, and what there is of it now."""
    if place["state"] == "refused":
        stays = f"; revision {place['running']} stays as it is" if place["running"] else ""
        return words.plain(f"was refused by {place['name']}: {place['sentence']}{stays}")
    return words.plain(f"failed on {place['name']}: {place['sentence']}")


def evidence(place: Place, revision: int) -> list[str]:
    """The step that failed and the last lines of the container; none when the board told nothing of it."""
    failure = failure_of(place, revision)
    if failure is None:
        return []
    log = failure["log"].splitlines()
    exit_code = failure.get("exit_code")
    codes = [failure["code"], "" if exit_code is None else f"exit code {exit_code}"]
    said = ", ".join(filter(None, codes))
    lines = [f"{place['name']}: it failed at: {failure['step']}" + (f" ({said})" if said else "")]
    if log:
        lines += [f"The last lines of {failure['service'] or 'its log'}:", *(f"  | {line}" for line in log)]
    return [words.plain(line) for line in lines]
