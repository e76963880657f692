"""A network of its own for a board, in which the kernel counts every byte of IP.

A network namespace (network_namespaces(7)) joined to this machine by a pair of virtual cables; all
boards reach the hub at `HUB`.  Nothing else is in the namespace, so its counters are the board's
traffic: handshakes, acknowledgements and retransmissions included, Ethernet frames and ARP not.

What is larger than a packet would be handed over whole and counted with one header, so segmentation
is left to the sender (``gso_max_segs 1``).  Needs root; everything is gone when the block ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HUB = "198.18.0.1"
"""The hub's address: one of those that nobody has, for measurements like this one (RFC 2544)."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of IP packets since the namespace was made, as the board saw them."""

    sent: int
    received: int

    @property
    def both(self) -> int:
        """Both ways: what a contract for mobile data counts."""
        return self.sent + self.received


@dataclass(frozen=True, slots=True)
class Network:
    """One namespace.  ``enter`` is what to put before a command that shall live in it."""

    name: str

    @property
    def enter(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]

    def traffic(self) -> Traffic:
        """What has been sent and received in it so far."""
        told = _run(*self.enter, "cat", "/proc/net/netstat")
        names, values = (line.split()[1:] for line in told.splitlines() if line.startswith("IpExt:"))
        counted = dict(zip(names, map(int, values), strict=True))
        return Traffic(counted["OutOctets"], counted["InOctets"])


@contextmanager
def network(number: int) -> Iterator[Network]:
    """The namespace of board ``number`` (from 0).  Raises PermissionError for a user who is not root."""
    if os.geteuid() != 0:
        raise PermissionError("a network namespace needs root")
    made = Network(f"lichen-bench-{os.getpid()}-{number}")
    cable, board = f"lichen{os.getpid() % 100_000}{number}"[:15], f"198.18.0.{number + 2}"
    _run("ip", "netns", "add", made.name)
    try:
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        _plug(cable, HUB, board)
        _plug("eth0", board, HUB, *made.enter)
        yield made
    finally:
        _run("ip", "netns", "delete", made.name)  # and with it both ends of the cable


def _plug(device: str, here: str, there: str, *enter: str) -> None:
    """Bring one end of a cable up, with IPv4 alone."""
    quiet = Path("/proc/sys/net/ipv6/conf") / device / "disable_ipv6"
    _run(*enter, "sh", "-c", f"[ ! -e {quiet} ] || echo 1 > {quiet}")
    _run(*enter, "ip", "address", "add", here, "peer", f"{there}/32", "dev", device)
    _run(*enter, "ip", "link", "set", device, "gso_max_segs", "1", "up")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
