"""An ingest with all that it tells: alerts, commands and limits, as `hub.app` puts them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from hub.access.keys import Keyring
from hub.access.vault import Vault
from hub.apps.desk import Desk, new_desk
from hub.config import Limits
from hub.fleet.alerts import Alerts
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.latest import Latest
from hub.fleet.limits import Allowances
from hub.ledger.witness import Witness
from hub.store.database import Store
from support.witnessing import new_witness

KEYS = Keyring.generate()
ROOM = (2**40, 2**41)
"""Free bytes on a disk, and all."""


def new_alerts(store: Store, latest: Latest, now_ms: Callable[[], int]) -> Alerts:
    """Alerts on a disk with much room."""
    return Alerts(store, latest, now_ms, disk=lambda: ROOM)


async def nobody_waits() -> None:
    """Nobody has to be told of keys first."""


def new_desk_of(
    store: Store, now_ms: Callable[[], int], keys: Keyring = KEYS, *, plain_http: Sequence[str] = ()
) -> Desk:
    """The apps of a hub."""
    vault = Vault(bytes(32))
    return new_desk(store, keys, vault, now_ms, announced=nobody_waits, plain_http=plain_http)


def new_ingest(
    store: Store,
    latest: Latest,
    now_ms: Callable[[], int],
    *,
    alerts: Alerts | None = None,
    commands: Commands | None = None,
    desk: Desk | None = None,
    witness: Witness | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Ingest:
    """An ingest; what is not given is made for it alone."""
    alerts = alerts or new_alerts(store, latest, now_ms)
    return Ingest(
        store,
        latest,
        now_ms,
        alerts=alerts,
        commands=commands or Commands(store, KEYS, now_ms),
        apps=(desk or new_desk_of(store, now_ms)).reports,
        usage=witness or new_witness(store, KEYS, now_ms, alerts),
        allowances=Allowances(limits or Limits(), time.monotonic),
        **options,
    )
