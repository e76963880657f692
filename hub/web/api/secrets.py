"""Secrets of apps in the API: which there are, and setting them.  A value is never told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length
from agent.wire.errors import Refused
from agent.wire.order import AppName, Noun
from hub.apps.draft import SecretNeed
from hub.apps.secrets import SecretState
from hub.store import apps
from hub.web.api.route import Call

Version = Annotated[str, Length(0, 128)]


@dataclass(frozen=True, slots=True)
class SecretList:
    """The secrets of an app: set, generated, missing (somebody has to set it), due (made up when the app is
    deployed), or unused by the newest revision."""

    secrets: tuple[SecretState, ...]


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value; without one it is made up by the hint of the recipe.

    ``version`` is the one that the app's env names (SECRET_..._VERSION), unless it says another.
    """

    value: Annotated[str, Length(1, 48 * 1024)] | None = field(default=None, repr=False)
    version: Version = ""


@dataclass(frozen=True, slots=True)
class SecretQuery:
    """Which version."""

    version: Version = field(
        default="", metadata={"says": "The version; left out: the one that the app's env names"}
    )


async def list_secrets(call: Call, app: AppName) -> SecretList:
    """List the secrets of an app, without their values."""
    needs = await _needs(call, app)
    async with call.parts.store.read() as tx:
        found = await call.parts.desk.secrets.states(tx, app, needs)
    if not found:
        async with call.parts.store.read() as tx:
            await apps.get_app(tx, app)
    return SecretList(tuple(found))


async def set_secret(call: Call, app: AppName, secret: Noun, body: NewValue) -> SecretList:
    """Set a secret, or make one up.

    The app may still have to be deployed. Boards get the value with the next change of the app.
    """
    need = await _need(call, app, secret, body.version)
    if body.value is None:
        await call.parts.desk.secrets.generate(app, need, call.admin)
    else:
        await call.parts.desk.secrets.set(app, need.name, need.version, body.value, call.admin)
    return await list_secrets(call, app)


async def remove_secret(call: Call, app: AppName, secret: Noun, query: SecretQuery) -> None:
    """Remove a secret.

    Refused with `conflict` while the newest revision uses it.
    """
    need = await _need(call, app, secret, query.version)
    async with call.parts.store.read() as tx:
        row = await apps.find_app(tx, app)
    used = {(each.name, each.version) for each in await _needs(call, app)}
    if row is not None and row.boards and (need.name, need.version) in used:
        raise Refused(
            f"{app} uses the secret {need.name} ({need.version})",
            code="conflict",
            hint="raise its version in the env first, or undeploy the app",
        )
    await call.parts.desk.secrets.remove(app, need.name, need.version, call.admin)


async def _needs(call: Call, app: str) -> tuple[SecretNeed, ...]:
    """What the newest revision asks for; nothing, before there is one."""
    async with call.parts.store.read() as tx:
        row = await apps.find_app(tx, app)
        if row is None:
            return ()
        content = await call.parts.desk.changes.read(tx, row)
    return (await call.parts.desk.changes.manifests.compile(app, content)).secrets


async def _need(call: Call, app: str, name: str, version: str) -> SecretNeed:
    """The secret that is meant, with the hint of the recipe as far as there is one."""
    need = next((each for each in await _needs(call, app) if each.name == name), None)
    if need is None:
        return SecretNeed(name, "", version=version or "v1")
    if version and version != need.version:
        return SecretNeed(name, "", need.version_variable, version, need.length, need.charset, need.generate)
    return need
