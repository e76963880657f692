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


def what_failed(place: Place, revision: int) -> str:
    """One clause: where it failed, why, and what runs there now."""
    failure = failure_of(place, revision)
    if place["state"] == "refused":
        runs = f"; revision {place['running']} still runs" if place["running"] else ""
        return words.plain(f"was refused by {place['name']}: {place['sentence']}{runs}")
    if failure is None:
        return words.plain(f"failed on {place['name']}: {place['sentence']}")
    exit_code = failure.get("exit_code")
    is_said = exit_code is None or f" {exit_code}" in failure["reason"]
    code = "" if is_said else f" (exit code {exit_code})"
    back = failure["rolled_back_to"]
    now = f"rolled back to revision {back}, which still runs" if back else "nothing of it runs"
    return words.plain(f"failed on {place['name']}: {failure['reason']}{code}; {now}")


def evidence(place: Place, revision: int) -> list[str]:
    """The step that failed and the last lines of the container; none when the board told nothing of it."""
    failure = failure_of(place, revision)
    if failure is None:
        return []
    log = failure["log"].splitlines()
    code = f" ({failure['code']})" if failure["code"] else ""
    lines = [f"{place['name']}: it failed at: {failure['step']}{code}"]
    if log:
        lines += [f"The last lines of {failure['service'] or 'its log'}:", *(f"  | {line}" for line in log)]
    return [words.plain(line) for line in lines]
