"""Reading tokens of the usage logs: for parties who are no admins of this hub, and may never do anything.

| scope | for | opens, below ``/tlog/`` |
|---|---|---|
| peer | another hub, a monitor | checkpoints and tiles of hashes: that logs only grow, not what they say |
| payer | who pays | the proof of a single record, if that is about this payer |

Entries are for admins alone.  Such a token is looked for only where the logs are served, and `Access.who`
does not know it: everything else is shut to it.  Made and ended by admins, who are told in the events.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from agent.wire.errors import Refused
from hub.store import events, readers
from hub.store.database import Store
from hub.store.readers import ReaderRow, Scope
from hub.store.secrets import fingerprint, new_secret

PREFIX = "lichen_read_"
LONGEST_NAME = 64


class Readers:
    """See the module.  Made for each use: it has no state of its own."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def new(
        self, name: str, scope: Scope, *, payer: str = "", ttl_ms: int | None, author: str
    ) -> tuple[ReaderRow, str]:
        """A new right, and its secret, which nobody can ask for again.  Raises Refused."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise Refused(f"{name[:LONGEST_NAME]!r} is not a name (1 to {LONGEST_NAME} characters)")
        if (scope == "payer") != bool(payer):
            raise Refused("a token of scope payer names the payer, one of scope peer does not")
        secret, now_ms = new_secret(PREFIX, bits=160), self._now_ms()
        row = ReaderRow(
            hash=fingerprint(secret),
            id=secrets.token_hex(8),
            name=name,
            scope=scope,
            payer=payer,
            created_ms=now_ms,
            expires_ms=None if ttl_ms is None else now_ms + ttl_ms,
            author=author,
        )
        async with self._store.write() as tx:
            await readers.add_reader(tx, row)
            what = f"proofs for the payer {payer}" if payer else "heads of the usage logs"
            text = f"reading token {name} made: {what}"
            await events.add_event(tx, at_ms=now_ms, kind="token-made", text=text, actor=author)
        return row, secret

    async def list(self) -> list[ReaderRow]:
        """Those that hold, the newest first."""
        async with self._store.read() as tx:
            return await readers.list_readers(tx, self._now_ms())

    async def revoke(self, id: str, author: str) -> None:
        """End one at once.  Raises Refused (code "not-found")."""
        async with self._store.write() as tx:
            name = await readers.remove_reader(tx, id)
            if name is None:
                raise Refused(
                    f"there is no reading token {id[:32]!r}",
                    code="not-found",
                    hint="`lichen usage token ls` lists them",
                )
            text = f"reading token {name} revoked"
            await events.add_event(tx, at_ms=self._now_ms(), kind="token-revoked", text=text, actor=author)

    async def who(self, secret: str) -> ReaderRow | None:
        """Whom a secret stands for, or None."""
        async with self._store.read() as tx:
            return await readers.find_reader(tx, fingerprint(secret), self._now_ms())
