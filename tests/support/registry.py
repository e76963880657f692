"""A real registry for tests, images made for it, and a front door that misbehaves.

`Registry` is Debian's docker-registry on a free port of the loopback.  `Registry.push` makes an image by
hand, from Debian's static busybox and the files that a test gives, for any architecture, and puts it there
by the distribution API: no build, no Podman.  `Door` hands on what the registry says, or does not.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from support.broker import free_port

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
BUSYBOX = Path("/bin/busybox")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

USER, PASSWORD = "reader", "not for everybody"
# bcrypt of the password, by libcrypt.
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuurV34DXHLjOKqEOkH0xlk0i6H8el1GVq\n"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(files: Mapping[str, bytes], *, busybox: bool = True) -> bytes:
    """A layer, uncompressed, the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:

        def add(name: str, data: bytes | None = None, *, mode: int = 0o755, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            if link:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            elif data is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data) if data else None)

        if busybox:
            for folder in ("bin", "etc", "run", "www"):
                add(folder)
            add("tmp", mode=0o1777)
            add("bin/busybox", BUSYBOX.read_bytes())
            for applet in _applets():
                add(f"bin/{applet}", link="busybox")
        for name, data in sorted(files.items()):
            add(name, data, mode=0o755 if data.startswith(b"#!") else 0o644)
    return packed.getvalue()


def _applets() -> list[str]:
    said = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
    return [name for name in said.split() if name != "busybox"]


@dataclass
class Registry:
    """A registry in ``folder``; with ``login`` it asks for `USER` and `PASSWORD`."""

    folder: Path
    login: bool = False
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _base: bytes = b""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": self.address},
        }
        if self.login:
            users = self.folder / "htpasswd"
            users.write_text(HTPASSWD)
            configuration["auth"] = {"htpasswd": {"realm": "lichen", "path": str(users)}}
        file = self.folder / "config.yml"
        file.write_text(json.dumps(configuration))  # which is YAML
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", file], stdout=log, stderr=log)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._ask("GET", "/v2/")
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"docker-registry does not answer: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def push(
        self,
        repository: str,
        *,
        command: Sequence[str] = ("sleep", "1000"),
        health: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        architecture: str = "",
        tag: str = "",
        **config: Any,
    ) -> str:
        """Put an image of busybox and ``files`` there; returns its pinned reference.

        ``health`` is the test of its healthcheck; ``config`` are further keys such as ``StopSignal``.
        """
        self._base = self._base or layer({})
        layers = [self._base, *([layer(files, busybox=False)] if files else [])]
        about: dict[str, Any] = {
            "Cmd": list(command),
            "Env": [f"{key}={value}" for key, value in (environment or {"PATH": "/bin"}).items()],
            **config,
        }
        if health:
            about["Healthcheck"] = {"Test": list(health)}
        image = {
            "architecture": architecture or machine(),
            "os": "linux",
            "config": about,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER,
            "config": self._blob(repository, json.dumps(image).encode(), CONFIG),
            "layers": [self._blob(repository, gzip.compress(each, 1, mtime=0), LAYER) for each in layers],
        }
        return self._manifest(repository, manifest, tag)

    def push_list(self, repository: str, by_architecture: Mapping[str, str], *, tag: str = "") -> str:
        """Put a list of images there, each by its pinned reference; returns that of the list."""
        manifests = []
        for architecture, reference in by_architecture.items():
            digest = reference.rpartition("@")[2]
            body = self._ask("GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": DOCKER})
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append({"mediaType": DOCKER, "size": len(body), "digest": digest, "platform": platform})
        return self._manifest(
            repository, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": manifests}, tag
        )

    def _manifest(self, repository: str, manifest: dict[str, Any], tag: str) -> str:
        body = json.dumps(manifest).encode()
        digest = digest_of(body)
        headers = {"Content-Type": manifest["mediaType"]}
        for name in filter(None, (digest, tag)):
            self._ask("PUT", f"/v2/{repository}/manifests/{name}", body, headers)
        return f"{self.address}/{repository}@{digest}"

    def _blob(self, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(data)
        told = {"mediaType": media_type, "size": len(data), "digest": digest}
        with contextlib.suppress(FileNotFoundError):
            self._ask("HEAD", f"/v2/{repository}/blobs/{digest}")
            return told
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/", wanted="Location")
        path = location.decode().partition(self.address)[2]
        headers = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{path}&digest={digest}", data, headers)
        return told

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        wanted: str = "",
    ) -> bytes:
        """The body of an answer, or one of its headers."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        try:
            connection.request(method, path, body, {"Authorization": f"Basic {pair}", **(headers or {})})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 404:
                raise FileNotFoundError(path)
            assert answer.status < 300, f"{method} {path} -> {answer.status}: {said!r}"
            return (answer.getheader(wanted) or "").encode() if wanted else said
        finally:
            connection.close()


def machine() -> str:
    """The architecture of this machine, as images name it."""
    return ARCHITECTURES[os.uname().machine]


@contextlib.contextmanager
def registry(folder: Path, *, login: bool = False) -> Iterator[Registry]:
    """A running `Registry` with its files in ``folder``."""
    running = Registry(folder, login=login)
    try:
        running.start()
        yield running
    finally:
        running.stop()


Fault = Literal["", "hang", "cut", "mangle", "deny", "fail"]


class Door:
    """A second address of a registry, which does ``fault`` to layers (to everything: "deny", "fail").

    "hang" sends half of a layer and nothing more, "cut" closes then, "mangle" changes its last byte.
    """

    def __init__(self, behind: Registry) -> None:
        self.fault: Fault = ""
        self.behind = behind
        self.reached = threading.Event()
        """Set when the fault has happened."""
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def through(self, reference: str) -> str:
        """The reference of an image of the registry by this address."""
        return reference.replace(self.behind.address, self.address)

    def __enter__(self) -> Door:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                door.answer(self)

            def do_HEAD(self) -> None:
                door.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """Hand one request on, and its answer back, as far as the fault lets it."""
        if self.fault in ("deny", "fail"):
            self.reached.set()
            asked.send_response(403 if self.fault == "deny" else 503)
            asked.send_header("Content-Length", "0")
            asked.end_headers()
            return
        connection = http.client.HTTPConnection(self.behind.address, timeout=20)
        try:
            # A header that is there several times, as Accept is, means the same as one with commas.
            headers = {
                key: ", ".join(asked.headers.get_all(key, ()))
                for key in asked.headers
                if key.lower() != "host"
            }
            connection.request(asked.command, asked.path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            asked.send_response(answer.status)
            for key, value in answer.getheaders():
                asked.send_header(key, value)
            asked.end_headers()
            if asked.command == "GET":
                self._send(asked, body)
        finally:
            connection.close()

    def _send(self, asked: BaseHTTPRequestHandler, body: bytes) -> None:
        if not self.fault or len(body) < 100_000:
            asked.wfile.write(body)
            return
        self.reached.set()
        if self.fault == "mangle":
            asked.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
            return
        asked.close_connection = True
        with contextlib.suppress(OSError):
            asked.wfile.write(body[: len(body) // 2])
            asked.wfile.flush()
            if self.fault == "hang":
                self._closed.wait(30)
