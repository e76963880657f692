"""Who this hub, and its boards, are at registries: user names, and passwords that the vault keeps.

Owns their way into the store and out of it.  A password is told to nobody but `skopeo` (in a file that
only the hub can read) and to boards that pull from there (sealed).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from agent.wire.errors import Refused
from hub.access.vault import Vault
from hub.apps.images import registry_of
from hub.apps.secret_texts import RegistryLogin
from hub.store import app_secrets as store
from hub.store import events, orders, placements
from hub.store.app_secrets import RegistryRow
from hub.store.database import Store, Tx

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?|\[[0-9a-f:]{2,45}\](:[0-9]{1,5})?")


class Logins:
    """The logins of one hub.  ``wake`` is rung when orders have to be made anew."""

    def __init__(
        self, store: Store, vault: Vault, now_ms: Callable[[], int], *, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._vault = vault
        self._now_ms = now_ms
        self._wake = wake

    async def set(self, registry: str, user: str, password: str, author: str) -> RegistryRow:
        """Keep a login.  Boards that pull from there get it with new orders.  Raises Refused."""
        check_registry(registry)
        check_user(user)
        now_ms = self._now_ms()
        sealed = self._vault.seal(password.encode(), _purpose(registry))
        row = RegistryRow(registry, user, sealed, now_ms, author)
        async with self._store.write() as tx:
            await store.save_registry(tx, row)
            await _renew(tx, registry)
            text = f"set the login of {user} at {registry}"
            await events.add_event(tx, at_ms=now_ms, kind="registry-set", text=text, actor=author)
        self._wake()
        return row

    async def remove(self, registry: str, author: str) -> None:
        """Forget a login, also on boards.  Raises Refused (code "not-found")."""
        async with self._store.write() as tx:
            await store.delete_registry(tx, registry)
            await _renew(tx, registry)
            text = f"removed the login at {registry}"
            await events.add_event(tx, at_ms=self._now_ms(), kind="registry-removed", text=text, actor=author)
        self._wake()


async def _renew(tx: Tx, registry: str) -> None:
    """The orders of boards with images from there are not what they were."""
    for board in await placements.boards_with(tx, lambda image: registry_of(image) == registry):
        await orders.mark_stale_if_any(tx, board)


async def read_logins(tx: Tx, vault: Vault, names: Collection[str] | None = None) -> list[RegistryLogin]:
    """The logins with their passwords: all, or those at ``names``.  Raises Corrupt."""
    return [
        RegistryLogin(row.name, row.user, vault.open(row.password, _purpose(row.name)).decode())
        for row in await store.list_registries(tx, names)
    ]


def check_registry(name: str) -> str:
    """Return ``name`` if a registry can be called so.  Raises Refused."""
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name[:64]!r} is not a registry",
            hint="its host in lower case and, if it has one, its port: registry.example.org:5000",
        )
    return name


def check_user(name: str) -> str:
    """Return ``name`` if a user can be called so.  Raises Refused."""
    if not name or ":" in name or not name.isprintable():
        raise Refused(
            f"{name[:64]!r} is not a user of a registry", hint="a name without ':', which ends it (RFC 7617)"
        )
    return name


def _purpose(registry: str) -> str:
    return f"password at the registry {registry}"
