"""Admins and the credentials that stand for them: sessions, API tokens, one-time links.

Owns the tables `admins` and `credentials`; `hub.access.login` is the only caller.  It sees
hashes only, never a password or a secret, and decides nothing about who may do what.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal, cast

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from agent.wire.errors import Refused
from hub.store.database import Tx
from hub.store.schema import admins, credentials

CredentialKind = Literal["session", "token", "link"]


@dataclass(frozen=True, slots=True)
class Credential:
    """A right of ``admin`` until ``expires_ms`` (None: until it is revoked); ``id`` names it in public."""

    hash: str
    kind: CredentialKind
    id: str
    admin: str
    name: str
    created_ms: int
    expires_ms: int | None


async def add_admin(tx: Tx, name: str, password: str) -> None:
    """Add an admin with a hashed password.  Raises Refused (code "conflict") when the name is taken."""
    try:
        await tx.execute(insert(admins).values(name=name, password=password))
    except IntegrityError as error:
        raise Refused(
            f"there is an admin {name!r} already", code="conflict", hint="choose another name"
        ) from error


async def set_password(tx: Tx, name: str, password: str) -> bool:
    """Store a new hashed password; False when nobody has this name."""
    result = await tx.execute(update(admins).where(admins.c.name == name).values(password=password))
    return result.rowcount == 1


async def hashed_password(tx: Tx, name: str) -> str | None:
    """The stored hash of an admin's password, or None when nobody has this name."""
    return cast("str | None", await tx.scalar(select(admins.c.password).where(admins.c.name == name)))


async def list_admins(tx: Tx) -> list[str]:
    """The names of all admins, in order."""
    return list((await tx.execute(select(admins.c.name).order_by(admins.c.name))).scalars())


async def add_credential(tx: Tx, credential: Credential) -> None:
    """Store a credential, and drop those that have ended by the time it was made."""
    await tx.execute(delete(credentials).where(credentials.c.expires_ms <= credential.created_ms))
    await tx.execute(insert(credentials).values(asdict(credential)))


async def find_credential(tx: Tx, hash: str, now_ms: int) -> Credential | None:
    """The credential with this hash that still holds at ``now_ms``."""
    row = (
        await tx.execute(select(credentials).where(credentials.c.hash == hash, _holds(now_ms)))
    ).one_or_none()
    return _credential(row) if row else None


async def take_credential(tx: Tx, hash: str, kind: CredentialKind, now_ms: int) -> Credential | None:
    """Find a credential of this kind and remove it, so that nobody finds it a second time."""
    found = await find_credential(tx, hash, now_ms)
    if found is None or found.kind != kind:
        return None
    await tx.execute(delete(credentials).where(credentials.c.hash == hash))
    return found


async def extend_credential(tx: Tx, hash: str, expires_ms: int) -> None:
    """Let a credential hold until ``expires_ms``."""
    await tx.execute(update(credentials).where(credentials.c.hash == hash).values(expires_ms=expires_ms))


async def list_credentials(tx: Tx, kind: CredentialKind, admin: str, now_ms: int) -> list[Credential]:
    """An admin's credentials of one kind that still hold, newest first."""
    asked = (
        select(credentials)
        .where(credentials.c.kind == kind, credentials.c.admin == admin, _holds(now_ms))
        .order_by(credentials.c.created_ms.desc(), credentials.c.id)
    )
    return [_credential(row) for row in await tx.execute(asked)]


async def remove_credential(tx: Tx, kind: CredentialKind, admin: str, id: str) -> bool:
    """Remove one of an admin's credentials by its id; False when there is none."""
    result = await tx.execute(
        delete(credentials).where(
            credentials.c.kind == kind, credentials.c.admin == admin, credentials.c.id == id
        )
    )
    return result.rowcount == 1


async def end_credentials(tx: Tx, kinds: Collection[CredentialKind], admin: str | None = None) -> int:
    """Remove all credentials of these kinds, of one admin or of all; returns how many there were."""
    of_whom = credentials.c.admin == admin if admin is not None else true()
    asked = delete(credentials).where(credentials.c.kind.in_(kinds), of_whom)
    return (await tx.execute(asked)).rowcount


async def remove_hash(tx: Tx, hash: str) -> None:
    """Remove the credential with this hash, if there is one."""
    await tx.execute(delete(credentials).where(credentials.c.hash == hash))


def _holds(now_ms: int) -> ColumnElement[bool]:
    return or_(credentials.c.expires_ms.is_(None), credentials.c.expires_ms > now_ms)


def _credential(row: Row[tuple[object, ...]]) -> Credential:
    return Credential(**row._mapping)
