"""The usage log over HTTPS: packages to the hub, many of them, and back from it.

For what is too much for the broker: a backlog of months, or a card that was set back to an old copy.  Made by
`agent.usage.sync` for a session and used when there is a need; until then it costs nothing.  The hub knows
the board by its certificate.  One connection is kept for several requests, on a thread of its own, and made
anew before its time is up (`agent.https`).  It decides nothing, and tries nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from agent.clock import Clock
from agent.identity import Identity
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED, ZLIB_JSON, unpack
from agent.wire.package import Package, Receipt, read_package
from agent.wire.series import encode_series

if TYPE_CHECKING:
    from agent.https import Connection

T = TypeVar("T")

FRESH_S = 30.0
"""How long a connection is used: half of what it lasts."""


class Bulk:
    """The hub's HTTPS side as one board uses it for its log."""

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._open = ExitStack()  # of the thread, as the next ones
        self._connection: Connection | None = None
        self._path = ""
        self._until_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._thread is not None:
            # The thread works in order; a request under way ends by its own time at the latest.
            self._thread.submit(self._close)
            self._thread.shutdown(wait=False)

    def send(self, packages: Sequence[Package]) -> asyncio.Future[Receipt]:
        """Begin to send packages; in the end the hub's answer to the last.

        It raises LinkDown, and Refused with what the hub says.
        """

        def send() -> Receipt:
            answer = self._exchange("POST", "/ledger", encode_series(packages))
            return decode_json(Receipt, answer, max_bytes=MAX_INFLATED)

        return self._do(send)

    async def fetch(self, epoch: str, start: int) -> Package:
        """What the hub holds of a log of ours from ``start`` on, as far as it fits.  Raises as `send`."""
        answer = await self._do(lambda: self._exchange("GET", f"/ledger/{epoch}?start={start}"))
        return read_package(unpack(answer, ZLIB_JSON))

    def _do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage bulk")
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- on the thread

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        from agent.https import exchange  # only when there is much to say

        connection = self._connected()
        try:
            return exchange(connection, method, self._path + path, body, media=ZLIB_JSON)
        except BaseException:
            self._connection = None
            with self._open.pop_all():  # says what the failure means
                raise

    def _connected(self) -> Connection:
        from agent.https import connection, deadline_s

        if self._connection is not None and time.monotonic() < self._until_s:
            return self._connection
        self._close()
        document = self._identity.document()
        url = urlsplit(document.url)
        context = self._identity.tls(document.ca_pem, self._clock.state())
        self._connection = self._open.enter_context(connection(url, context, deadline_s()))
        self._path = url.path.rstrip("/")
        self._until_s = time.monotonic() + FRESH_S
        return self._connection

    def _close(self) -> None:
        self._connection = None
        self._open.close()
