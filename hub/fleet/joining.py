"""How a board joins: one request with a token and proofs, one answer with a certificate.

Owns the rules of `POST /join` (placeholder body; the signatures hold).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from agent.wire.messages import JoinAnswer, JoinFile, JoinRequest
from hub.access.keys import Keyring
from hub.config import Config
from hub.fleet.authority import Authority
from hub.store.database import Store


class Joining:
    """Decides about join requests."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        keys: Keyring,
        config: Config,
        now_ms: Callable[[], int],
        *,
        document: Callable[[], str],
        joined: Callable[[str], None],
        executor: Executor | None = None,
    ) -> None: ...

    async def join(self, request: JoinRequest, remote: str = "") -> JoinAnswer:
        """Let a board in.  Raises Refused: forbidden, expired, invalid, too-many."""
        raise NotImplementedError

    def join_file(self, secret: str) -> JoinFile:
        """What a technician puts on a card: where this hub is, how to know it, and a token."""
        raise NotImplementedError
