"""A word to containers, from which they learn where the board is now.

Linux gives a bridge the lowest hardware address of its ports, so the bridge of a network may have another
one whenever a container comes or goes; only where udev runs does it keep its first one (systemd.link(5),
MACAddressPolicy).  Containers that are still on it have the old one in mind: what they answer is lost
until they doubt it, which takes eight seconds (arp(7): `delay_first_probe_time` and three probes).

The board itself forgets who is behind a bridge whose address changes.  So the next packet to a container
is preceded by the question who has its address, and whoever is asked learns who asks.
`agent.containers.podman` sends such a packet; it needs no privileges, and no answer.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

DISCARD = 9
"""A port at which whatever comes is dropped (RFC 863)."""


def greet(addresses: Iterable[str]) -> None:
    """Send an empty datagram to each of these IP addresses.  Never waits."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # Its network may just be going, and then nobody has to know anything.
        with (
            socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
            contextlib.suppress(OSError),
        ):
            sender.sendto(b"", (address, DISCARD))
