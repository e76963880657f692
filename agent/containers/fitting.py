"""A report of apps that the hub takes: what is over the limits of the wire is left out, and it is said.

Called by `agent.containers.apps` with each report that is to be sent.  A message over the limits of
`agent.wire.envelope` is refused as a whole, and then the hub would know nothing of any app.  What is told
last goes first: tails of logs, then containers (of the apps that have most), then notes.

>>> fit(Apps(1)) == Apps(1)
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.wire.apps import Apps, AppState
from agent.wire.envelope import MAX_INFLATED, MAX_PAYLOAD, pack
from agent.wire.plain import dumps

MAX_NOTES = 16
LOG_NOTE = (
    "the log of the failure is left out here, since the report would be too large: `lichen app logs` has it"
)


def fit(apps: Apps) -> Apps:
    """The report, or as much of it as the hub takes."""
    if _fits(apps):
        return apps
    for less in _ever_less(apps):
        if _fits(less):
            return less
    return replace(apps, apps=())


def _fits(apps: Apps) -> bool:
    payload = dumps(apps)
    if len(payload) <= MAX_PAYLOAD // 2:
        return True  # whatever packing makes of it
    return len(payload) <= MAX_INFLATED and len(pack(payload)[0]) <= MAX_PAYLOAD


def _ever_less(apps: Apps) -> Iterator[Apps]:
    apps = _each(apps, _without_log)
    yield apps
    most = max((len(app.containers) for app in apps.apps), default=0)
    while most:
        most //= 2
        apps = _each(apps, lambda app: _with_containers(app, most))  # noqa: B023 - called at once
        yield apps
    apps = _each(apps, lambda app: replace(app, notes=app.notes[:1]))
    yield apps


def _each(apps: Apps, change: Callable[[AppState], AppState]) -> Apps:
    return replace(apps, apps=tuple(change(app) for app in apps.apps))


def _without_log(app: AppState) -> AppState:
    if app.failure is None or not app.failure.log:
        return app
    return _noted(replace(app, failure=replace(app.failure, log="")), LOG_NOTE)


def _with_containers(app: AppState, most: int) -> AppState:
    """Those first that are not as they should be."""
    if len(app.containers) <= most:
        return app
    told = sorted(app.containers, key=lambda each: each.state == "running" and each.health != "unhealthy")
    word = "containers are" if most != 1 else "container is"
    note = f"only {most} {word} told of here, since the report would be too large"
    # One note on it, that of the last attempt.
    notes = tuple(each for each in app.notes if not (each.startswith("only ") and each.endswith("too large")))
    kept = tuple(sorted(told[:most], key=lambda each: each.name))
    return _noted(replace(app, containers=kept, notes=notes), note)


def _noted(app: AppState, note: str) -> AppState:
    return replace(app, notes=(note, *app.notes)[:MAX_NOTES])
