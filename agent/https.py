"""The hub's HTTPS side: a request and its answer, and every failure by its name.

Called by `agent.join`, `agent.renewal` and `agent.usage.bulk`, on a thread, since it blocks.  Imported only
for that: ``http.client`` takes memory.  It keeps no connection and decides nothing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult

from agent.wire.decode import decode_json
from agent.wire.errors import Corrupt, LinkDown, Refused

MAX_ANSWER = 256 * 1024
TIMEOUT_S = 15
"""How long one step, such as connecting or a read, may take."""
ATTEMPT_S = 60.0
"""How long all of an attempt may take: one step more each second would otherwise last for ever."""


class Connection(HTTPSConnection):
    """One whose socket is shut down at ``until_s`` (of the monotonic clock), whatever it waits for."""

    def __init__(self, url: SplitResult, context: ssl.SSLContext, until_s: float) -> None:
        super().__init__(url.hostname or "", url.port, timeout=TIMEOUT_S, context=context)
        self._context = context
        self._until_s = until_s
        self._shutting: threading.Timer | None = None
        self._spare: socket.socket | None = None

    def connect(self) -> None:
        HTTPConnection.connect(self)
        # TLS takes the socket over; the shutdown of a second descriptor ends both.
        self._spare = self.sock.dup()
        left_s = max(0.0, self._until_s - time.monotonic())
        self._shutting = threading.Timer(left_s, _shut, [self._spare])
        self._shutting.daemon = True
        self._shutting.start()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def is_over(self) -> bool:
        """Whether its time has ended."""
        return time.monotonic() >= self._until_s

    def close(self) -> None:
        super().close()
        if self._shutting is not None:
            self._shutting.cancel()
            self._shutting.join()
            self._shutting = None
        if self._spare is not None:
            self._spare.close()


def _shut(spare: socket.socket) -> None:
    with contextlib.suppress(OSError):
        spare.shutdown(socket.SHUT_RDWR)


def deadline_s() -> float:
    """Until when an attempt that begins now may last."""
    return time.monotonic() + ATTEMPT_S


@contextmanager
def connection(url: SplitResult, context: ssl.SSLContext, until_s: float) -> Iterator[Connection]:
    """A connection that lasts until ``until_s`` at most.

    Its failures are told as LinkDown, the hub's bad certificate as Corrupt, and as Refused (code
    "certificate") that the hub does not accept ours.
    """
    where = f"{url.hostname}:{url.port or 443}"
    connection = Connection(url, context, until_s)
    try:
        connection.connect()
        yield connection
    except ssl.SSLCertVerificationError as error:
        raise Corrupt(
            f"the certificate of the hub at {where} does not hold: {error.verify_message}",
            hint="hub_url must name the host as the hub knows itself (host in its hub.toml)",
        ) from error
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "ALERT" not in reason or "CERT" not in reason:
            raise LinkDown(f"no TLS with the hub at {where}: {reason or error}") from error
        raise Refused(
            f"the hub at {where} does not accept our certificate ({reason.partition('ALERT_')[2].lower()})",
            code="certificate",
        ) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise LinkDown(f"the hub at {where} does not answer: {reason}") from error
    finally:
        connection.close()


def exchange(
    connection: Connection,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    media: str = "application/json",
) -> bytes:
    """The body of a successful answer to a body of type ``media``.

    Raises Refused with what the hub says, LinkDown.
    """
    headers = {"Content-Type": media} if body is not None else {}
    connection.request(method, path, body, headers)
    with connection.getresponse() as response:
        answer = response.read(MAX_ANSWER + 1)
        # http.client takes the end of the stream for the end of an answer.
        if response.length and len(answer) <= MAX_ANSWER:
            raise LinkDown(f"the hub's answer to {path} is cut off")
    if connection.is_over():
        raise LinkDown(f"the hub's answer to {path} did not end within {ATTEMPT_S:g} s")
    if len(answer) > MAX_ANSWER:
        raise Refused(f"the hub's answer to {path} is over {MAX_ANSWER} bytes", code="too-large")
    if 200 <= response.status < 300:
        return answer
    error = _problem(response.status, answer)
    if response.status >= 500 or response.status == 429:
        raise LinkDown(f"the hub cannot answer now: {error}", code=error.code, hint=error.hint)
    raise error


@dataclass(frozen=True, slots=True)
class Problem:
    """What we read of a problem document (RFC 9457)."""

    type: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""


def _problem(status: int, body: bytes) -> Refused:
    """The hub's own sentence; the bare status when there is none."""
    try:
        problem = decode_json(Problem, body, max_bytes=MAX_ANSWER)
    except Refused:
        problem = Problem()
    sentence = problem.detail or problem.title or f"the hub refused with HTTP status {status}"
    return Refused(sentence[:500], code=problem.type.rpartition(":")[2] or "refused", hint=problem.hint[:500])
