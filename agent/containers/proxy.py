"""Published ports that move from one container to the next without a failed connection, by haproxy.

A port of a service with several replicas, or one that is updated start-first, is not published by
Podman but listened on by haproxy, which passes connections on to containers.  `agent.containers.reconcile`
says with `Proxy.apply` what each port leads to, the whole of it and as often as it likes; only what
differs is done:

- a container comes or goes: haproxy is told through its socket, and nothing is interrupted.  Who
  comes is let in before who goes is shut out.
- a container drains: it gets no new connections, and keeps those it has.
- a container is no longer named: connections that it still has are cut.  Those that came before the
  last reload haproxy cannot cut; they end with the container.
- a port comes or goes: the configuration is written and haproxy reloads, the listening sockets
  being handed on.
- the first port starts haproxy, the last one stops it; one that died is started again.

It runs apart from the agent (`agent.containers.haproxy`), and serves on while that is away.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.containers import ports
from agent.containers.haproxy import Crew, Haproxy
from agent.containers.routes import (
    Backend,
    Route,
    Server,
    Slot,
    Slots,
    Table,
    assign,
    changes,
    check,
    parse,
    render,
)
from agent.wire.errors import LinkDown, Refused

__all__ = ["Backend", "Proxy", "Route"]

Live = Mapping[str, list[Server]]
"""The slots of each section, as a worker has them."""


class Proxy:
    """The ports that go through haproxy.  One object for its folder; safe to be used by several tasks.

    ``died`` is called when haproxy ends without having been told to: whoever then applies again
    has it back.  Every call raises LinkDown when haproxy does not answer.
    """

    def __init__(
        self, folder: Path, *, died: Callable[[], None] = lambda: None, search: str | None = None
    ) -> None:
        """``folder`` is the proxy's own and outlives the agent.  Raises ConfigError."""
        self._haproxy = Haproxy(folder, died=died, search=search)
        self._lock = asyncio.Lock()
        self._table: dict[Route, Slots] | None = None  # None: not read yet

    def close(self) -> None:
        """Let go of haproxy, which goes on."""
        self._haproxy.close()

    async def apply(self, routes: Mapping[Route, Mapping[str, Backend]]) -> None:
        """Let each route lead to its backends, by the names of their containers, and to nothing else.

        Raises Refused: "port-taken", "denied" and "address" for a port that cannot be listened on,
        after everything else has been done; "haproxy-missing" and "proxy" when haproxy does not run.
        """
        check(routes)
        async with self._lock:
            crew = await self._haproxy.find()
            live = await self._haproxy.servers(crew.worker) if crew is not None else {}
            before = self._known()
            wanted = {route: assign(before.get(route, ()), backends) for route, backends in routes.items()}
            table, refusal = await self._possible(wanted, crew, live)
            if not table:
                await self._haproxy.stop(crew)
                self._table = {}
            elif crew is None:
                self._write(table)
                await self._haproxy.start()
            else:
                await self._change(crew, live, table)
        if refusal is not None:
            raise refusal

    async def sessions(self, route: Route, name: str) -> int:
        """How many connections a container has through this route."""
        async with self._lock:
            slots = self._known().get(route, ())
            backend = next((slot.backend for slot in slots if slot is not None and slot.name == name), None)
            crew = await self._haproxy.find()
            if backend is None or crew is None:
                return 0
            count = 0
            for worker in crew.workers:
                live = await self._ask_servers(crew, worker)
                rows = live.get(route.section, [])
                count += sum(row.sessions for row in rows if row.endpoint == backend.endpoint)
            return count

    def _known(self) -> dict[Route, Slots]:
        """Who is in which slot; of what an agent before us did, the configuration tells."""
        if self._table is None:
            self._table = parse(self._haproxy.read())
        return self._table

    def _write(self, table: Table) -> None:
        self._table = dict(table)
        self._haproxy.write(render(table, user=self._haproxy.user, ipv6=ports.has_ipv6()))

    async def _possible(
        self, wanted: Table, crew: Crew | None, live: Live
    ) -> tuple[dict[Route, Slots], Refused | None]:
        """The routes that can be listened on, and why the first of the others cannot."""
        table: dict[Route, Slots] = {}
        refusal = None
        # Who has a port keeps it.
        for route, slots in sorted(wanted.items(), key=lambda item: item[0] not in self._known()):
            error = next((_clash(route, other) for other in table if route.overlaps(other)), None)
            if error is None and route.section not in live:
                error = await self._why_not(route, crew)
            if error is None:
                table[route] = slots
            refusal = refusal or error
        return table, refusal

    async def _why_not(self, route: Route, crew: Crew | None) -> Refused | None:
        """Why a port cannot be listened on.  What haproxy itself has there is no reason."""
        if (error := await asyncio.to_thread(ports.refusal, route.host_ip, route.port)) is None:
            return None
        holder = await asyncio.to_thread(ports.holder, route.port)
        if holder is not None and not self._haproxy.owns(holder.pid):
            return error
        if crew is not None and holder is not None and holder.pid in (crew.master, *crew.workers):
            return None  # for a route that goes now: the next worker may listen beside this one
        if holder is not None:
            await self._haproxy.end(holder.pid, signal.SIGKILL)  # its master was killed
        return await asyncio.to_thread(ports.refusal, route.host_ip, route.port)

    async def _change(self, crew: Crew, live: Live, table: Table) -> None:
        """Bring a haproxy that runs to the table."""
        fits = {
            route: slots for route, slots in table.items() if len(live.get(route.section, ())) == len(slots)
        }
        # What can be done without a reload is, so that a reload that fails hinders nobody else.
        await self._switch(crew, live, fits)
        if len(fits) == len(table) == len(live):
            self._write(table)
        else:
            sections = {route.section for route in fits}
            kept = {
                route: slots
                for route, slots in self._known().items()
                if route.section in live and route.section not in sections
            }
            self._write(table)
            try:
                await self._haproxy.reload(crew)
            except Refused:
                self._write({**kept, **fits})
                raise

    async def _switch(self, crew: Crew, live: Live, table: Table) -> None:
        """Put the slots of the worker that listens as the table says."""
        said = [
            await self._haproxy.ask(crew.worker, command)
            for route, slots in table.items()
            for index in sorted(range(len(slots)), key=lambda index: _turn(slots[index]))
            for command in changes(f"{route.section}/s{index}", live[route.section][index], slots[index])
        ]
        if not said:
            return
        live = await self._haproxy.servers(crew.worker)
        for route, slots in table.items():
            for index, slot in enumerate(slots):
                if changes("", live[route.section][index], slot):
                    told = "; ".join(filter(None, said))[:256]
                    raise Refused(f"haproxy does not switch port {route.port}: {told}", code="proxy")

    async def _ask_servers(self, crew: Crew, worker: int) -> Live:
        """The servers of a worker; an old one may have ended meanwhile, with all its connections."""
        try:
            return await self._haproxy.servers(worker)
        except LinkDown:
            if worker == crew.worker:
                raise
            return {}


def _turn(slot: Slot | None) -> int:
    """Who is let in comes before who is shut out."""
    return 2 if slot is None else 1 if slot.backend.drain else 0


def _clash(route: Route, other: Route) -> Refused:
    return Refused(
        f"port {route.port} is taken by {other.service!r} of the app {other.app!r}",
        code="port-taken",
        hint=f"publish another port for {route.service!r} of {route.app!r}",
    )
