"""Admins, and the secrets that stand for them: sessions, API tokens, one-time links.

Owns who a secret stands for and how long; the web layer calls it for every request, the
command line of the hub for the first login.  It never sees cookies or headers, and it never
stores a secret: only SHA-256 of random ones, argon2id of passwords.

| secret | made by | holds |
|---|---|---|
| session | a login with a password, or a link | 30 days after its last use |
| link | `lichen-hub login-link` | 15 minutes, once: `link_holds` looks, `redeem_link` uses it up |
| API token | an admin | until revoked, or as long as asked for |

Chat programs fetch a link to show a preview.  So opening a link must only ask `link_holds`
and show a button; what the button posts is redeemed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from agent.wire.errors import ConfigError, Refused
from hub.access import passwords
from hub.access.throttle import Throttle
from hub.store import accounts
from hub.store.accounts import Credential, CredentialKind
from hub.store.database import Store
from hub.store.secrets import fingerprint, new_secret

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
SESSION_MS = 30 * DAY_MS
LINK_MS = 15 * MINUTE_MS
API_TOKEN_PREFIX = "lichen_"  # noqa: S105  so that secret scanners know one when they see it
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a secret stands for; ``id`` names the credential in public."""

    admin: str
    kind: CredentialKind
    id: str


class Access:
    """Logs admins in and says who a secret stands for.

    ``executor`` runs the password hashes (a tenth of a second, 64 MiB each); give it one
    thread, so that a burst of logins costs time instead of memory.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int], *, executor: Executor | None = None) -> None:
        self._store = store
        self._now_ms = now_ms
        self._executor = executor
        # Five mistakes are human; then 1 s, 2 s, 4 s ... A link from the hub's own machine
        # (`lichen-hub login-link`) still opens for an admin whom somebody else locks out.
        # Two tables: inventing names must not push those of admins out of theirs.
        self._throttles = {
            known: Throttle(now_ms, free=5, base_ms=1000, high_ms=15 * MINUTE_MS) for known in (True, False)
        }

    # --- admins ----------------------------------------------------------------------------

    async def create_admin(self, name: str, password: str) -> None:
        """Add an admin.  Raises ConfigError for a poor name or password, Refused when it is taken."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise ConfigError(
                f"{name[:LONGEST_NAME]!r} is not a name for an admin (1 to {LONGEST_NAME} characters)"
            )
        hashed = await self._hash(passwords.check_password(password))
        async with self._store.write() as tx:
            await accounts.add_admin(tx, name, hashed)

    async def change_password(self, name: str, password: str) -> None:
        """Give an admin another password, and end the sessions that were opened with the one before.

        API tokens stay: they were made on purpose, and end one by one.  Raises ConfigError for a
        poor password, Refused ("not-found").
        """
        hashed = await self._hash(passwords.check_password(password))
        async with self._store.write() as tx:
            if not await accounts.set_password(tx, name, hashed):
                raise Refused(f"there is no admin {name[:LONGEST_NAME]!r}", code="not-found")
            await accounts.end_credentials(tx, ("session", "link"), name)

    async def admins(self) -> list[str]:
        """The names of all admins, in order."""
        async with self._store.read() as tx:
            return await accounts.list_admins(tx)

    async def log_in(self, name: str, password: str) -> str:
        """Open a session and return its secret.

        Raises Refused: "unauthenticated" when name and password do not belong together
        (it takes the same time and says the same for names that nobody has), "too-many"
        while the name is locked after failures.
        """
        name = name[:LONGEST_NAME].encode(errors="replace").decode()  # a form may carry half surrogates
        async with self._store.read() as tx:
            stored = await accounts.hashed_password(tx, name)
        throttle = self._throttles[stored is not None]
        throttle.charge(name)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._executor, passwords.verify, stored, password):
            raise Refused(
                "name and password do not belong together",
                code="unauthenticated",
                hint="try again, or make a login link on the hub's machine: lichen-hub login-link",
            )
        throttle.clear(name)
        return await self._add("session", name, name="", ttl_ms=SESSION_MS)

    # --- one-time links ---------------------------------------------------------------------

    async def new_link(self, admin: str) -> str:
        """The secret of a link that opens one session for ``admin`` within 15 minutes."""
        return await self._add("link", admin, name="", ttl_ms=LINK_MS)

    async def link_holds(self, secret: str) -> bool:
        """Whether a link could be redeemed now.  Uses nothing up."""
        async with self._store.read() as tx:
            found = await accounts.find_credential(tx, fingerprint(secret), self._now_ms())
        return found is not None and found.kind == "link"

    async def redeem_link(self, secret: str) -> str:
        """Use a link up and return the secret of a session.  Raises Refused (code "expired")."""
        now_ms = self._now_ms()
        session, credential = self._draw("session", "", name="", ttl_ms=SESSION_MS)
        async with self._store.write() as tx:
            link = await accounts.take_credential(tx, fingerprint(secret), "link", now_ms)
            if link is None:
                raise Refused(
                    "this login link has been used, or its 15 minutes are over",
                    code="expired",
                    hint="make another on the hub's machine: lichen-hub login-link",
                )
            await accounts.add_credential(tx, replace(credential, admin=link.admin))
        return session

    # --- API tokens -------------------------------------------------------------------------

    async def new_api_token(self, admin: str, name: str, ttl_ms: int | None = None) -> str:
        """The secret of an API token named ``name``; it holds ``ttl_ms``, or until it is revoked."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise Refused(
                f"{name[:LONGEST_NAME]!r} is not a name for an API token (1 to {LONGEST_NAME} characters)"
            )
        return await self._add("token", admin, name=name, ttl_ms=ttl_ms)

    async def list_api_tokens(self, admin: str) -> list[Credential]:
        """An admin's API tokens, newest first."""
        async with self._store.read() as tx:
            return await accounts.list_credentials(tx, "token", admin, self._now_ms())

    async def revoke_api_token(self, admin: str, id: str) -> None:
        """End an API token at once.  Raises Refused (code "not-found")."""
        async with self._store.write() as tx:
            if not await accounts.remove_credential(tx, "token", admin, id):
                raise Refused(
                    f"there is no API token {id[:32]!r}",
                    code="not-found",
                    hint="GET /api/v1/api-tokens lists them",
                )

    # --- every request ----------------------------------------------------------------------

    async def who(self, secret: str, kinds: Collection[CredentialKind] = ("session", "token")) -> Principal:
        """Whom ``secret`` stands for.  Raises Refused (code "unauthenticated").

        A session's 30 days start again with its use, written at most once a day.
        """
        now_ms = self._now_ms()
        async with self._store.read() as tx:
            found = await accounts.find_credential(tx, fingerprint(secret), now_ms)
        if found is None or found.kind not in kinds:
            raise Refused(
                "this needs a login", code="unauthenticated", hint="log in again, or give a valid API token"
            )
        if found.kind == "session" and (found.expires_ms or 0) < now_ms + SESSION_MS - DAY_MS:
            async with self._store.write() as tx:
                await accounts.extend_credential(tx, found.hash, now_ms + SESSION_MS)
        return Principal(found.admin, found.kind, found.id)

    async def log_out(self, secret: str) -> None:
        """End the session, or token, behind ``secret``; nothing happens when it has ended already."""
        async with self._store.write() as tx:
            await accounts.remove_hash(tx, fingerprint(secret))

    # ----------------------------------------------------------------------------------------

    async def _hash(self, password: str) -> str:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, passwords.hash_password, password)

    async def _add(self, kind: CredentialKind, admin: str, *, name: str, ttl_ms: int | None) -> str:
        secret, credential = self._draw(kind, admin, name=name, ttl_ms=ttl_ms)
        async with self._store.write() as tx:
            await accounts.add_credential(tx, credential)
        return secret

    def _draw(
        self, kind: CredentialKind, admin: str, *, name: str, ttl_ms: int | None
    ) -> tuple[str, Credential]:
        """A new secret, and the credential that is stored of it."""
        now_ms = self._now_ms()
        secret = new_secret(API_TOKEN_PREFIX if kind == "token" else "", bits=160)
        credential = Credential(
            hash=fingerprint(secret),
            kind=kind,
            id=secrets.token_hex(8),
            admin=admin,
            name=name,
            created_ms=now_ms,
            expires_ms=None if ttl_ms is None else now_ms + ttl_ms,
        )
        return secret, credential
