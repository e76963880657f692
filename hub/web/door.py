"""The socket that boards and everybody else knock at: how many connections one address may hold.

`hub.web.sites` listens with it.  It counts from the moment that the kernel hands a connection
over until its socket is closed, so a TLS handshake that never ends counts as well; what is over
the bound is closed before a byte is read.  It decides nothing about requests.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections import Counter
from typing import Any

log = logging.getLogger(__name__)

IPV6_SITE_BITS = 64
"""What one customer gets at least (RFC 6177), so that counting single addresses would count nothing."""


class Door(socket.socket):
    """A listening socket that lets at most ``most`` connections of one address be open at a time."""

    __slots__ = ("_held", "_most")

    def __init__(self, family: int, *, most: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._most = most
        self._held: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.  Raises ConnectionAbortedError, as the kernel may, for one too many."""
        connection, address = super().accept()
        whom = guest(address[0])
        if self._held[whom] >= self._most:
            connection.close()
            raise ConnectionAbortedError
        self._held[whom] += 1
        if self._held[whom] == self._most:
            log.warning("an address holds as many connections as it may", extra={"address": whom})
        return _Counted(connection, self._held, whom), address


class _Counted(socket.socket):
    """A connection that is counted until it is closed."""

    __slots__ = ("_counts", "_whom")

    def __init__(self, taken: socket.socket, counts: Counter[str], whom: str) -> None:
        family, kind, protocol = taken.family, taken.type, taken.proto
        super().__init__(family, kind, protocol, fileno=taken.detach())
        self._counts: Counter[str] | None = counts
        self._whom = whom

    def close(self) -> None:
        super().close()
        if self._counts is not None:
            counts, self._counts = self._counts, None
            counts[self._whom] -= 1
            if counts[self._whom] <= 0:
                del counts[self._whom]


def guest(address: str) -> str:
    """Whom an address stands for.

    >>> guest("192.0.2.7"), guest("::ffff:192.0.2.7"), guest("2001:db8:1:2:3::4")
    ('192.0.2.7', '192.0.2.7', '2001:db8:1:2::/64')
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))
