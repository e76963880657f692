"""The order of this board: verified before a word of it counts, and kept for the time without a hub.

Called by `agent.containers.apps` with what comes on ``down/order``.  An order is taken when it is signed
by the hub's order key, is for this board, has every image pinned (by its type), does not contradict
itself, and has a higher generation than any order of this hub that was ever taken.  Then it is on the
disk before anybody acts on it.  Anything else is refused with a reason, and changes nothing.

The highest generation is remembered for each hub: a board that joins another one begins anew there,
and keeps running what it runs until that one orders something.  When it comes back, the last order of
the earlier hub comes in force again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agent.base.sqlite import Connection, Database
from agent.wire import note
from agent.wire.errors import Corrupt, Refused
from agent.wire.messages import read_text
from agent.wire.order import App, Order


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was not taken.  ``generation`` is 0 where it could not be read; ``sha256`` is of what the
    hub has signed, "" where it has not."""

    generation: int
    reason: str
    hint: str = ""
    sha256: str = ""


class Orders:
    """The order in force, if there is one, and the newest refusal.  Made by `Orders.load`."""

    def __init__(self, database: Database, board: str) -> None:
        self.order: Order | None = None
        self.refusal: Refusal | None = None
        self._database = database
        self._board = board
        self._hub = ""  # whose order is in force
        self._kept: dict[str, tuple[int, str]] = {}  # generation and note of each hub

    @classmethod
    async def load(cls, database: Database, board: str) -> Orders:
        """Read what is kept.  Raises Corrupt."""
        orders = cls(database, board)

        def read(connection: Connection) -> list[tuple[str, int, str, int]]:
            return connection.execute("SELECT hub, generation, note, in_force FROM orders").fetchall()

        for hub, generation, text, in_force in await database.run(read):
            orders._kept[hub] = generation, text
            if in_force:
                orders.order, orders._hub = _kept(text), hub
        return orders

    async def take(self, text: str, key: note.Verifier, hub: str) -> bool:
        """Take an order if it is a newer one; whether it was.  The one that is in force is no news.

        Raises Corrupt for a signature that is not the hub's, Refused for anything else that is
        wrong; ``refusal`` says the same to the hub.
        """
        generation, digest = 0, ""
        try:
            signed = note.open_note(text, key)
            digest = _sha256(signed)
            order = read_text("order", Order, signed)
            generation = order.generation
            is_new = self._check(order, text, hub)
        except (Refused, Corrupt) as error:
            self.refusal = Refusal(generation, str(error), error.hint, digest)
            raise
        if is_new:
            await self._keep(order, text, hub)
        self.refusal = None
        return is_new

    @property
    def sha256(self) -> str:
        """Of the order in force, as the hub has signed it; "" while there is none."""
        return _sha256(_signed(self._kept[self._hub][1])) if self.order is not None else ""

    def _check(self, order: Order, text: str, hub: str) -> bool:
        if order.board != self._board:
            raise Refused(f"the order is for board {order.board[:64]!r}", code="board")
        highest, kept = self._kept.get(hub, (0, ""))
        if order.generation == highest:
            if _signed(text) != _signed(kept):  # it may have been signed again, with another key
                raise Refused(
                    f"there are two orders of generation {highest}, and the first one counts",
                    code="generation",
                    hint="a hub that was restored from a backup issues a higher one",
                )
            return hub != self._hub  # that of another hub was in force meanwhile
        if order.generation < highest:
            raise Refused(
                f"the order of generation {order.generation} is older than {highest}, which this board had",
                code="generation",
                hint="a hub that was restored from a backup issues a higher one",
            )
        check(order)
        return True

    async def _keep(self, order: Order, text: str, hub: str) -> None:
        def write(connection: Connection) -> None:
            connection.execute("UPDATE orders SET in_force = 0")
            row = (hub, order.generation, text)
            connection.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, 1)", row)

        await self._database.run(write)
        self._kept[hub] = order.generation, text
        self.order, self._hub = order, hub


def _signed(text: str) -> str:
    """The text of a note without its signatures (C2SP signed-note: they follow an empty line)."""
    return text.rpartition("\n\n")[0] + "\n"


def _sha256(signed: str) -> str:
    return hashlib.sha256(signed.encode()).hexdigest()


def _kept(text: str) -> Order:
    """An order that was verified when it came.  Raises Corrupt."""
    try:
        return read_text("order", Order, _signed(text))
    except Refused as error:
        raise Corrupt(f"the order that is kept on the disk cannot be understood: {error}") from error


# --- what an order may not say -------------------------------------------------------------------


def check(order: Order) -> None:
    """Raise Refused for an order that contradicts itself."""
    _once([app.name for app in order.apps], "apps")
    for app in order.apps:
        _once([service.name for service in app.services], f"{app.name}: services")
        _once([*_files(app)], f"{app.name}: secrets and configs")
        _once([network.name for network in app.networks], f"{app.name}: networks")
        _once([volume.name for volume in app.volumes], f"{app.name}: volumes")
        _check_names(app)
        _check_circles(app)


def _files(app: App) -> list[str]:
    return [secret.name for secret in app.secrets] + [config.name for config in app.configs]


def _once(names: list[str], what: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Refused(f"{what}: {', '.join(sorted(twice))} is there twice", code="order")


def _check_names(app: App) -> None:
    """What services refer to must be in the manifest."""
    services = {service.name for service in app.services}
    files = set(_files(app))
    networks = {network.name for network in app.networks}
    volumes = {volume.name for volume in app.volumes}
    for service in app.services:
        modes = (service.network_mode, service.pid)
        needs = {
            "service": {mode.partition(":")[2] for mode in modes if mode.startswith("service:")} - services,
            "dependency": {each.service for each in service.depends_on if each.required} - services,
            "secret or config": {each.source for each in (*service.secrets, *service.configs)} - files,
            "network": {each.network for each in service.networks} - networks,
            "volume": {each.source for each in service.mounts if each.kind == "volume" and each.source}
            - volumes,
        }
        for what, missing in needs.items():
            if missing:
                raise Refused(
                    f"{app.name}: {service.name} needs the {what} {min(missing)}, which the order lacks",
                    code="order",
                )


def _check_circles(app: App) -> None:
    """Services that wait for each other would never start."""
    leaders = {
        service.name: {each.service for each in service.depends_on}
        | {mode.partition(":")[2] for mode in (service.network_mode, service.pid) if ":" in mode}
        for service in app.services
    }
    while leaders:
        free = [name for name, others in leaders.items() if not others & leaders.keys()]
        if not free:
            circle = ", ".join(sorted(leaders))
            raise Refused(f"{app.name}: services wait for each other in a circle: {circle}", code="order")
        for name in free:
            del leaders[name]
