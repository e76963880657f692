"""Registries in the API: who this hub, and its boards, are there.  A password is never told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length
from hub.store import app_secrets as store
from hub.web.api.route import Call


@dataclass(frozen=True, slots=True)
class RegistryUser:
    """Who to be at a registry."""

    registry: str
    user: str
    changed_ms: int
    author: str


@dataclass(frozen=True, slots=True)
class RegistryList:
    """The registries by name at which this hub is somebody."""

    registries: tuple[RegistryUser, ...]


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """A user and the password, or a token in its place."""

    user: Annotated[str, Length(1, 256)]
    password: Annotated[str, Length(1, 8192)] = field(repr=False)


async def list_registries(call: Call) -> RegistryList:
    """List registries with a login."""
    async with call.parts.store.read() as tx:
        rows = await store.list_registries(tx)
    return RegistryList(tuple(_shown(row) for row in rows))


async def set_registry(call: Call, registry: str, body: RegistryCredentials) -> RegistryUser:
    """Log in at a registry.

    The hub looks images up with it, and boards with images from there get it, sealed, in new orders.
    """
    return _shown(await call.parts.desk.logins.set(registry, body.user, body.password, call.admin))


async def remove_registry(call: Call, registry: str) -> None:
    """Forget the login at a registry."""
    await call.parts.desk.logins.remove(registry, call.admin)


def _shown(row: store.RegistryRow) -> RegistryUser:
    return RegistryUser(row.name, row.user, row.changed_ms, row.author)
