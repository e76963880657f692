"""What of an app nobody may read on the way or at rest: its secrets, and configs with secrets in them.

Owns how that is kept beside a manifest (sealed by the hub's vault) and how it gets into one (sealed to
the key of a board).  `hub.apps.manifests` makes it, `hub.apps.orders` puts it into orders.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agent.wire.decode import decode_json, dumps
from agent.wire.order import App, Config, Login, Secret
from agent.wire.seal import seal
from hub.access.vault import Vault

MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SecretText:
    """One secret, or one config with a secret in it; same name and version, same text."""

    name: str
    version: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretTexts:
    """The secret texts of an app."""

    secrets: tuple[SecretText, ...] = ()
    configs: tuple[SecretText, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """Who to be at a registry."""

    registry: str
    user: str
    password: str = field(repr=False)


def keep(vault: Vault, app: str, texts: SecretTexts) -> str:
    """The texts as they are stored; empty when there are none."""
    if texts == SecretTexts():
        return ""
    return vault.seal(dumps(texts), _purpose(app))


def recall(vault: Vault, app: str, kept: str) -> SecretTexts:
    """What `keep` kept.  Raises Corrupt."""
    if not kept:
        return SecretTexts()
    return decode_json(SecretTexts, vault.open(kept, _purpose(app)), max_bytes=MAX_BYTES)


def sealed(app: App, texts: SecretTexts, logins: Iterable[RegistryLogin], seal_key: str) -> App:
    """The manifest with everything in it that only the board with this key can read.

    Raises Refused for a key that nothing can be sealed to.
    """
    return replace(
        app,
        secrets=tuple(
            Secret(each.name, each.version, seal(seal_key, each.text.encode())) for each in texts.secrets
        ),
        configs=app.configs
        + tuple(
            Config(each.name, each.version, box=seal(seal_key, each.text.encode())) for each in texts.configs
        ),
        logins=tuple(
            Login(each.registry, each.user, seal(seal_key, each.password.encode())) for each in logins
        ),
    )


def _purpose(app: str) -> str:
    return f"secrets of the app {app}"
