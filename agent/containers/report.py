"""What the board says of its apps: ``up/apps``, composed from what the reconciler knows.

Pure, but for asking the meters for figures.  `agent.containers.reconcile` decides when it is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from agent.containers.actual import Sight
from agent.containers.endings import LOOP
from agent.containers.errand import Errand
from agent.containers.meters import Meters
from agent.containers.orders import Orders
from agent.containers.scene import notes
from agent.containers.steps import Await
from agent.wire.apps import Apps, AppState, ContainerState, Failure
from agent.wire.errors import LichenError
from agent.wire.order import App

State = Literal["waiting", "updating", "running", "degraded", "failed", "stopped", "removing"]
MAX_SENTENCE = 1024
MAX_CONTAINERS = 256


def describe(errand: Errand, meters: Meters, *, proxy: bool, wall_ms: int, mono_ms: int) -> AppState:
    """One app.  ``since_ms`` is left to whoever knows what was said before."""
    past, aim, ordered = errand.past, errand.aim, errand.ordered
    revision = ordered.revision if ordered is not None else past.good.revision if past.good else 0
    begun_ms = wall_ms - mono_ms
    is_stopped = aim.mode == "stop" and errand.is_settled
    return AppState(
        errand.name,
        revision,
        0 if past.good is None or aim.mode == "remove" or is_stopped else past.good.revision,
        state_of(errand),
        step=_step(errand)[:MAX_SENTENCE],
        progress=errand.progress,
        failure=errand.refusal or _failure(errand, ordered),
        notes=tuple(note[:MAX_SENTENCE] for note in notes(aim.app, errand.seen, proxy=proxy))[:16],
        containers=tuple(
            _container(sight, meters, begun_ms, mono_ms)
            for sight in sorted(errand.seen.containers, key=lambda sight: sight.name)
        )[:MAX_CONTAINERS],
    )


def _failure(errand: Errand, ordered: App | None) -> Failure | None:
    """Why a revision did not come up, until a higher one does or the app goes."""
    failure = errand.past.failure
    return failure if ordered is not None and failure is not None else None


def state_of(errand: Errand) -> State:
    """Where an app is between what it should be and what it is."""
    settled = errand.is_settled
    match errand.aim.mode:
        case "remove":
            return "removing"
        case "clean":
            return "failed"
        case "rest":
            return "failed" if errand.past.kept else "waiting"
        case "wait":
            return "waiting"
        case "stop":
            return "stopped" if settled else "updating"
        case "update":
            return "waiting" if errand.waits else "updating"
        case "back":
            if settled:
                return _well(errand)
            return "degraded" if _only_waits(errand) and _is_ill(errand) else "updating"
        case "steady" | "persist":
            return _well(errand)


def _well(errand: Errand) -> State:
    """Whether everything that is wanted runs and is not ill."""
    app = errand.aim.app
    wanted = {service.name: service for service in app.services if service.replicas}
    for service in wanted.values():
        sights = [sight for sight in errand.seen.containers if sight.service == service.name]
        fine = [sight for sight in sights if _is_fine(sight)]
        if len(fine) < service.replicas:
            return "degraded"
    return "running"


def _is_fine(sight: Sight) -> bool:
    """A container that runs and is not ill, or one that has done what it was for."""
    if sight.runs:
        return sight.health != "unhealthy"
    return sight.ended and sight.container.exit_code == 0


def _is_ill(errand: Errand) -> bool:
    """Whether what it goes back to has ended, or is unhealthy: it may never be ready."""
    failure = errand.past.failure
    return any(
        sight.ended or sight.health == "unhealthy"
        for sight in errand.seen.containers
        if failure is None or sight.revision != failure.revision
    )


def _only_waits(errand: Errand) -> bool:
    return errand.task is None and all(isinstance(step, Await) for step in errand.steps)


def _step(errand: Errand) -> str:
    """What is done now, or waited for, or went wrong last."""
    if errand.doing is not None:
        return errand.doing.words
    if errand.error:
        return f"trying again: {errand.error}"
    if waits := errand.hold or errand.waits:
        return waits
    if errand.deferred and not errand.steps:
        return "waits for a clock that is right before volumes are removed"
    step = errand.next_step
    words = "" if step is None else step.words
    if errand.aim.mode == "back" and words:
        return f"going back to revision {errand.aim.app.revision}: {words}"
    return words


def _container(sight: Sight, meters: Meters, begun_ms: int, mono_ms: int) -> ContainerState:
    container = sight.container
    cpu_milli, memory_bytes = meters.figures(sight.name) if sight.runs else (None, None)
    state: Literal["made", "running", "stopped", "ended", "removing"]
    if sight.runs:
        state = "running"
    elif sight.is_broken:
        state = "removing"
    elif container.phase == "created":
        state = "made"
    else:
        state = "stopped" if sight.rested else "ended"
    waits = state == "ended" and sight.back_ms > mono_ms
    return ContainerState(
        sight.service or "unknown",
        sight.name[:256],
        state,
        container.image,
        sight.revision,
        sight.health if sight.runs else "",
        container.started_ms,
        None if sight.runs else container.exit_code,
        container.oom,
        sight.ends,
        sight.back_ms + begun_ms if waits else None,
        cpu_milli,
        memory_bytes,
    )


def idle(orders: Orders) -> Apps:
    """Where there are no apps: the order that says so, or why there is none."""
    order, refusal = orders.order, orders.refusal
    return Apps(
        0 if order is None else order.generation,
        refused=0 if refusal is None else refusal.generation,
        reason="" if refusal is None else refusal.reason[:MAX_SENTENCE],
        hint="" if refusal is None else refusal.hint[:MAX_SENTENCE],
    )


def broken(fault: LichenError) -> Apps:
    """Where apps cannot be kept at all."""
    return Apps(0, reason=str(fault)[:MAX_SENTENCE], hint=fault.hint[:MAX_SENTENCE])


def without_figures(apps: Apps) -> Apps:
    """A report without what changes all the time."""
    return replace(
        apps,
        apps=tuple(
            replace(
                app,
                containers=tuple(replace(each, cpu_milli=None, memory_bytes=None) for each in app.containers),
            )
            for app in apps.apps
        ),
    )


def troubles(
    apps: Apps | None, fault: LichenError | None, policy_fault: LichenError | None = None
) -> list[tuple[str, str, str]]:
    """What a person should know: the code of a problem, the app it is about, and a sentence."""
    found = []
    if policy_fault is not None:
        found.append(("policy-broken", "", f"The board's policy cannot be used: {_end(str(policy_fault))}"))
    if fault is not None:
        code = fault.code if fault.code in ("podman-missing", "podman-down") else "apps-unkept"
        found.append((code, "", f"Apps are not looked after: {_end(str(fault))}"))
    if apps is None:
        return found
    if apps.reason and fault is None:
        generation = f" of generation {apps.refused}" if apps.refused else ""
        found.append(("order-refused", "", f"An order{generation} is not taken: {_end(apps.reason)}"))
    for app in apps.apps:
        if app.failure is not None:
            back = _back(app, app.failure.rolled_back_to)
            reason = f"Revision {app.failure.revision} of {app.name} failed: {app.failure.reason.rstrip('.')}"
            found.append(("app-failed", app.name, f"{reason}{back}."))
        looping = [each for each in app.containers if each.restarts >= LOOP]
        if looping:
            worst = max(looping, key=lambda each: each.restarts)
            sentence = f"{worst.service} of {app.name} has ended {worst.restarts} times in a row."
            found.append(("app-crash-loop", app.name, sentence))
    return found


def _back(app: AppState, revision: int) -> str:
    """What became of going back; it is told before the first step of that."""
    if not revision:
        return ""
    match app.state:
        case "running":
            return f"; revision {revision} runs"
        case "degraded":
            return f"; revision {revision} is back, and not all of it runs"
    return f"; it goes back to revision {revision}"


def _end(text: str) -> str:
    """A sentence with one full stop."""
    return f"{text.rstrip('.')}."
