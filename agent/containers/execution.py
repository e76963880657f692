"""Doing what a plan says: one step of an app at a time, each in a task of its own.

Called by `agent.containers.reconcile` in each turn.  What a step ends in, good or bad, is written down
here: that an update begins, that it was accepted, that it failed and why, that it is to be tried again.
Nothing is swallowed: an error becomes the failure of a revision that is on trial, or the words of the
step that is tried again.  A step belongs to the aim for which it was begun: when that has changed
meanwhile, what it ended in says nothing of the new one, and is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from agent.clock import Clock
from agent.containers import preflight
from agent.containers.aim import REMOVAL, Aim, Kept, Past
from agent.containers.engine import Engine
from agent.containers.errand import Errand
from agent.containers.look import Look, facts, references
from agent.containers.memory import Memory
from agent.containers.names import find_service
from agent.containers.observer import UNKNOWN, Observer
from agent.containers.policy import Policy
from agent.containers.publish import Routes
from agent.containers.steps import (
    Accept,
    Await,
    GiveUp,
    Pull,
    Remove,
    RemoveNetwork,
    RemoveSecret,
    RemoveVolume,
    Step,
    Stop,
)
from agent.containers.worker import Job, Proxy, Worker
from agent.wire.apps import Failure, Progress
from agent.wire.errors import LichenError, LinkDown, Refused
from agent.wire.order import App

log = logging.getLogger(__name__)

STALE = ("broken", "exists", "in-use", "not-found", "not-running")
"""What the engine says when something is not as it was seen: look again."""
MOST_STALE = 8
T = TypeVar("T")
DISK = ("disk-full", "disk-read-only")
"""What the own disk says, which is no fault of a revision."""
TAIL_LINES, TAIL_CHARACTERS = 30, 8000
WAIT_MS = 60_000
"""How often to look whether the board has what it lacked."""


class Execution:
    """The steps that are being done.  ``ring`` is called when one has ended."""

    def __init__(
        self,
        errands: Mapping[str, Errand],
        engine: Engine,
        memory: Memory,
        worker: Worker,
        sighting: Observer,
        clock: Clock,
        *,
        ring: Callable[[], None],
        lost: Callable[[LinkDown], None],
        progressed: Callable[[], None],
    ) -> None:
        """``lost`` is told when the engine does not answer, ``progressed`` that a pull is further."""
        self._errands = errands
        self._engine, self._memory, self._worker, self._observer = engine, memory, worker, sighting
        self._clock, self._ring, self._lost, self._progressed = clock, ring, lost, progressed
        self._pulling = asyncio.Lock()  # a line is shared, and so is the disk
        self.prune_wanted = True
        self.proxy: Proxy | None = None
        self.routes: Routes = {}

    async def advance(
        self, errand: Errand, group: asyncio.TaskGroup, others: list[App], policy: Policy, look: Look
    ) -> None:
        """Begin the next step of an app, if it is time for it."""
        step = errand.next_step
        if errand.task is not None:
            if isinstance(errand.doing, Pull) and not _is_wanted(errand, errand.doing):
                errand.task.cancel()
            return
        if errand.is_resting(self._clock.mono_ms()):
            return
        if await self._must_prepare(errand):
            self._begin(
                errand,
                group,
                Await("looking whether it can run here"),
                self._prepare(errand, errand.aim, others, policy, look),
            )
        elif isinstance(step, GiveUp):
            self._begin(errand, group, step, self._give_up(errand, errand.aim, step))
        elif isinstance(step, Accept):
            await self._memory.accept(errand.aim.app)
            errand.did_well()
            self.prune_wanted = True
            log.info("app accepted", extra={"app": errand.name, "revision": step.revision})
            self._ring()
        elif step is None:
            await self._finish(errand)
        elif not isinstance(step, Await):
            self._begin(errand, group, step, self._do(errand, errand.aim, step, others, policy, look))

    def _begin(
        self, errand: Errand, group: asyncio.TaskGroup, step: Step, work: Coroutine[Any, Any, None]
    ) -> None:
        errand.doing, errand.progress = step, None
        attending = self._attend(errand, errand.aim, step, work)
        errand.task = group.create_task(attending, name=f"{errand.name}: {step.words}")

    async def _attend(self, errand: Errand, aim: Aim, step: Step, work: Coroutine[Any, Any, None]) -> None:
        """Do a step, and write down what it ended in.  No error of ours leaves: it would end the agent."""
        try:
            try:
                await work
            except LinkDown as error:
                self._unanswered(errand, aim, error)
            except LichenError as error:
                await self._refused(errand, aim, step, error)
        except LinkDown as error:
            self._unanswered(errand, aim, error)
        except LichenError as error:  # nor can it be written down, or room be made
            log.warning("app has to wait", extra={"app": errand.name, "error": str(error)})
            if errand.is_for(aim):
                errand.try_later(str(error), self._clock.mono_ms(), unwritten=True)
        finally:
            errand.doing = errand.task = errand.progress = None
            self._ring()

    def _unanswered(self, errand: Errand, aim: Aim, error: LinkDown) -> None:
        """The engine does not answer, or a registry."""
        if error.code.startswith("podman"):
            self._lost(error)
        elif errand.is_for(aim):
            errand.try_later(str(error), self._clock.mono_ms())

    # --- how an update begins and ends -----------------------------------------------------------

    async def _must_prepare(self, errand: Errand) -> bool:
        """Whether an update has yet to be looked at before it begins; one that has begun has its time."""
        aim, past, now_ms = errand.aim, errand.past, self._clock.mono_ms()
        if aim.mode == "remove" and past.good is not None and past.begun != REMOVAL and errand.steps:
            await self._memory.begin(errand.name, REMOVAL, now_ms)
        if aim.mode != "update":
            return False
        if past.begun == aim.app.revision and past.begun_ms is None:
            await self._memory.begin(errand.name, aim.app.revision, now_ms)  # another boot: its time anew
        return past.begun != aim.app.revision

    async def _prepare(self, errand: Errand, aim: Aim, others: list[App], policy: Policy, look: Look) -> None:
        """Whether the app can run here.  Raises Refused, LinkDown."""
        app, good = aim.app, errand.past.good

        async def verdict() -> str:
            found = await facts(self._engine, look, others, self.routes)
            return preflight.examine(app, good, policy, found)

        waits = await self._with_room(errand, aim, verdict)
        if not errand.is_for(aim):
            return
        errand.waits = waits
        if waits:
            errand.again_ms = self._clock.mono_ms() + WAIT_MS
            return
        errand.did_well()
        await self._memory.begin(app.name, app.revision, self._clock.mono_ms())
        log.info("app update begins", extra={"app": app.name, "revision": app.revision})

    async def _check_room(
        self, errand: Errand, aim: Aim, others: list[App], policy: Policy, look: Look
    ) -> None:
        """Whether what was pulled may stay: only now its size is known.  Raises Refused, LinkDown."""

        async def verdict() -> None:
            found = await facts(self._engine, look, others, self.routes)
            preflight.check_disk(aim.app, errand.past.good, policy, found, pulled=True)

        await self._with_room(errand, aim, verdict)

    async def _with_room(self, errand: Errand, aim: Aim, verdict: Callable[[], Awaitable[T]]) -> T:
        """A verdict; where there is too little space it is asked again once there is more."""
        try:
            return await verdict()
        except Refused as error:
            if error.code != "no-space" or errand.pruned:
                raise
        await self._make_room(errand, aim)
        return await verdict()

    async def _finish(self, errand: Errand) -> None:
        """Nothing is left to do; of an app that goes nothing is left at all."""
        if errand.aim.mode == "remove" and not errand.deferred and errand.past != Past():
            await self._memory.forget(errand.name)
            self.prune_wanted = True
            log.info("app is gone", extra={"app": errand.name})
            self._ring()

    # --- doing -----------------------------------------------------------------------------------

    async def _do(
        self, errand: Errand, aim: Aim, step: Step, others: list[App], policy: Policy, look: Look
    ) -> None:
        def told(progress: Progress) -> None:
            errand.progress = progress
            self._progressed()

        ids = {sight.name: sight.container.id for sight in errand.seen.containers}
        job = Job(aim.app, step, ids, self.routes, self._observer.proxy)
        async with self._pulling if isinstance(step, Pull) else contextlib.nullcontext():
            await self._worker.do(job, proxy=self.proxy, told=told)
        if not errand.is_for(aim):
            return
        if isinstance(step, Pull) and aim.mode == "update":
            await self._check_room(errand, aim, others, policy, look)
            # The time to come up begins when the images are there: a slow line is no fault.
            await self._memory.begin(errand.name, aim.app.revision, self._clock.mono_ms())
        if isinstance(step, Stop) and step.unwell:
            service = find_service(aim.app, step.service)
            rules = UNKNOWN if service is None else service.restart
            up_ms = self._observer.checks.up_ms(step.name)
            self._observer.endings.cured(step.name, self._clock.mono_ms(), up_ms=up_ms, policy=rules)
        errand.did_well()

    async def _refused(self, errand: Errand, aim: Aim, step: Step, error: LichenError) -> None:
        """A step was not done."""
        now_ms = self._clock.mono_ms()
        if not errand.is_for(aim):
            log.info("app is to be another one", extra={"app": errand.name, "error": str(error)})
            return
        if error.code in STALE and errand.tries < MOST_STALE:
            errand.try_later(str(error), now_ms)
            if isinstance(step, Remove | RemoveNetwork | RemoveSecret | RemoveVolume):
                errand.stuck.append(step)  # somebody uses it: first what else there is to remove
                errand.again_ms = now_ms if errand.next_step is not None else errand.again_ms
            return
        if error.code == "no-space" and not errand.pruned:
            errand.try_later(str(error), now_ms)
            await self._make_room(errand, aim)
            return
        if aim.mode == "update" and error.code not in DISK:
            name = getattr(step, "name", "")
            verdict = GiveUp(step.words, str(error), error.code, _service(step), name, error.hint)
            await self._fail(errand, aim, verdict)
            return
        log.warning("app has to wait", extra={"app": errand.name, "step": step.words, "error": str(error)})
        errand.try_later(str(error), now_ms, unwritten=error.code in DISK)

    async def _make_room(self, errand: Errand, aim: Aim) -> None:
        """Prune, once for an aim.  Raises LinkDown."""
        await self.prune()
        if errand.is_for(aim):
            errand.pruned = True

    # --- failures --------------------------------------------------------------------------------

    async def refuse(self, errand: Errand, step: str, error: LichenError) -> None:
        """Something that an app needs was refused outside of its steps."""
        if errand.aim.mode == "update" and errand.past.begun != errand.aim.app.revision:
            return  # it is about what is there, and not about what is to come
        await self._refused(errand, errand.aim, Await(step), error)

    async def _give_up(self, errand: Errand, aim: Aim, step: GiveUp) -> None:
        if aim.mode == "update":
            await self._fail(errand, aim, step)
        else:
            errand.try_later(step.reason, self._clock.mono_ms())

    async def _fail(self, errand: Errand, aim: Aim, step: GiveUp) -> None:
        """Write down why the revision is not good, before the first step back."""
        sight = next((each for each in errand.seen.containers if each.name == step.name), None)
        good = errand.past.good
        kept = _kept(aim, step.service)
        failure = Failure(
            revision=aim.app.revision,
            at_ms=self._clock.wall_ms(),
            step=step.step[:256],
            reason=step.reason[:1024],
            hint=step.hint[:1024],
            code=step.code[:256],
            service=step.service,
            exit_code=None if sight is None else sight.container.exit_code,
            log="" if sight is None else await self._tail(sight.container.id),
            rolled_back_to=good.revision if good is not None and not kept else 0,
        )
        await self._memory.fail(errand.name, failure, kept)
        self.prune_wanted = True
        errand.did_well()
        said = {"app": errand.name, "revision": failure.revision, "reason": failure.reason}
        log.warning("app failed", extra=said)
        self._ring()

    async def _tail(self, id: str) -> str:
        """The last lines of a container; nothing where they cannot be had, for the reason matters more."""
        try:
            lines = await self._engine.logs(id, tail=TAIL_LINES)
        except (LinkDown, Refused) as error:
            return f"(its log cannot be read: {error})"
        return "\n".join(line.text for line in lines)[-TAIL_CHARACTERS:]

    # --- images ----------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Prune, as it was wanted; it is wanted still where that could not be done.  Raises LinkDown."""
        self.prune_wanted = False
        try:
            await self.prune()
        except LichenError:
            self.prune_wanted = True
            raise

    async def prune(self) -> None:
        """Remove the images that were pulled for apps, but for those of what runs, of what comes, and of
        what one could go back to.  Raises LinkDown."""
        needed = references(
            app
            for errand in self._errands.values()
            if errand.aim.mode not in ("clean", "remove")
            for app in (errand.aim.app, errand.aim.keep)
        )
        for reference in sorted(self._memory.images - needed):
            try:
                image = await self._engine.find_image(reference)
                if image is not None and reference in image.names:
                    # By its name: it may have others, which are for somebody else.
                    await self._engine.remove_image(reference)
            except Refused as error:  # somebody else uses it
                log.info("image stays", extra={"image": reference, "reason": str(error)})
                continue
            await self._memory.pruned(reference)


def _is_wanted(errand: Errand, step: Pull) -> bool:
    return step.reference in references([errand.aim.app])


def _service(step: Step) -> str:
    return str(getattr(step, "service", ""))


def _kept(aim: Aim, service: str) -> Kept:
    """What the service that failed says of failures; those of nobody in particular are gone back from."""
    found = find_service(aim.app, service)
    policy = "rollback" if found is None else found.update.on_failure
    return "" if policy == "rollback" else policy
