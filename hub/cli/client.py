"""The hub's API as the command line sees it, and the login that opens it.

Owns the login file (TOML: url, token and, for HTTPS with a hub's own authority, ca_pem; mode
0600) and the translation of HTTP answers into results and errors.  Every command calls
`Hub`; nothing here prints.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import tomli_w

from agent.base.files import write_file
from agent.wire.decode import decode
from agent.wire.errors import Busy, ConfigError, LichenError, LinkDown, Refused

CHECKOUT_LOGIN = Path(".run/cli.toml")
MAX_ANSWER = 64 * 1024 * 1024
WITHIN_S = 30.0
"""How soon a hub answers, unless it has to ask others first."""
API = "/api/v1"
Params = Mapping[str, Any] | Sequence[tuple[str, Any]]
"""A query: pairs where a name stands in it several times."""
PAGE = 500
"""What is asked for at once of a list."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where the hub is and the API token that speaks for an admin."""

    url: str
    token: str
    ca_pem: str = ""


def login_file() -> Path:
    """The login file in force: $LICHEN_CONFIG, a checkout's own, or the user's."""
    if named := os.environ.get("LICHEN_CONFIG"):
        return Path(named)
    for directory in (Path.cwd(), *Path.cwd().parents):
        found = directory / CHECKOUT_LOGIN
        # Somebody else's file in a shared directory must not choose our hub.
        if found.is_file() and found.stat().st_uid == os.getuid():
            return found
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "lichen" / "cli.toml"


def load_login(path: Path) -> Login:
    """Read a login file.  Raises ConfigError when there is none or it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"not logged in: {path} does not exist", hint="log in with: lichen login http://127.0.0.1:8420"
        ) from None
    try:
        return decode(Login, tomllib.loads(text), strict=True, where=str(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="remove the file and log in again") from error


def save_login(path: Path, login: Login) -> None:
    """Write the login file, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"url": login.url, "token": login.token, "ca_pem": login.ca_pem}
    write_file(path, tomli_w.dumps({key: value for key, value in fields.items() if value}).encode())


class Hub:
    """One hub's API over one connection pool."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Params | None = None,
        within_s: float = WITHIN_S,
    ) -> Any:
        """Call ``/api/v1<path>`` and return its JSON.  Raises LinkDown, Refused, Busy."""
        timeout = aiohttp.ClientTimeout(total=within_s, sock_connect=10)
        async with self._request(method, path, json=json, params=params, timeout=timeout) as response:
            return await response.json() if response.status != 204 else None

    async def pages(self, path: str, key: str, *, params: Mapping[str, Any] | None = None) -> list[Any]:
        """What a list holds under ``key``, over all its pages.  Raises as `call`."""
        found: list[Any] = []
        after = ""
        while True:
            page = await self.call("GET", path, params={**(params or {}), "limit": PAGE, "after": after})
            found += page[key]
            after = page.get("next") or ""
            if not after:
                return found

    async def lines(self, path: str, *, params: Mapping[str, Any], accept: str) -> AsyncGenerator[str]:
        """The lines of a long answer, as they come."""
        unbounded = aiohttp.ClientTimeout(total=None, sock_connect=10)
        headers = {"Accept": accept}
        async with self._request("GET", path, params=params, headers=headers, timeout=unbounded) as response:
            async for line in response.content:
                yield line.decode().rstrip("\r\n")

    async def download(self, path: str, *, params: Mapping[str, Any], accept: str) -> bytes:
        """The body of a long answer as it is.  Raises as `call`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        headers = {"Accept": accept}
        async with self._request("GET", path, params=params, headers=headers, timeout=timeout) as response:
            return await response.read()

    async def file(self, path: str, *, params: Mapping[str, Any] | None = None) -> bytes:
        """A file that the hub serves outside of its API, at ``path``.  Raises as `call`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WITHIN_S)
        async with self._request("GET", path, params=params, root="", timeout=timeout) as response:
            return await response.read()

    async def events(self, path: str, *, params: Mapping[str, Any]) -> AsyncGenerator[tuple[str, Any]]:
        """Server-sent events as (event, decoded data).  HTML Living Standard, section 9.2."""
        event, data = "message", ""
        async for line in self.lines(path, params=params, accept="text/event-stream"):
            field, _, value = line.partition(":")
            if not line and data:
                yield event, json.loads(data)
                event, data = "message", ""
            elif field == "event":
                event = value.removeprefix(" ")
            elif field == "data":
                data += value.removeprefix(" ")

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, params: Params | None = None, root: str = API, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        pairs = params.items() if isinstance(params, Mapping) else params or ()
        given = [(key, str(value)) for key, value in pairs if value not in (None, "")]
        try:
            async with self._http.request(
                method, f"{self.url}{root}{path}", params=given, allow_redirects=False, **options
            ) as response:
                if response.status >= 300:
                    raise await _error(response)
                yield response
        except TimeoutError as error:
            raise LinkDown(f"{self.url} does not answer", hint="look at the hub's log") from error
        except aiohttp.ClientConnectorCertificateError as error:
            hint = f"trust the hub's own authority with: lichen login {self.url}"
            raise Refused(f"{self.url} shows a certificate that is not trusted", hint=hint) from error
        except aiohttp.ClientPayloadError as error:
            raise LinkDown(
                f"the hub at {self.url} broke off in the middle of its answer", hint="look at the hub's log"
            ) from error
        except aiohttp.ClientError as error:
            hint = "is the hub running? (make run, or systemctl status lichen-hub)"
            raise LinkDown(f"cannot reach the hub at {self.url}: {reason(error)}", hint=hint) from error


def reason(error: aiohttp.ClientError) -> str:
    """Why a connection failed, without the inside of a library."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, socket.gaierror):
        return cause.strerror or str(cause)
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
        return os.strerror(cause.errno)
    return str(error)


@asynccontextmanager
async def connect(url: str, *, token: str = "", ca_pem: str = "") -> AsyncIterator[Hub]:
    """A connection to the hub at ``url``, closed at the end."""
    trust = ssl.create_default_context(cadata=ca_pem or None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(ssl=trust),
        read_bufsize=2**20,
    ) as http:
        yield Hub(http, url.rstrip("/"))


async def _error(response: aiohttp.ClientResponse) -> LichenError:
    """The error that a problem document (RFC 9457) tells, hint included."""
    try:
        problem = await response.json(content_type=None)
        code = str(problem["type"]).rpartition(":")[2]
        message, hint = str(problem["detail"]), str(problem.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Refused(f"{response.url.origin()} answered {response.status} {response.reason}", code="http")
    if code == "unauthenticated":
        hint = "log in again with: lichen login " + str(response.url.origin())
    if response.status == 503:
        return LinkDown(message, code=code, hint=hint)
    return (Busy if code == "busy" else Refused)(message, code=code, hint=hint)
