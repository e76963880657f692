"""Which containers a manifest asks for, by name: worked out once, and asked for in many places of a turn.

Pure.  `agent.containers.observer` has the `Rosters` of a board, which planning and publishing use as well.
A name needs the digest of a service, and that of each service which it follows.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.containers.names import digests, named
from agent.wire.order import App


class Roster:
    """The containers of one manifest: ``names`` by service and slot, and ``all`` of them.

    Raises Refused (code "compose") for services that follow each other in a circle.
    """

    def __init__(self, app: App, *, proxy: bool) -> None:
        self.app = app
        specs = digests(app, proxy=proxy)
        self.names = {
            (service.name, slot): named(app, service, slot, specs[service.name])
            for service in app.services
            for slot in range(service.replicas)
        }
        self.all = frozenset(self.names.values())


class Rosters:
    """Those of the manifests that matter now.  A manifest never changes, so its own is made once."""

    def __init__(self) -> None:
        # By identity: to compare manifests takes as long as to work out names.  Each roster holds its
        # manifest, so nothing else can have that identity meanwhile.
        self._known: dict[tuple[int, bool], Roster] = {}

    def of(self, app: App, *, proxy: bool) -> Roster:
        """The roster of a manifest."""
        key = id(app), proxy
        if key not in self._known:
            self._known[key] = Roster(app, proxy=proxy)
        return self._known[key]

    def keep(self, apps: Iterable[App]) -> None:
        """Let go of all manifests but these."""
        wanted = {id(app) for app in apps}
        self._known = {key: roster for key, roster in self._known.items() if key[0] in wanted}
