"""The hub of a board under test: its keys, its word, and its ear on a broker; no store, no web.

Keys, certificates and documents are made by the hub's own code; what is said can be false where
a test asks for it.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.base.broker import Address, Connect, Message, Session
from agent.identity import Identity, Membership
from agent.wire import note, topics
from agent.wire.decode import decode_json
from agent.wire.envelope import unpack
from agent.wire.joining import JoinAnswer
from agent.wire.messages import (
    About,
    Ack,
    Block,
    Command,
    HubTime,
    Presence,
    Reading,
    Reply,
    compose,
    read_batch,
    readings_of,
)
from agent.wire.plain import dumps
from hub.access.keys import Keyring, describe
from hub.config import Config
from hub.fleet.acceptance import Hole, accept
from hub.fleet.authority import Authority

TOKEN = "t" * 26


class HomeHub:
    """The keys and the authority of one hub; ``port`` is where its broker is said to be."""

    def __init__(self, folder: Path, port: int = 8422) -> None:
        folder.mkdir()
        self.keys = Keyring.generate()
        self.authority = Authority.create(folder, self.keys.hub, "127.0.0.1", now_ms())
        self.config = Config(name="north", mqtt_port=port)

    def document(self, number: int = 1, *, signer: note.Signer | None = None, **changes: Any) -> str:
        """A signed hub document."""
        content = replace(describe(self.keys, self.config, self.authority.ca_pem), number=number, **changes)
        return note.sign(compose("hub", content), signer or self.keys.root)

    def answer(self, identity: Identity, **lies: Any) -> JoinAnswer:
        """What `POST /join` answers this board."""
        issued = self.authority.issue(identity.board, identity.certificate_request(), now_ms())
        return replace(JoinAnswer(identity.board, issued.pem, self.document(), "pump"), **lies)

    def admit(self, identity: Identity) -> None:
        """Let a board have joined."""
        answer = self.answer(identity)
        membership = Membership(identity.board, answer.name)
        identity.accept(membership, self.keys.root.verifier, answer.hub_note, answer.certificate_pem)

    def command(self, board: str, nonce: str, name: str, id: str = "c1", **changes: Any) -> bytes:
        """A signed command."""
        signer = changes.pop("signer", self.keys.command)
        command = replace(Command(id, board, nonce, name, now_ms()), **changes)
        return note.sign(compose("command", command), signer).encode()

    def time(self, board: str, nonce: str, at_ms: int, signer: note.Signer | None = None) -> bytes:
        """The hub's clock, signed."""
        told = compose("time", HubTime(board, nonce, at_ms))
        return note.sign(told, signer or self.keys.time).encode()

    def join_file(self, url: str, **lies: str) -> dict[str, str]:
        """The fields of a join file."""
        honest = {
            "hub_url": url,
            "hub_key": self.keys.root.vkey,
            "ca_sha256": self.authority.ca_sha256,
            "token": TOKEN,
        }
        return {**honest, **lies}


@dataclass
class Ear:
    """A hub's end of a broker: stores each reading once, in order, and acknowledges.

    ``deaf`` drops a batch (by the count of those that came) before it is looked at; ``silent``
    stores without an acknowledgement.
    """

    board: str
    deaf: Callable[[int], bool] = lambda count: False
    silent: bool = False
    contiguous: dict[str, int] = field(default_factory=dict)
    values: list[float | None] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    batches: int = 0
    presences: list[Presence] = field(default_factory=list)
    abouts: list[About] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    session: Session | None = None

    async def listen(self, connect: Connect, address: Address) -> None:
        """Take what the board says until cancelled."""
        async with connect(address) as session:
            self.session = session
            await session.subscribe(topics.up_all())
            async for message in session.messages():
                await self._receive(session, message)

    async def _receive(self, session: Session, message: Message) -> None:
        payload = unpack(message.payload, message.content_type)
        match topics.parse(message.topic).leaf:
            case "presence":
                self.presences.append(decode_json(Presence, payload, max_bytes=10_000))
            case "about":
                self.abouts.append(decode_json(About, payload, max_bytes=100_000))
            case "reply":
                self.replies.append(decode_json(Reply, payload, max_bytes=10_000))
            case "readings":
                self.batches += 1
                if not self.deaf(self.batches):
                    ack = self._store(payload)
                    if not self.silent:
                        await self.say(session, "ack", dumps(ack), retain=True)

    async def say(self, session: Session, leaf: str, payload: bytes, *, retain: bool = False) -> None:
        await session.publish(Message(topics.down(self.board, leaf), payload, retain=retain))

    def _store(self, payload: bytes) -> Ack:
        batch = read_batch(payload)
        decision = accept(self.contiguous, batch)  # the hub's own rule
        self.contiguous |= decision.contiguous
        self.holes += decision.gaps
        if decision.verdict == "stored":
            readings = [reading for block in batch.blocks for reading in readings_of(block)]
            self.readings += readings[decision.skip :]
            self.values += [reading.value for reading in readings[decision.skip :]]
            self.blocks += batch.blocks
        return Ack({stream: self.contiguous[stream] for stream in batch.held})


# --- HTTPS -------------------------------------------------------------------------------------

Answer = tuple[int, bytes]
Page = Answer | Callable[[bytes], Answer]
"""A fixed answer, or one that is made from the body of the request; status 0 says nothing at all."""


@dataclass
class Website:
    """``pages`` by "METHOD /path"; ``requests`` is what came."""

    url: str
    pages: dict[str, Page]
    requests: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def website(context: ssl.SSLContext, pages: dict[str, Page], host: str = "127.0.0.1") -> Iterator[Website]:
    """A web server over TLS on a free port of the loopback."""
    site = Website("", pages)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = f"{self.command} {self.path}"
            site.requests.append((asked, body))
            page = site.pages.get(asked, (404, b""))
            status, answer = page(body) if callable(page) else page
            if status == 0:
                self.connection.close()  # the answer is lost on the way
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = answer  # noqa: N815  the names that the base class calls

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, address: object) -> None:
            """Clients that do not trust us hang up; that is what some tests want."""

    with Server((host, 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        site.url = f"https://{host}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="website")
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
