"""Join tokens: permission for boards to join, and which board used which.

Owns the tables `join_tokens` and `join_uses`; the API makes and revokes tokens, `hub.fleet.joining`
redeems them.  A token's secret leaves `new_token` once and is kept as its SHA-256 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Row, Select, func, insert, select, update

from agent.wire.errors import Refused
from hub.store.boards import check_labels, check_name
from hub.store.database import Tx
from hub.store.schema import join_tokens, join_uses
from hub.store.secrets import fingerprint, new_secret


@dataclass(frozen=True, slots=True)
class Token:
    """A join token: the boards it admits get ``name`` (or one from their id) and ``labels``, or
    those of the board that it ``replaces``."""

    id: int
    name: str
    labels: dict[str, str]
    uses: int
    used: int
    created_ms: int
    expires_ms: int
    revoked_ms: int | None
    replaces: str | None = None
    boards: tuple[str, ...] = ()

    def state(self, now_ms: int) -> str:
        """One word for what it is good for: open, used, expired or revoked."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.used >= self.uses:
            return "used"
        return "expired" if self.expires_ms <= now_ms else "open"


async def new_token(
    tx: Tx,
    *,
    name: str,
    labels: Mapping[str, str],
    uses: int,
    expires_ms: int,
    now_ms: int,
    replaces: str | None = None,
) -> tuple[int, str]:
    """Make a token; returns its id and its secret, which nobody can ask for again.

    Raises Refused for a name or labels that no board may have.
    """
    secret = new_secret()
    result = await tx.execute(
        insert(join_tokens)
        .values(
            hash=fingerprint(secret),
            name=check_name(name) if name else "",
            labels=check_labels(labels),
            uses=uses,
            created_ms=now_ms,
            expires_ms=expires_ms,
            replaces=replaces,
        )
        .returning(join_tokens.c.id)
    )
    return result.scalar_one(), secret


async def list_tokens(tx: Tx, *, limit: int = 200, before: int | None = None) -> list[Token]:
    """The newest tokens first, each with the ids of the boards that used it.

    ``before`` is the id of the last one on the page before.
    """
    asked = _select_tokens().order_by(join_tokens.c.id.desc()).limit(limit)
    if before is not None:
        asked = asked.where(join_tokens.c.id < before)
    rows = (await tx.execute(asked)).all()
    used: dict[int, list[str]] = {row.id: [] for row in rows}
    uses = select(join_uses).where(join_uses.c.token.in_(used)).order_by(join_uses.c.at_ms)
    for use in await tx.execute(uses):
        used[use.token].append(use.board)
    return [_token(row, used[row.id]) for row in rows]


async def find_token(tx: Tx, secret: str) -> Token | None:
    """The token behind a secret, whatever its state; None when there is none."""
    row = (await tx.execute(_select_tokens().where(join_tokens.c.hash == fingerprint(secret)))).one_or_none()
    return _token(row) if row else None


async def revoke_token(tx: Tx, id: int, now_ms: int) -> None:
    """End a token; boards that joined with it stay.  Raises Refused (code "not-found")."""
    result = await tx.execute(
        update(join_tokens)
        .where(join_tokens.c.id == id)
        .values(revoked_ms=func.coalesce(join_tokens.c.revoked_ms, now_ms))
    )
    if result.rowcount == 0:
        raise Refused(f"there is no join token {id}", code="not-found", hint="lichen token ls")


async def revoke_open(tx: Tx, now_ms: int) -> int:
    """End every token that is still good for something; returns how many there were."""
    used = select(func.count()).where(join_uses.c.token == join_tokens.c.id).scalar_subquery()
    asked = update(join_tokens).where(
        join_tokens.c.revoked_ms.is_(None), join_tokens.c.expires_ms > now_ms, used < join_tokens.c.uses
    )
    return (await tx.execute(asked.values(revoked_ms=now_ms))).rowcount


async def has_used(tx: Tx, token: int, board: str) -> bool:
    """Whether ``board`` joined with this token before."""
    asked = select(join_uses.c.at_ms).where(join_uses.c.token == token, join_uses.c.board == board)
    return (await tx.execute(asked)).first() is not None


async def use_token(tx: Tx, token: int, board: str, now_ms: int) -> None:
    """Write down that ``board``, which is stored already, used one of the token's uses."""
    await tx.execute(insert(join_uses).values(token=token, board=board, at_ms=now_ms))


def _select_tokens() -> Select[tuple[object, ...]]:
    used = select(func.count()).where(join_uses.c.token == join_tokens.c.id).scalar_subquery()
    return select(join_tokens, used.label("used"))


def _token(row: Row[tuple[object, ...]], used_by: list[str] | None = None) -> Token:
    fields = {name: value for name, value in row._mapping.items() if name != "hash"}
    return Token(**fields, boards=tuple(used_by or ()))
