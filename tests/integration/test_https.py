"""The hub's HTTPS side, as somebody's server may answer: however slowly, an attempt ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.https import connection, exchange
from agent.identity import trusting
from agent.wire.errors import LinkDown
from support.homehub import HomeHub, website

ENOUGH_S = 0.4


@contextmanager
def dripping(begin: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that says ``begin`` and then a byte now and then, with TLS or before there is any."""
    over = threading.Event()

    def drip(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if context is not None:
                peer = context.wrap_socket(peer, server_side=True)
            peer.sendall(begin)
            while not over.wait(0.05):
                peer.sendall(b"x")
        peer.close()

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            drip(peer)

        thread = threading.Thread(target=serve, name="dripping")
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("where", ["in the handshake", "in the head", "in the body"])
def test_a_server_that_drips_is_left_in_time(tmp_path: Path, where: str) -> None:
    authority = HomeHub(tmp_path / "hub").authority
    begin = {
        "in the handshake": b"\x16\x03\x03\x40\x00\x02",  # a record of 16 KiB begins, with a ServerHello
        "in the head": b"HTTP/1.1 200 OK\r\nX-Waiting: ",
        "in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    }[where]
    context = None if where == "in the handshake" else authority.server_context()
    began_s = time.monotonic()
    with dripping(begin, context) as url:
        trusted = trusting(authority.ca_pem, "unsynced")
        with (
            pytest.raises(LinkDown),
            connection(urlsplit(url), trusted, began_s + ENOUGH_S) as hub,
        ):
            exchange(hub, "GET", "/ca.pem")
        assert ENOUGH_S <= time.monotonic() - began_s < ENOUGH_S + 0.5


def test_an_attempt_that_ends_in_time_leaves_nothing_behind(tmp_path: Path) -> None:
    authority = HomeHub(tmp_path / "hub").authority
    before = threading.active_count()
    with website(authority.server_context(), {"GET /ca.pem": (200, b"here")}) as site:
        trusted = trusting(authority.ca_pem, "unsynced")
        with connection(urlsplit(site.url), trusted, time.monotonic() + 60) as hub:
            assert exchange(hub, "GET", "/ca.pem") == b"here"
    assert threading.active_count() == before
