"""Join tokens in the API: make one with its join file, list them, revoke one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length, Range
from agent.wire.errors import Refused
from agent.wire.joining import JoinFile
from hub.fleet.replacement import refuse_replaced
from hub.store import boards, events
from hub.store import tokens as store
from hub.store.database import Tx
from hub.web.api.paging import SAYS, After, id_after
from hub.web.api.route import Call

DAY_S = 86_400
WEEK_S = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class NewToken:
    """What a token allows: how many boards, for how long, and what they are called.

    With ``replaces`` (the id or name of a board) the one board that joins takes its name and its
    labels, and that board is revoked.
    """

    name: Annotated[str, Length(0, boards.LONGEST_NAME)] = ""
    labels: dict[str, str] = field(default_factory=dict)
    uses: Annotated[int, Range(1, 10_000)] = 1
    ttl_s: Annotated[int, Range(60, 366 * DAY_S)] = WEEK_S
    replaces: Annotated[str, Length(0, boards.LONGEST_NAME)] = ""


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token with its join file, which cannot be asked for again."""

    id: int
    name: str
    labels: dict[str, str]
    uses: int
    expires_ms: int
    join_file: JoinFile
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret; ``boards`` are the ids of those that used it, ``replaces`` the
    id of the board whose place the next one takes."""

    id: int
    state: str
    name: str
    labels: dict[str, str]
    uses: int
    used: int
    boards: tuple[str, ...]
    created_ms: int
    expires_ms: int
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """Which join tokens to list."""

    limit: Annotated[int, Range(1, 1000)] = field(default=200, metadata={"says": "Most tokens in one answer"})
    after: After = field(default="", metadata=SAYS)


@dataclass(frozen=True, slots=True)
class TokenList:
    """The newest tokens first; ``next`` asks for older ones and is missing on the last page."""

    tokens: tuple[Token, ...]
    next: str | None = None


async def list_tokens(call: Call, query: TokenQuery) -> TokenList:
    """List join tokens."""
    before = id_after(query.after)
    async with call.parts.store.read() as tx:
        rows = await store.list_tokens(tx, limit=query.limit + 1, before=before)
    now_ms = call.parts.now_ms()
    page = rows[: query.limit]
    return TokenList(
        tuple(
            Token(
                id=row.id,
                state=row.state(now_ms),
                name=row.name,
                labels=row.labels,
                uses=row.uses,
                used=row.used,
                boards=row.boards,
                created_ms=row.created_ms,
                expires_ms=row.expires_ms,
                replaces=row.replaces,
            )
            for row in page
        ),
        str(page[-1].id) if len(rows) > len(page) else None,
    )


async def new_token(call: Call, body: NewToken) -> MadeToken:
    """Make a join token and its join file.

    The file goes onto the board's card as lichen-join.toml. The token in it is shown this once.
    """
    name = boards.check_name(body.name) if body.name else ""
    labels = boards.check_labels(body.labels)
    now_ms = call.parts.now_ms()
    expires_ms = now_ms + body.ttl_s * 1000
    async with call.parts.store.write() as tx:
        old = await _replaced(tx, body)
        replaces = old.id if old else None
        id, secret = await store.new_token(
            tx,
            name=name,
            labels=labels,
            uses=body.uses,
            expires_ms=expires_ms,
            now_ms=now_ms,
            replaces=replaces,
        )
        text = f"made a join token for {name or 'any name'}, {body.uses} use(s)"
        if old is not None:
            text = f"made a join token for the board that replaces {old.name}"
        await events.add_event(
            tx, at_ms=now_ms, kind="token-made", text=text, board=replaces, actor=call.admin
        )
    if old is not None:
        name, labels = old.name, old.labels
    file = call.parts.joining.join_file(secret)
    return MadeToken(id, name, labels, body.uses, expires_ms, file, replaces)


async def _replaced(tx: Tx, body: NewToken) -> boards.BoardRow | None:
    """The board that the token is to replace.  Raises Refused."""
    if not body.replaces:
        return None
    if body.name or body.labels or body.uses != 1:
        raise Refused(
            "a token that replaces a board is for one board, which takes that one's name and labels",
            hint="leave out name, labels and uses",
        )
    row = await boards.get_board(tx, body.replaces)
    refuse_replaced(row)
    return row


async def revoke_token(call: Call, token: str) -> None:
    """Revoke a join token.

    Boards that joined with it stay.
    """
    if not token.isascii() or not token.isdigit() or len(token) > 15:
        raise Refused(
            f"there is no join token {token[:32]!r}", code="not-found", hint="`lichen token ls` lists them"
        )
    now_ms = call.parts.now_ms()
    async with call.parts.store.write() as tx:
        await store.revoke_token(tx, int(token), now_ms)
        text = f"revoked join token {token}"
        await events.add_event(tx, at_ms=now_ms, kind="token-revoked", text=text, actor=call.admin)
