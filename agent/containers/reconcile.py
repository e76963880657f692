"""Bringing the apps of this board to what they are to be, and keeping them there.

One loop.  It wakes for a new order, for the death of a container, for a healthcheck that is due, for what
waits for a time, and each minute.  A turn:

1.  **Choose** the aim of each app (`agent.containers.aims`): what the order says, or what came up last.
2.  **Look** at what is there (`agent.containers.look`, `agent.containers.observer`).
3.  **Plan** (`agent.containers.plan`): pure, and the whole of the thinking.
4.  **Publish**: the proxy is told where traffic goes now (`agent.containers.publish`).
5.  **Do** the first step of each app's plan (`agent.containers.execution`), and go to 1 when it is done.

An app does one step at a time; apps do not wait for each other.  Nothing of a plan is kept: after a crash
or a power cut the next turn looks at what is there and goes on.  What has to outlive those is in
`agent.containers.memory`, and five things in it steer: that an update has begun (from then on neither a
window nor the policy stops it), that it was accepted, that it failed and why, which containers we
stopped ourselves, and which were switched to.

Failure is normal here.  An engine or a registry that does not answer is asked again, ever later.  What
the engine refuses while a revision is on trial is that revision's failure, and the next aim is the one
before.  Whatever went wrong is in the report, as a failure or as the step that is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from agent import cgroups, parents
from agent.clock import Clock
from agent.containers import look, publish, report
from agent.containers.aims import Aims
from agent.containers.engine import LABEL_APP, Container, Engine
from agent.containers.errand import Errand
from agent.containers.execution import Execution
from agent.containers.look import Look
from agent.containers.memory import Memory
from agent.containers.meters import Meters
from agent.containers.observer import Observer
from agent.containers.orders import Orders
from agent.containers.plan import plan
from agent.containers.steps import Await, GiveUp, Start, Step, Stop, StopAll, concerned
from agent.containers.worker import Proxy, Worker
from agent.runs import Account
from agent.wire.apps import Apps, AppState
from agent.wire.errors import ConfigError, LichenError, LinkDown, Refused
from agent.wire.order import App

log = logging.getLogger(__name__)

LOOK_MS = 60_000
LOW_MS, HIGH_MS = 1_000, 60_000
"""The first and the longest pause before an engine that did not answer is asked again."""
LIGHT = (Start, Stop, StopAll, Await)
"""Steps for which it is enough to know which containers there are."""


class Reconciler:
    """The apps of a board.  `run` it; ring `bell` when something may be different.

    ``fault`` is why the engine does not answer, None when it does.
    """

    def __init__(
        self,
        engine: Engine,
        orders: Orders,
        memory: Memory,
        clock: Clock,
        *,
        unseal: Callable[[str], bytes],
        policy_file: Path,
        make_proxy: Callable[[], Proxy] | None,
        leftover_proxy: bool = False,
        tell: Callable[[], None] = lambda: None,
        board: str = "",
        account: Account = lambda runs: None,
        make_meters: Callable[[Callable[[], int], Callable[[], None]], Meters] = Meters,
        begun: Callable[[int], int | None] = cgroups.begun,
    ) -> None:
        """``unseal`` opens a box that was sealed to this board.

        ``make_proxy`` makes what publishes ports, at the first need; None where there can be none.
        ``leftover_proxy``: one may run from before.  ``tell`` is called when `report` says something else.
        ``board`` is whose containers they are; ``account`` is told which there are.
        ``begun`` says when a process began.
        """
        self.bell = asyncio.Event()
        self._tell_others = tell
        self.fault: LinkDown | None = None
        self._engine, self._orders, self._memory, self._clock = engine, orders, memory, clock
        self._errands: dict[str, Errand] = {}
        self._meters = make_meters(clock.mono_ms, self.bell.set)
        self._observer = Observer(
            engine, memory, clock.mono_ms, proxy=make_proxy is not None, meters=self._meters, begun=begun
        )
        self._aims = Aims(self._errands, orders, memory, self._observer.endings, clock, policy_file)
        self._execution = Execution(
            self._errands,
            engine,
            memory,
            Worker(engine, memory, self._meters, unseal, lambda: self._aims.policy, self._draw_parent),
            self._observer,
            clock,
            ring=self.bell.set,
            lost=self._lost,
            progressed=tell,
        )
        self._make_proxy, self._is_leftover = make_proxy, leftover_proxy
        self._look: Look | None = None
        self._version = ""
        self._board, self._account = board, account
        self._is_reached = False  # whether containers are, from the board
        self._has_parents = False  # whether a cgroup can be made for each of them
        self._greeted: set[tuple[object, ...]] = set()
        self._losses = 0
        self._again_ms = 0
        self._nap: asyncio.Timeout | None = None
        self._since: dict[str, tuple[str, int]] = {}
        self._said: Apps | None = None
        self._figures_ms = 0

    async def run(self) -> None:
        """Reconcile until nothing is left of any app, or until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self._is_idle():
                    self.bell.clear()
                    await self._try_turn(group)
                    self._tell()
                    if not self._is_idle():
                        await self._rest()
        finally:
            self._meters.close()
            if self._execution.proxy is not None:
                self._execution.proxy.close()

    def _is_idle(self) -> bool:
        """Whether it was looked, and there is nothing that could ever need anything."""
        if self._look is None or self.fault is not None or self.bell.is_set():
            return False
        is_busy = self._execution.routes or self._execution.prune_wanted or self._is_leftover
        return not is_busy and all(_is_gone(errand) for errand in self._errands.values())

    def containers(self) -> list[Container]:
        """Those that are there, as of the last look."""
        return [] if self._look is None else list(self._look.containers)

    @property
    def policy_fault(self) -> ConfigError | None:
        """Why the board's policy file cannot be used; None when it can."""
        return self._aims.fault

    @property
    def has_looked(self) -> bool:
        """Whether it is known what is there; before that nothing can be said to be gone."""
        return self._look is not None

    async def _rest(self) -> None:
        """Wait for the bell, or for the time at which something is due."""
        if self._again_ms > self._clock.mono_ms():
            self.bell.clear()  # whatever rings, nobody would answer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._due_in_s()) as self._nap:
                await self.bell.wait()
        self._nap = None

    def _due_in_s(self) -> float:
        """How soon something is due."""
        now_ms = self._clock.mono_ms()
        if self._again_ms > now_ms:
            return (self._again_ms - now_ms) / 1000
        dues = [errand.due_ms(now_ms) for errand in self._errands.values()]
        dues += [self._observer.checks.next_ms(), self._meters.next_ms()]
        times = [due for due in dues if due is not None]
        # On the grid on which the other parts of the agent wake.
        return max(0, min([(now_ms // LOOK_MS + 1) * LOOK_MS, *times]) - now_ms) / 1000

    # --- a turn ----------------------------------------------------------------------------------

    async def _try_turn(self, group: asyncio.TaskGroup) -> None:
        try:
            await self._turn(group)
        except LinkDown as error:
            self._lost(error)
        except LichenError as error:  # what has to be remembered cannot be written
            log.warning("apps have to wait", extra={"error": str(error)})
            self._again_ms = self._clock.mono_ms() + HIGH_MS
            for errand in self._errands.values():
                errand.error = str(error)
        else:
            if self.fault is not None and self._again_ms <= self._clock.mono_ms():
                log.info("podman answers")
                self.fault, self._losses = None, 0

    def _lost(self, error: LinkDown) -> None:
        """The engine did not answer: nobody asks it anything for a while."""
        if self.fault is None or str(self.fault) != str(error):
            log.warning("podman is not reached", extra={"error": str(error)})
        self.fault, self._version, self._losses = error, "", self._losses + 1
        pause_ms = min(HIGH_MS, LOW_MS * 2 ** min(self._losses - 1, 20))
        self._again_ms = self._clock.mono_ms() + (HIGH_MS if error.code == "podman-missing" else pause_ms)

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        self._aims.read_policy()
        self._choose()
        if not self._version:
            info = await self._engine.info()
            self._version = info.version
            # The addresses of rootless containers lead nowhere from outside.
            self._is_reached = not info.rootless
            # A slice of systemd's would never go: it is not ours to stop.
            self._has_parents = not info.rootless and info.cgroup_manager == "cgroupfs"
            self._observer.proxy = self._make_proxy is not None and self._is_reached
        await self._see()
        await self._greet()
        await self._publish()
        assert self._look is not None
        policy = self._aims.policy
        for errand in list(self._errands.values()):
            await self._execution.advance(errand, group, self._others(errand), policy, self._look)
        for name in self._observer.checks.due():
            group.create_task(self._check(name), name=f"healthcheck of {name}")
        if self._execution.prune_wanted and all(errand.is_settled for errand in self._errands.values()):
            await self._execution.tidy()

    def _draw_parent(self) -> str:
        return parents.draw(self._board) if self._has_parents and self._board else ""

    async def _greet(self) -> None:
        """When containers have come or gone, those that stay must learn where the board is."""
        there: set[tuple[object, ...]] = {
            (each.id, each.phase, *each.networks.items()) for each in self.containers()
        }
        if self._is_reached and there != self._greeted:
            self._greeted = there
            running = [each for each in self.containers() if each.pid]
            await self._engine.greet(
                [address for each in running for address in each.networks.values() if address]
            )

    def _choose(self) -> None:
        self._aims.choose({each.labels.get(LABEL_APP, "") for each in self.containers()})
        self._since = {name: since for name, since in self._since.items() if name in self._errands}

    async def _see(self) -> None:
        """Look and plan; at everything when a plan needs to know more than which containers there are."""
        was_busy = any(not isinstance(step, LIGHT) for step in self._all_steps())
        if self._look is None or was_busy:
            await self._look_at_all()
            return
        busy = self._busy()
        self._look = await look.quick(self._engine, self._look)
        await self._plan_all(busy)
        if any(not isinstance(step, LIGHT) for step in self._all_steps()):
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        is_first = self._look is None
        aims = [errand.aim for errand in self._errands.values()]
        needs = look.references(app for aim in aims for app in (aim.app, aim.keep))
        busy = self._busy()
        self._look = await look.full(self._engine, needs)
        if is_first:
            self._choose()  # now that it is known of which apps something is there
        await self._plan_all(busy)

    def _busy(self) -> set[str]:
        """The containers that a step is about now."""
        return {name for errand in self._errands.values() for name in concerned(errand.doing)}

    async def _plan_all(self, busy: set[str]) -> None:
        assert self._look is not None
        aims = {name: errand.aim for name, errand in self._errands.items()}
        seen = await self._observer.see(self._look, aims, busy)
        order = self._orders.order
        self._account(self._meters.runs(self.containers(), order.generation if order is not None else 0))
        for name, errand in self._errands.items():
            errand.seen, errand.planned = seen[name], aims[name]
            try:
                errand.steps = plan(
                    errand.aim, errand.seen, proxy=self._observer.proxy, rosters=self._observer.rosters
                )
            except Refused as error:
                errand.steps = [GiveUp("planning", str(error), error.code, hint=error.hint)]

    def _all_steps(self) -> Iterator[Step]:
        for errand in self._errands.values():
            yield from errand.steps

    def _others(self, errand: Errand) -> list[App]:
        """The manifests of the other apps, as they are and as they are to be."""
        return [
            other.aim.app
            for name, other in self._errands.items()
            if name != errand.name and other.aim.mode not in ("remove", "clean", "stop", "rest")
        ]

    async def _check(self, name: str) -> None:
        if await self._observer.checks.check(name):
            self.bell.set()
        elif self._nap is not None and not self._nap.expired():
            # It began while nobody knew when this check is due again.
            self._nap.reschedule(asyncio.get_running_loop().time() + self._due_in_s())

    # --- traffic -----------------------------------------------------------------------------------

    async def _publish(self) -> None:
        """Let ports lead where they should now, before anything that led elsewhere is stopped."""
        if self._make_proxy is None or not self._observer.proxy:
            return
        errands = self._errands.values()
        wanted = publish.routes(
            ((errand.aim, errand.seen.containers) for errand in errands), self._observer.rosters
        )
        if not wanted and not self._execution.routes and not self._is_leftover:
            return
        try:
            if self._execution.proxy is None:
                self._execution.proxy = self._make_proxy()
            await self._execution.proxy.apply(wanted)
        except (Refused, LinkDown, ConfigError) as error:
            for errand in list(errands):
                if _concerns(error, errand, wanted) and not errand.is_resting(self._clock.mono_ms()):
                    await self._execution.refuse(errand, "publishing its ports", error)
        else:
            self._is_leftover = False
        self._execution.routes = wanted

    # --- the report --------------------------------------------------------------------------------

    def report(self) -> Apps:
        """What is to be said now."""
        self._meters.look()
        errands = sorted(self._errands.values(), key=lambda errand: errand.name)
        return replace(
            report.idle(self._orders),
            apps=tuple(self._describe(errand) for errand in errands if not _is_gone(errand))[:64],
            engine=self._version if self.fault is None else "",
        )

    def _describe(self, errand: Errand) -> AppState:
        wall_ms, mono_ms = self._clock.wall_ms(), self._clock.mono_ms()
        state = report.describe(
            errand, self._meters, proxy=self._observer.proxy, wall_ms=wall_ms, mono_ms=mono_ms
        )
        before, since_ms = self._since.get(errand.name, ("", 0))
        if before != state.state:
            since_ms = wall_ms
            self._since[errand.name] = state.state, since_ms
        return replace(state, since_ms=since_ms)

    def _tell(self) -> None:
        """Ring when there is something to say: figures alone are no news for a minute."""
        now = self.report()
        plain = report.without_figures(now)
        now_ms = self._clock.mono_ms()
        if plain != self._said or now_ms - self._figures_ms >= LOOK_MS:
            self._said, self._figures_ms = plain, now_ms
            self._tell_others()


def _is_gone(errand: Errand) -> bool:
    """An app that the order removes, and of which nothing is left, as was seen since it does."""
    is_empty = errand.is_settled and not errand.seen.containers and not errand.deferred
    return errand.aim.mode == "remove" and is_empty


def _concerns(error: LichenError, errand: Errand, routes: publish.Routes) -> bool:
    """Whether what the proxy refused is about an app: it names the port, unless it is about all of them."""
    ports = [str(route.port) for route in routes if route.app == errand.name]
    words = str(error).replace(":", " ").split()
    named = {str(route.port) for route in routes} & set(words)
    return bool(ports) and (not named or any(port in named for port in ports))
