"""Everything of `hub.apps`, put together once: what the rest of the hub knows of apps.

`hub.app` makes one `Desk` and hands its parts out: orders to the link, reports to ingest, the rest to the
web.  It owns nothing but the order in which they are made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from hub.access import vault as vaults
from hub.access.keys import Keyring
from hub.access.vault import Vault
from hub.apps.changes import Changes
from hub.apps.deploy import Deploy
from hub.apps.logins import Logins
from hub.apps.manifests import Manifests
from hub.apps.orders import Orders
from hub.apps.registry import Registry
from hub.apps.rehearsal import Rehearsal
from hub.apps.reports import Reports
from hub.apps.secrets import Secrets
from hub.store.app_secrets import anything_sealed
from hub.store.database import Store


@dataclass(frozen=True, slots=True)
class Desk:
    """The apps of one hub."""

    deploy: Deploy
    rehearsal: Rehearsal
    changes: Changes
    secrets: Secrets
    logins: Logins
    orders: Orders
    reports: Reports


def new_desk(
    store: Store,
    keys: Keyring,
    vault: Vault,
    now_ms: Callable[[], int],
    *,
    announced: Callable[[], Awaitable[object]],
    plain_http: Collection[str] = (),
    allowed: Collection[str] = (),
    executor: Executor | None = None,
) -> Desk:
    """Make the parts; ``announced`` returns once every board was told of the keys of now, ``executor``
    compiles recipes; of registries ``plain_http`` have no TLS, and only ``allowed`` are asked (none: all)."""
    secrets = Secrets(store, vault, now_ms)
    orders = Orders(store, keys, vault, now_ms, announced=announced)
    reports = Reports(orders)
    registry = Registry(store, vault, now_ms, plain_http=plain_http, allowed=allowed)
    manifests = Manifests(registry, vault, executor=executor)
    changes = Changes(store, manifests, secrets, orders, reports, vault, now_ms)
    return Desk(
        deploy=Deploy(store, changes),
        rehearsal=Rehearsal(store, changes, secrets),
        changes=changes,
        secrets=secrets,
        logins=Logins(store, vault, now_ms, wake=orders.wake),
        orders=orders,
        reports=reports,
    )


async def open_vault(store: Store, keys: Path) -> Vault:
    """The vault of the hub whose keys lie there.  Raises ConfigError when its key is lost."""
    async with store.read() as tx:
        is_needed = await anything_sealed(tx)
    return vaults.load(keys, is_needed=is_needed)
