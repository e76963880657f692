"""What to do next for an app: from what is there to what is aimed at, as typed steps.

Pure: `plan` looks at an `Aim` and at what is `Seen`, and says which steps come next.  The reconciler
does the first one, looks again, and asks again; so it does not matter who did what, and a power cut
between two steps is no special case.  Nothing that lacks our label is ever in what is seen.

How an update goes, from revision 1 to 2 of an app with a database and a web service:

1.  **Supplies.**  Pull what is missing; make networks, volumes and secrets.  Revision 1 runs on.
2.  **Services, in the order in which they depend on each other**, each as `agent.containers.services`
    says: a container whose digest is still right is left alone.  Stop-first: the old one stops, the new
    one starts.  Start-first: the new one starts without a name, must come up, is switched to (aliases
    and published ports), and only then the old one gives up its names, is drained and stopped.
    Where a network of the app's own is to be another one, all of it stops first, and is made anew.
3.  **The gate.**  Each new container must become healthy, or stay up for a while where it has no
    healthcheck.  While one is awaited, nothing else waits for it that need not.
4.  **Accept**, once everything serves and nothing old runs: revision 2 is good.  The reconciler
    commits that, the aim is "steady", and what revision 1 left is removed.

Or **GiveUp**: a new container ended three times, is unhealthy, or time is up.  The reconciler commits
the failure, and from then on the aim is revision 1, whose containers are still there, stopped: the same
rules start them again and remove those of revision 2.
"""

from __future__ import annotations

from agent.containers.actual import Seen, Sight
from agent.containers.aim import Aim
from agent.containers.engine import LABEL_APP
from agent.containers.names import LABEL_SHARED, secret_names
from agent.containers.roster import Rosters
from agent.containers.scene import Scene, in_order, waves
from agent.containers.services import failing, tend
from agent.containers.steps import (
    Accept,
    Await,
    CreateNetwork,
    CreateSecret,
    CreateVolume,
    Pull,
    Remove,
    RemoveImage,
    RemoveNetwork,
    RemoveSecret,
    RemoveVolume,
    Step,
)
from agent.wire.order import Config, Secret, Service

ENDING_MS = 100
"""How soon to look again whether a container that has ended is out of the way."""


def plan(aim: Aim, seen: Seen, *, proxy: bool, rosters: Rosters | None = None) -> list[Step]:
    """The next steps, those that can be told from here; none when the aim is reached.

    ``proxy``: whether the board can publish ports through a proxy.  ``rosters``: what is known already of
    how containers are called.  The last step may be to wait.
    Raises Refused for a manifest that contradicts itself.
    """
    if aim.mode == "rest":
        return []
    scene = Scene(aim, seen, proxy, rosters or Rosters())
    if broken := [Remove(sight.name) for sight in seen.containers if sight.is_broken]:
        return list(broken)
    if aim.mode == "stop":
        return _stops(scene, [sight for sight in seen.containers if sight.runs])
    if aim.mode in ("remove", "clean"):
        return _clear(scene)
    return _run(scene)


def _run(scene: Scene) -> list[Step]:
    """Bring every service up, and let go of what is not needed."""
    if scene.aim.mode == "update" and (failure := failing(scene)) is not None:
        return [failure]
    if supplies := _supplies(scene):
        return supplies
    if remade := _remade(scene):
        return remade
    ending = [sight.name for sight in scene.seen.containers if sight.container.phase == "ending"]
    if ending := [*ending, *scene.seen.ending]:
        # What Podman still takes down would take what is set up meanwhile with it.
        return [Await(f"waiting for the end of {ending[0]}", scene.seen.now_ms + ENDING_MS)]
    actions: list[Step] = []
    waits: list[Step] = []
    for service in in_order(scene.app):
        for step in tend(scene, service):
            if isinstance(step, Await):
                waits.append(_not_beyond(step, scene.aim.deadline_ms))
            else:
                actions.append(step)
    if actions or waits:
        return actions or waits
    if stops := _stops(scene, scene.olds()):
        return stops
    if scene.aim.mode in ("update", "persist") and not scene.unfinished():
        return [Accept(scene.app.revision)]
    return [] if scene.aim.mode in ("update", "persist") else _tidy(scene)


def _not_beyond(wait: Await, deadline_ms: int | None) -> Await:
    """At the deadline it is looked at again."""
    times = [at_ms for at_ms in (wait.until_ms, deadline_ms) if at_ms is not None]
    return Await(wait.reason, min(times, default=None))


