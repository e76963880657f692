"""One service of an app: its containers made, started, waited for, switched to, and replaced.

Pure; `agent.containers.plan` asks it for each service, in the order in which they depend on each
other.  Slots are replaced one after the other while anything old serves, and all at once otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.containers.actual import Sight
from agent.containers.names import shared_with
from agent.containers.scene import MOST_ENDS, Scene, in_order, why_stop_first
from agent.containers.steps import Await, Create, GiveUp, Start, Step, Switch
from agent.wire.order import Service


def tend(scene: Scene, service: Service) -> list[Step]:
    """The next steps of one service; none when every slot serves and nothing old is in its place."""
    olds = [old for old in scene.olds() if old.service == service.name]
    steps: list[Step] = []
    for slot in range(service.replicas):
        part = _tend_slot(scene, service, slot, olds)
        steps += part
        if part and olds:
            break  # what is old serves on: one at a time
    return steps


def _tend_slot(scene: Scene, service: Service, slot: int, olds: list[Sight]) -> list[Step]:
    sight = scene.current(service, slot)
    if sight is None or not sight.runs:
        return list(_begin(scene, service, slot, sight))
    if _lost_its_namespace(scene, service, sight):
        return [scene.stop(sight), Start(sight.name, service.name)]
    if sight.health == "unhealthy" and scene.aim.mode != "update":
        return _cure(scene, service, sight)
    if not scene.is_ready(service, sight):
        return [_gate(scene, service, sight)]
    if not sight.serves:
        return [Switch(sight.name, service.name)]
    return list(scene.stops([old for old in olds if old.slot == slot]))


def _begin(scene: Scene, service: Service, slot: int, sight: Sight | None) -> Iterator[Step]:
    """Make and start a container, when it is time for that and nothing stands in its way."""
    if sight is not None and sight.ended and not scene.may_restart(service, sight):
        return
    if unmet := scene.unmet(service):
        yield Await(unmet)
        return
    if sight is not None and sight.back_ms > scene.seen.now_ms:
        yield Await(f"starting {service.name} again", sight.back_ms)
        return
    away = _in_the_way(scene, service, slot)
    yield from scene.stops(away)
    name = scene.name(service, slot)
    if sight is None:
        yield Create(name, service.name, slot, bare=_is_served(scene, service, away))
    yield Start(name, service.name)


def _is_served(scene: Scene, service: Service, away: list[Sight]) -> bool:
    """Whether others serve so well that a new one must not get in between before it is ready."""
    olds = scene.olds()
    return any(
        each.service == service.name
        and each.serves
        and each not in away
        and (each in olds or scene.is_ready(service, each))
        for each in scene.seen.containers
    )


def _in_the_way(scene: Scene, service: Service, slot: int) -> list[Sight]:
    """What must stop before a container of the slot can start."""
    side_by_side = service.update.order == "start-first" and not why_stop_first(service, proxy=scene.proxy)
    found = []
    for old in scene.olds():
        takes_its_place = old.service == service.name and old.slot == slot and not side_by_side
        if takes_its_place or scene.collides(service, old):
            found.append(old)
    return found


def _lost_its_namespace(scene: Scene, service: Service, sight: Sight) -> bool:
    """Whether the container whose namespace it joined has started again since."""
    for name in shared_with(service):
        leader = next((each for each in scene.app.services if each.name == name), None)
        other = None if leader is None else scene.current(leader, 0)
        theirs = None if other is None or not other.runs else other.begun
        if theirs is not None and sight.begun is not None and theirs > sight.begun:
            return True
    return False


def _cure(scene: Scene, service: Service, sight: Sight) -> list[Step]:
    """An unhealthy one is started again, ever later, if it is one that is."""
    if service.restart.condition == "none":
        return []
    return [scene.stop(sight, unwell=True)]


def _gate(scene: Scene, service: Service, sight: Sight) -> Await:
    if sight.health:
        return Await(f"waiting for {service.name} to become healthy")
    left_ms = service.update.monitor_ms - sight.up_ms
    return Await(
        f"waiting whether {service.name} stays up for {service.update.monitor_ms / 1000:g} s",
        scene.seen.now_ms + left_ms,
    )


# --- the gate that does not open -----------------------------------------------------------------


def failing(scene: Scene) -> GiveUp | None:
    """Why the revision that is on trial is not good, if that can be told already."""
    late = scene.aim.deadline_ms is not None and scene.seen.now_ms >= scene.aim.deadline_ms
    awaited: tuple[Service, Sight | None] | None = None
    for service in in_order(scene.app):
        if service.update.on_failure == "continue":
            continue
        for sight in scene.all_current(service):
            if sight is not None and (failure := _fault(scene, service, sight)) is not None:
                return failure
            if awaited is None and (sight is None or not scene.is_ready(service, sight)):
                awaited = service, sight
    return _too_late(scene, awaited) if late and awaited is not None else None


def _fault(scene: Scene, service: Service, sight: Sight) -> GiveUp | None:
    if sight.runs and sight.health == "unhealthy":
        output = f": {sight.health_output}" if sight.health_output else ""
        return GiveUp(
            f"waiting for {service.name} to become healthy",
            f"{service.name} is not healthy{output}",
            "unhealthy",
            service.name,
            sight.name,
            "its healthcheck is run inside of the container: `lichen app logs` shows what it says",
        )
    if not sight.ended or scene.is_done(service, sight):
        return None
    if scene.may_restart(service, sight) and sight.ends < MOST_ENDS:
        return None
    times = f", {sight.ends} times" if sight.ends > 1 else ""
    if sight.container.oom:
        reason, hint = f"{service.name} took more memory than it may{times}", "raise its memory limit"
    else:
        reason, hint = f"{service.name} ended with {sight.container.exit_code}{times}", "see its log"
    code = "out-of-memory" if sight.container.oom else "exited"
    return GiveUp(f"starting {service.name}", reason, code, service.name, sight.name, hint)


def _too_late(scene: Scene, awaited: tuple[Service, Sight | None]) -> GiveUp:
    service, sight = awaited
    limit = f"{scene.app.timeout_ms / 1000:g} s"
    told = f": {scene.aim.error}" if scene.aim.error else ""
    if sight is None:
        unmet = scene.unmet(service)
        reason = (
            f"{unmet}, and not within {limit}" if unmet else f"{service.name} was not made within {limit}"
        )
        return GiveUp(f"making {service.name}", reason + told, "timeout", service.name)
    output = told or (f": {sight.health_output}" if sight.health_output else "")
    return GiveUp(
        f"waiting for {service.name}",
        f"{service.name} did not come up within {limit}{output}",
        "timeout",
        service.name,
        sight.name,
        "a longer timeout helps only if it is slow",
    )
