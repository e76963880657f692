"""Who has a port of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent.containers import ports
from support.lab import free_ports


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken_says_by_whom(host: str) -> None:
    (port,) = free_ports(1)
    assert ports.refusal("", port) is None
    assert ports.holder(port) is None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family):
        for asked in ("", host):
            refused = ports.refusal(asked, port)
            assert refused is not None
            assert refused.code == "port-taken"
            assert f"(process {os.getpid()})" in str(refused)
        assert ports.refusal("127.0.0.7", port) is None
    assert ports.refusal("", port) is None


def test_udp_has_ports_of_its_own() -> None:
    (port,) = free_ports(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        assert ports.refusal("", port) is None
        refused = ports.refusal("", port, "udp")
        assert refused is not None
        assert f"(process {os.getpid()})" in str(refused)


def test_a_connection_that_has_ended_takes_no_port() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # first, so that its side waits in TIME_WAIT
        client.close()
    assert ports.refusal("127.0.0.1", port) is None


def test_an_address_that_is_not_ours() -> None:
    refused = ports.refusal("192.0.2.1", 8080)
    assert refused is not None
    assert refused.code == "address"
    assert "192.0.2.1" in str(refused)


def test_a_holder_that_is_not_for_us_to_know(tmp_path: Path) -> None:
    """The kernel shows that somebody listens, and not to everybody who."""
    (tmp_path / "net").mkdir()
    line = "   0: 00000000:1F90 00000000:0000 0A 0:0 00:00000000 00000000     0        0 77 1"
    (tmp_path / "net/tcp").write_text(f"  sl  local_address rem_address st\n{line}\n")
    assert ports.holder(8080, proc=tmp_path) is None
    process = tmp_path / "12/fd"
    process.mkdir(parents=True)
    (process / "3").symlink_to("socket:[77]")
    (tmp_path / "12/comm").write_text("nginx\n")
    assert str(ports.holder(8080, proc=tmp_path)) == "nginx (process 12)"
    assert ports.holder(8081, proc=tmp_path) is None