# --- what containers need ------------------------------------------------------------------------


def _supplies(scene: Scene) -> list[Step]:
    """What is missing for the containers that are missing."""
    services = [service for service in scene.app.services if scene.lacks(service)]
    if not services:
        return []
    app, seen = scene.app, scene.seen
    steps: list[Step] = []
    for service in {service.image: service for service in services}.values():
        state = seen.images.get(service.image)
        if state == "broken":
            steps.append(RemoveImage(service.image))
        if state != "whole":
            steps.append(Pull(service.image, service.name))
    joined = {each.network for service in services for each in service.networks}
    steps += [CreateNetwork(each) for each in app.networks if each.name in joined - seen.networks.keys()]
    mounted = {mount.source for service in services for mount in service.mounts if mount.kind == "volume"}
    steps += [
        CreateVolume(each)
        for each in app.volumes
        if each.name in mounted - seen.volumes.keys() and not each.external
    ]
    return steps + _secrets(scene, services)


def _secrets(scene: Scene, services: list[Service]) -> list[Step]:
    names = secret_names(scene.app)
    used = {given.source for each in services for given in (*each.secrets, *each.configs)}
    sources: list[Secret | Config] = [*scene.app.secrets, *scene.app.configs]
    return [
        CreateSecret(names[source.name], source)
        for source in sources
        if source.name in used and names[source.name] not in scene.seen.secrets
    ]


def _remade(scene: Scene) -> list[Step]:
    """Let go of networks whose definition has changed, with all that may be on them: nothing else is known
    to work for a network in use.  What is pulled and kept is there for what is made anew."""
    stale = [network.name for network in scene.stale_networks()]
    if not stale:
        return []
    if stops := _stops(scene, [sight for sight in scene.seen.containers if sight.runs]):
        return stops
    sights = _last_first(scene, list(scene.seen.containers))
    return [*(Remove(sight.name) for sight in sights), *(RemoveNetwork(name) for name in stale)]


# --- what is not needed ------------------------------------------------------------------------


def _stops(scene: Scene, sights: list[Sight]) -> list[Step]:
    """Stop them, whoever depends on others first, and at the same time those that do not."""
    known = scene.aim.keep or scene.app
    return [step for wave in waves(known, sights) for step in scene.stops(wave)]


def _last_first(scene: Scene, sights: list[Sight]) -> list[Sight]:
    known = scene.aim.keep or scene.app
    order = [service.name for service in in_order(known)]
    place = {name: number for number, name in enumerate(order)}
    return sorted(sights, key=lambda sight: (-place.get(sight.service, len(order)), sight.name))


def _tidy(scene: Scene) -> list[Step]:
    """Remove what neither the aim nor what it could go back to needs."""
    manifests = [app for app in (scene.app, scene.aim.keep) if app is not None]
    idle = [sight for sight in scene.seen.containers if sight.name not in scene.kept]
    steps: list[Step] = [Remove(sight.name) for sight in _last_first(scene, idle)]
    secrets = {name for app in manifests for name in secret_names(app).values()}
    return steps + _needless(scene, secrets, {each.name for app in manifests for each in app.networks})


def _needless(scene: Scene, secrets: set[str], networks: set[str]) -> list[Step]:
    """Secrets and networks of ours but for those named."""
    name, seen = scene.app.name, scene.seen
    steps: list[Step] = [RemoveSecret(each) for each in sorted(seen.secrets) if each not in secrets]
    for each, labels in sorted(seen.networks.items()):
        # One that several share belongs to nobody, and goes with the last of them.
        is_ours = LABEL_SHARED in labels or labels.get(LABEL_APP) == name
        if is_ours and each not in networks and each not in seen.used:
            steps.append(RemoveNetwork(each))
    return steps


def _clear(scene: Scene) -> list[Step]:
    """Everything goes; volumes only when somebody asked for that."""
    sights = _last_first(scene, list(scene.seen.containers))
    if stops := _stops(scene, [sight for sight in sights if sight.runs]):
        return stops
    steps: list[Step] = [Remove(sight.name) for sight in sights]
    steps += _needless(scene, set(), set())
    if scene.app.purge:
        ours = (
            each for each, labels in scene.seen.volumes.items() if labels.get(LABEL_APP) == scene.app.name
        )
        steps += [RemoveVolume(each) for each in sorted(ours)]
    return steps
