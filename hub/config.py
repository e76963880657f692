"""What an operator can set on a hub, and where the hub keeps its files.

Owns the keys of ``hub.toml`` with their defaults, and the names inside a hub's directory.
`hub.__main__` loads it, `hub.app` hands it on; it never opens anything but ``hub.toml``.

    name = "north"                  # what boards and people see
    host = "hub.example.org"        # the address under which boards reach this machine

Everything else has a default.  ``page_port`` is the page on this machine, ``board_port`` HTTPS
for boards, ``mqtt_port`` MQTT over TLS for boards.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from agent.wire.decode import Length, Match, Range, decode, plain
from agent.wire.errors import ConfigError

Port = Annotated[int, Range(1, 65535)]
Host = Annotated[
    str,
    Match(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}", "a host name or an address"),
]

ENVIRONMENT = "LICHEN_HUB_DIR"
CHECKOUT = Path(".run/hub")
SYSTEM = Path("/var/lib/lichen-hub")
PAGE_PORT = 8420


@dataclass(frozen=True, slots=True)
class Log:
    """``[log]``: what is written to the journal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe messages that are written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``[limits]``: what one board may send.

    What is beyond is dropped, and the board is named in a problem; others never notice."""

    messages_per_s: Annotated[int, Range(1, 100_000)] = 200
    """Messages a second; ten seconds' worth may come at once. A board sends one a minute, and some
    ten a second when it catches up after an outage."""
    bytes_per_s: Annotated[int, Range(1024, 2**30)] = 4 * 1024 * 1024
    """Bytes a second, as they travel; ten seconds' worth may come at once."""
    sensors: Annotated[int, Range(1, 65_536)] = 512
    """Sensors that one board may ever have reported, under whatever names."""
    usage_bytes_per_day: Annotated[int, Range(65_536, 2**40)] = 8 * 1024 * 1024
    """Bytes of its usage log that one board may add in a day; what it does not use of that it may use later,
    for up to 60 days. A board with three apps writes less than half a megabyte."""


@dataclass(frozen=True, slots=True)
class Retention:
    """``[retention]``: what is kept, and for how long.

    What is beyond is dropped, the oldest first by the time of receipt. An event says so, and
    roll-ups of 15 minutes stay for charts."""

    max_bytes: Annotated[int, Range(2**20, 2**50)] = 2 * 2**30
    """Bytes of single readings, compressed as they came. The database takes a tenth more, or a half with
    small reports, and keeps its size when something is dropped: what is new takes that room."""
    raw_days: Annotated[int, Range(1, 36_500)] | None = None
    """Days to keep single readings at most; without it, as long as there is room."""
    rollup_days: Annotated[int, Range(1, 36_500)] = 730
    """Days to keep the roll-ups, which charts of long times are made of, and the gaps."""
    history_days: Annotated[int, Range(1, 36_500)] = 365
    """Days to keep events, and problems that are over."""


@dataclass(frozen=True, slots=True)
class Registries:
    """``[registries]``: where images come from."""

    plain_http: Annotated[tuple[Annotated[str, Length(1, 255)], ...], Length(0, 64)] = ()
    """Registries (host and port) that speak plain HTTP, as one on this machine may. Boards have a list of
    their own, in their policy."""
    allowed: Annotated[tuple[Annotated[str, Length(1, 255)], ...], Length(0, 64)] = ()
    """The only registries (host and port; docker.io is Docker's) that the hub asks, for whomever. None named:
    any, so that who may deploy an app learns what the hub can reach."""


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of ``hub.toml``."""

    name: Annotated[str, Length(1, 64)]
    """What boards and people see."""
    host: Host = "127.0.0.1"
    """The address under which boards reach this machine; it goes into join files, the signed
    document of the hub and the server certificate."""
    listen: Host = "0.0.0.0"  # noqa: S104  boards are on other machines
    """The local address that the two ports for boards are bound to."""
    page_host: Host = "127.0.0.1"
    """The local address of the page. It is plain HTTP, so it stays on this machine."""
    page_port: Port = PAGE_PORT
    """The page and the API on this machine."""
    board_port: Port = PAGE_PORT + 1
    """HTTPS: boards join here, and the page is here for other machines."""
    mqtt_port: Port = PAGE_PORT + 2
    """MQTT over TLS for boards."""
    commit_every_ms: Annotated[int, Range(1, 10_000)] = 200
    """How long readings may wait for others before they are committed, and acknowledged, together."""
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)
    registries: Registries = field(default_factory=Registries)
    log: Log = field(default_factory=Log)

    @property
    def board_url(self) -> str:
        """The address under which boards join: https://host:board_port."""
        return f"https://{_bracketed(self.host)}:{self.board_port}"

    @property
    def page_url(self) -> str:
        """The address of the page on this machine."""
        return f"http://{_bracketed(self.page_host)}:{self.page_port}"


@dataclass(frozen=True, slots=True)
class Directory:
    """A hub's directory (0700): every file that is the hub."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "hub.toml"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def ca(self) -> Path:
        return self.path / "ca"

    @property
    def broker(self) -> Path:
        return self.path / "broker"

    @property
    def database(self) -> Path:
        return self.path / "hub.db"

    @property
    def lock(self) -> Path:
        return self.path / "hub.lock"


def find(
    option: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    owner: int | None = None,
) -> Directory:
    """The hub's directory: the option, $LICHEN_HUB_DIR, a checkout's .run/hub, the system's.

    ``owner`` is the user id that a checkout's directory must have (default: this process's).
    """
    named = option or environment.get(ENVIRONMENT)
    if named:
        return Directory(Path(named).absolute())
    here = Path.cwd()
    owner = os.getuid() if owner is None else owner
    for folder in (here, *here.parents):
        candidate = folder / CHECKOUT
        # A directory of somebody else, found by walking up from /tmp, must not become our hub.
        if candidate.is_dir() and candidate.stat().st_uid == owner:
            return Directory(candidate)
    return Directory(SYSTEM)


def load(directory: Directory) -> Config:
    """Read and check ``hub.toml``.  Raises ConfigError naming the file and the key."""
    path = directory.config
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no hub in {directory.path}",
            hint=f"make one: lichen-hub init {directory.path}   (or name it: --dir, ${ENVIRONMENT})",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path | str = "hub.toml") -> Config:
    """The configuration in ``text``.  Raises ConfigError whose message begins with ``path``."""
    try:
        config = decode(Config, tomllib.loads(text), strict=True)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    _check(config, path)
    return config


def show(config: Config, *keys: str) -> str:
    """Every key, or those asked for, with its value as TOML."""
    import tomli_w  # only to write

    values: dict[str, object] = plain(config)
    return tomli_w.dumps({key: values[key] for key in keys or values})


def _check(config: Config, path: Path | str) -> None:
    """What no single key can tell."""
    if not _is_loopback(config.page_host):
        raise ConfigError(
            f"{path}: page_host: {config.page_host!r} is not an address of this machine's loopback",
            hint="the page is plain HTTP, so it stays on 127.0.0.1, ::1 or localhost;"
            f" from elsewhere use https on board_port ({config.board_port})",
        )
    ports = {"page_port": config.page_port, "board_port": config.board_port, "mqtt_port": config.mqtt_port}
    seen: dict[int, str] = {}
    for key, port in ports.items():
        if port in seen:
            raise ConfigError(f"{path}: {key}: {port} is {seen[port]} already; each needs its own")
        seen[port] = key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    """``host`` as it stands in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host
