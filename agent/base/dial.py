"""Connecting a socket, over TLS where asked: the part of a connection that blocks.

Called by `agent.base.broker` in a thread of its own.  It speaks no protocol, and never retries.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from agent.wire.errors import LichenError, LinkDown, Refused

READ_BYTES = 16 * 1024
"""What is read ahead at once: a whole TLS record (RFC 8446, section 5.1), so none is left half read."""


class Socket:
    """A connected socket that never blocks, reads ahead, and remembers what broke it.

    The caller reads single bytes, which would be a system call each.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._ahead = b""
        self._at = 0
        self.error: OSError | None = None

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end.  Raises what a socket raises."""
        if self._at == len(self._ahead):
            with self._noticing():
                self._ahead, self._at = self._socket.recv(READ_BYTES), 0
        piece = self._ahead[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def pending(self) -> int:
        """How many bytes are read ahead; nothing will announce them."""
        return len(self._ahead) - self._at

    def send(self, data: bytes | bytearray) -> int:
        """Send what fits now; the number of bytes.  Raises what a socket raises."""
        with self._noticing():
            return self._socket.send(data)

    def close(self) -> None:
        """Close it; closing twice is fine."""
        self._socket.close()

    def fileno(self) -> int:
        """The file number, -1 once closed."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        """Part of what paho expects of a socket; this one stays as it is."""

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.error = error
            raise


def dial(*, unix: Path | None, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> Socket:
    """Connect to a unix socket, or to a host, and shake hands.  Blocks; raises OSError, ValueError."""
    with contextlib.ExitStack() as undo:
        if unix is not None:
            connected = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connected.settimeout(timeout_s)
            connected.connect(str(unix))
        else:
            connected = undo.enter_context(socket.create_connection((host, port), timeout=timeout_s))
            # Small messages, each waited for: Nagle's algorithm would hold them back.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            connected = undo.enter_context(tls.wrap_socket(connected, server_hostname=host))
        undo.pop_all()
        return Socket(connected)


def failure(where: str, error: OSError | ValueError) -> LichenError:
    """What an error of `dial`, or of a socket later, means and what to do about it."""
    match error:
        case ssl.SSLCertVerificationError():
            return LinkDown(
                f"{where} shows a certificate that does not verify: {error.verify_message}",
                code="tls",
                hint="another server answers there, or the clock of this machine is wrong",
            )
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason and ("CERT" in reason or "_CA" in reason):
            return Refused(
                f"{where} does not accept our certificate ({reason.partition('ALERT_')[2].lower()})",
                code="certificate",
                hint="it has expired, was revoked, or is from another hub",
            )
        case ssl.SSLError():
            return LinkDown(
                f"no TLS with {where}: {error.reason or error}",
                code="tls",
                hint="does that port speak TLS?",
            )
        case socket.gaierror():
            return LinkDown(f"{where} cannot be found: {error.strerror}", hint="is there a network?")
        case ConnectionRefusedError() | FileNotFoundError():
            return LinkDown(f"nothing listens at {where}", hint="is it running, and is that its address?")
        case TimeoutError():
            return LinkDown(f"{where} does not answer", hint="is there a network, and no firewall between?")
    return LinkDown(f"the connection to {where} failed: {getattr(error, 'strerror', None) or error}")
