"""Whether a port of the board is free, and who has it otherwise.

Asked before a container is to publish a port, by `agent.containers.proxy` and by whoever looks
before an update.  It listens for a moment and lets go again; it never keeps a port.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.wire.errors import Refused

Protocol = Literal["tcp", "udp"]
PROC = Path("/proc")
LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp (proc(5))."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a port."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


def has_ipv6() -> bool:
    """Whether this machine can listen on IPv6 at all."""
    return _failure("::", 0, "tcp") is None


def refusal(host_ip: str, port: int, protocol: Protocol = "tcp") -> Refused | None:
    """Why nobody can listen there now; None when somebody can.  ``host_ip`` empty: on every address.

    Codes are "port-taken", "denied" for a low port that this user may not have, "address" for one
    that this machine does not have, and "port" for what else the kernel says.
    """
    hosts = [host_ip] if host_ip else ["0.0.0.0", *(["::"] if has_ipv6() else [])]  # noqa: S104 - as asked
    for host in hosts:
        if (error := _failure(host, port, protocol)) is not None:
            return _understood(error, host_ip, port, protocol)
    return None


def _failure(host: str, port: int, protocol: Protocol) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as probe:
            if protocol == "tcp":
                # As servers do: connections that ended a moment ago do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            if protocol == "tcp":
                probe.listen(1)
    except OSError as error:
        return error
    return None


def _understood(error: OSError, host_ip: str, port: int, protocol: Protocol) -> Refused:
    where = f"port {port}" + (f" of {host_ip}" if host_ip else "")
    match error.errno:
        case errno.EADDRINUSE:
            found = holder(port, protocol)
            return Refused(
                f"{where} is taken by {found or 'another program'}",
                code="port-taken",
                hint=f"publish another port, or stop what has it: ss -lnp 'sport = :{port}'",
            )
        case errno.EACCES | errno.EPERM:
            return Refused(
                f"{where} is one that this user may not listen on",
                code="denied",
                hint=f"publish a higher one, or sysctl net.ipv4.ip_unprivileged_port_start={port}",
            )
        case errno.EADDRNOTAVAIL:
            return Refused(
                f"{where} cannot be published: this board does not have that address now",
                code="address",
                hint="`ip address` shows those it has; leave the address out to publish on all",
            )
    return Refused(f"{where} cannot be published: {error.strerror}", code="port")


def holder(port: int, protocol: Protocol = "tcp", proc: Path = PROC) -> Holder | None:
    """Who listens on a port; None when nobody does, or when it is not for us to know."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, protocol, proc)}
    if not wanted:
        return None
    for files in proc.glob("[0-9]*/fd"):
        try:
            if any(str(file.readlink()) in wanted for file in files.iterdir()):
                return Holder(int(files.parent.name), (files.parent / "comm").read_text().strip())
        except OSError:  # it has ended, closed a file, or is not ours to look into
            continue
    return None


def _inodes(port: int, protocol: Protocol, proc: Path) -> set[str]:
    """The sockets that listen on a port."""
    found = set()
    for table in (proc / "net" / protocol, proc / "net" / f"{protocol}6"):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:  # no IPv6
            continue
        for line in lines:
            # proc(5): sl, local address:port, remote, state, queues, timer, retransmits, uid, timeout, inode
            fields = line.split()
            listens = protocol == "udp" or fields[3] == LISTENS
            if listens and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
