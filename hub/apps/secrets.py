"""Secrets of apps: made up by the hint of the recipe, or set by an operator; kept sealed.

Owns how one is made up, how its versions are told apart, and what is said of it: a value goes to boards
and to nobody else, not into an event, a log or an answer.  A recipe asks for a secret by name and version
("v1"); a higher version in the app's env is another secret, and the old one stays for a roll-back.

>>> len(made_up(0, "")), len(made_up(12, "hex")), made_up(6, "digits").isdigit()
(32, 12, True)
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent.wire.errors import Refused
from hub.access.vault import Vault
from hub.apps.draft import SecretNeed
from hub.apps.secret_texts import SecretText
from hub.store import app_secrets as store
from hub.store import events
from hub.store.app_secrets import SecretRow
from hub.store.database import Store, Tx

USUAL_LENGTH = 32
LONGEST = 4096
LARGEST_BYTES = 48 * 1024
_COMMON = string.ascii_letters + string.digits
CHARSETS: Mapping[str, str] = {
    "": _COMMON,
    "default": _COMMON,
    "ascii": _COMMON,
    "alnum": _COMMON,
    "alphanumeric": _COMMON,
    "letters": string.ascii_letters,
    "alpha": string.ascii_letters,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "digits": string.digits,
    "numeric": string.digits,
    "hex": "0123456789abcdef",
    "safespecial": _COMMON + "!@%^*_-+=",
    "special": _COMMON + "!@#$%^&*_-+=",
}


@dataclass(frozen=True, slots=True)
class SecretState:
    """A secret as it may be shown.  "missing": somebody has to set it; "due": it is made up when the app is
    deployed; "unused": the newest revision does not ask for it."""

    name: str
    version: str
    state: str  # set | generated | missing | due | unused
    made_ms: int | None = None
    author: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """The secrets of a deployment, and the names of those that were made up for it."""

    secrets: tuple[SecretText, ...]
    generated: tuple[str, ...]


class Secrets:
    """The secrets of one hub's apps."""

    def __init__(self, store: Store, vault: Vault, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._vault = vault
        self._now_ms = now_ms

    async def states(self, tx: Tx, app: str, needs: Iterable[SecretNeed]) -> list[SecretState]:
        """The secrets that an app asks for, and those that are kept for it besides."""
        kept = {(row.name, row.version): row for row in await store.list_secrets(tx, app)}
        found = []
        for need in needs:
            row = kept.pop((need.name, need.version), None)
            if row is None:
                found.append(SecretState(need.name, need.version, "due" if need.generate else "missing"))
            else:
                state = "generated" if row.generated else "set"
                found.append(SecretState(row.name, row.version, state, row.made_ms, row.author))
        found += [
            SecretState(row.name, row.version, "unused", row.made_ms, row.author) for row in kept.values()
        ]
        return found

    async def fill(
        self, tx: Tx, app: str, needs: Iterable[SecretNeed], author: str, *, generate: bool
    ) -> Filled:
        """The values that an app asks for; what is missing is made up, if that is wanted.

        Raises Refused (code "secret") for what somebody has to set first, Corrupt.
        """
        kept = {(row.name, row.version): row for row in await store.list_secrets(tx, app)}
        found, generated, missing = [], [], []
        for need in needs:
            row = kept.get((need.name, need.version))
            if row is None and not (generate and need.generate):
                missing.append(need)
                continue
            if row is None:
                value = made_up(need.length, need.charset)
                row = self._row(app, need.name, need.version, value, author, generated=True)
                await store.save_secret(tx, row)
                generated.append(need.name)
            found.append(SecretText(row.name, row.id, self._opened(row)))
        if missing:
            raise _missing(app, missing)
        return Filled(tuple(found), tuple(generated))

    async def set(self, app: str, name: str, version: str, value: str, author: str) -> None:
        """Keep a value; the same value again changes nothing.  The next change of the app takes it.

        Raises Refused for a value that no secret can have.
        """
        check_value(name, value)
        async with self._store.write() as tx:
            for row in await store.list_secrets(tx, app):
                if (row.name, row.version) == (name, version) and self._opened(row) == value:
                    return
            row = self._row(app, name, version, value, author, generated=False)
            await store.save_secret(tx, row)
            await self._note(tx, "secret-set", f"set the secret {name} ({version}) of {app}", author)

    async def generate(self, app: str, need: SecretNeed, author: str) -> None:
        """Make a new value up, by the hint of the recipe.  Raises Refused for a hint that is none."""
        value = made_up(need.length, need.charset)
        async with self._store.write() as tx:
            row = self._row(app, need.name, need.version, value, author, generated=True)
            await store.save_secret(tx, row)
            text = f"generated the secret {need.name} ({need.version}) of {app}"
            await self._note(tx, "secret-generated", text, author)

    async def remove(self, app: str, name: str, version: str, author: str) -> None:
        """Forget a secret.  What boards have they keep until the next change.

        Raises Refused (code "not-found").
        """
        async with self._store.write() as tx:
            if not await store.delete_secret(tx, app, name, version):
                raise Refused(
                    f"{app} has no secret {name[:128]!r} of version {version[:128]!r}",
                    code="not-found",
                    hint=f"`lichen secret ls {app}` lists them",
                )
            await self._note(tx, "secret-removed", f"removed the secret {name} ({version}) of {app}", author)

    def _row(
        self, app: str, name: str, version: str, value: str, author: str, *, generated: bool
    ) -> SecretRow:
        sealed = self._vault.seal(value.encode(), _purpose(app, name, version))
        return SecretRow(app, name, version, _random_id(), sealed, self._now_ms(), author, generated)

    def _opened(self, row: SecretRow) -> str:
        return self._vault.open(row.value, _purpose(row.app, row.name, row.version)).decode()

    async def _note(self, tx: Tx, kind: str, text: str, author: str) -> None:
        await events.add_event(tx, at_ms=self._now_ms(), kind=kind, text=text, actor=author)


def made_up(length: int, charset: str) -> str:
    """A random secret of ``length`` characters (0: the usual 32).  Raises Refused for a hint that is none."""
    letters = CHARSETS.get(charset)
    if letters is None:
        raise Refused(
            f"charset={charset[:32]} is none that a secret can be made of",
            code="secret",
            hint=f"one of {', '.join(filter(None, CHARSETS))}",
        )
    if not 0 <= length <= LONGEST:
        raise Refused(f"length={length}: a secret is made of at most {LONGEST} characters", code="secret")
    return "".join(secrets.choice(letters) for _ in range(length or USUAL_LENGTH))


def check_value(name: str, value: str) -> None:
    """Raise Refused unless ``value`` can be a secret; never tells it."""
    size = len(value.encode("utf-8", "surrogatepass"))
    if not 0 < size <= LARGEST_BYTES:
        raise Refused(f"the value of {name[:128]} has {size:,} bytes; 1 to {LARGEST_BYTES:,} are possible")


def _missing(app: str, needs: list[SecretNeed]) -> Refused:
    names = ", ".join(f"{need.name} ({need.version})" for need in needs)
    return Refused(
        f"{app} needs a value for {names}",
        code="secret",
        hint=f"lichen secret set {app} {needs[0].name}",
    )


def _random_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(16))


def _purpose(app: str, name: str, version: str) -> str:
    return f"secret {app}/{name} {version}"
