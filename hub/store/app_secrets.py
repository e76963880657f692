"""Secrets of apps, and logins at registries: as sealed texts, for this room has no key.

Owns the tables `app_secrets` and `registries`; `hub.apps.secrets` and `hub.apps.registry` seal and open.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select

from agent.wire.errors import Refused
from hub.store.database import Tx, upsert
from hub.store.schema import app_secrets, placements, registries


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret of an app.  ``version`` is as the app's env has it ("v1"); ``id`` is random and changes
    with the value, which is sealed by the hub's vault."""

    app: str
    name: str
    version: str
    id: str
    value: str
    made_ms: int
    author: str
    generated: bool


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """Who to be at a registry; ``password`` is sealed by the hub's vault."""

    name: str
    user: str
    password: str
    changed_ms: int
    author: str


async def list_secrets(tx: Tx, app: str) -> list[SecretRow]:
    """The secrets of an app, by name and version."""
    asked = select(app_secrets).where(app_secrets.c.app == app)
    rows = await tx.execute(asked.order_by(app_secrets.c.name, app_secrets.c.version))
    return [SecretRow(**{**row._mapping, "generated": bool(row.generated)}) for row in rows]


async def save_secret(tx: Tx, row: SecretRow) -> None:
    """Keep a secret, in place of the one of the same name and version."""
    values = {name: getattr(row, name) for name in SecretRow.__slots__}
    values["generated"] = int(row.generated)
    key = ("app", "name", "version")
    changed = {name: value for name, value in values.items() if name not in key}
    asked = upsert(tx, app_secrets).values(values)
    await tx.execute(asked.on_conflict_do_update(index_elements=list(key), set_=changed))


async def delete_secret(tx: Tx, app: str, name: str, version: str) -> bool:
    """Remove a secret; False when there was none."""
    asked = delete(app_secrets).where(
        app_secrets.c.app == app, app_secrets.c.name == name, app_secrets.c.version == version
    )
    return (await tx.execute(asked)).rowcount == 1


async def list_registries(tx: Tx, names: Collection[str] | None = None) -> list[RegistryRow]:
    """The registries at which this hub is somebody: all, or those of ``names``."""
    asked = select(registries).order_by(registries.c.name)
    if names is not None:
        asked = asked.where(registries.c.name.in_(names))
    return [RegistryRow(*row) for row in await tx.execute(asked)]


async def save_registry(tx: Tx, row: RegistryRow) -> None:
    """Keep a login, in place of the one at the same registry."""
    values = {name: getattr(row, name) for name in RegistryRow.__slots__}
    changed = {name: value for name, value in values.items() if name != "name"}
    asked = upsert(tx, registries).values(values)
    await tx.execute(asked.on_conflict_do_update(index_elements=["name"], set_=changed))


async def delete_registry(tx: Tx, name: str) -> None:
    """Remove a login.  Raises Refused (code "not-found")."""
    if (await tx.execute(delete(registries).where(registries.c.name == name))).rowcount == 0:
        raise Refused(
            f"there is no login for the registry {name[:64]!r}",
            code="not-found",
            hint="`lichen registry ls` lists them",
        )


async def anything_sealed(tx: Tx) -> bool:
    """Whether something is kept that only the vault's key opens."""
    placed = select(placements.c.app).where(placements.c.secrets != "")
    for asked in (select(app_secrets.c.id), select(registries.c.name), placed):
        if (await tx.execute(asked.limit(1))).first() is not None:
            return True
    return False
