"""The order of a board: every app that it is to run, resolved to the last detail.

``down/order`` is a note by the hub's order key over `Order` (kind "order"; `agent.wire.messages.compose`).
It is the whole desired state: an app that is not in it is to go, and it never expires.  The hub compiles
an app's compose files to an `App` (its *manifest*): nothing in it is interpolated, inherited or looked up
on the board any more, and every image is pinned by its digest.  The board compares, and takes steps.

Plaintext secrets never travel: a `Secret`, a `Config` that contains one and a registry `Login` are sealed
to the board's sealing key (`agent.wire.seal`).  A sealed box looks different each time it is made, so
what changed is told by ``version``: same name and version, same content.

>>> from agent.wire.messages import compose
>>> web = Service("web", "registry.example/web@sha256:" + "0" * 64)
>>> order = Order(board="b" * 16, generation=3, issued_ms=0, apps=(App("demo", 1, services=(web,)),))
>>> compose("order", order).partition("\\n")[0]
'lichen/order/v1'

Sizes are bytes, times milliseconds, processors thousandths of one.  Empty text and empty tuples mean
"as the image says"; ``None`` and 0 mean "no limit, not set".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.wire.decode import Length, Match, Range
from agent.wire.messages import Count, Millis, Text

AppName = Annotated[
    str, Match(r"[a-z0-9][a-z0-9_-]{0,39}", "lower-case letters, digits, '_' or '-', at most 40")
]
"""Of an app at its hub; short, for what it makes on a board is named after it."""
Noun = Annotated[
    str, Match(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "letters, digits, '_', '.' or '-', at most 128")
]
"""What compose calls a service, network, volume, secret or config."""
Pinned = Annotated[
    str,
    Match(
        r"(?=localhost/|[^/]*[.:][^/]*/)[a-z0-9][A-Za-z0-9_.:/-]{0,255}@sha256:[0-9a-f]{64}",
        "an image with its registry, pinned by its digest",
    ),
]
"""The first part has a dot or a port, or is "localhost": for a name without registry, a board might have one
of its own."""
Path = Annotated[str, Length(1, 4096)]
Words = Annotated[tuple[Annotated[str, Length(0, 65536)], ...], Length(0, 1024)]
Pairs = Annotated[dict[str, Annotated[str, Length(0, 65536)]], Length(0, 1024)]
Names = Annotated[tuple[Annotated[str, Length(1, 256)], ...], Length(0, 256)]
Clockwise = Annotated[str, Match(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", "HH:MM-HH:MM")]
"""A time of day in the board's own zone; one that ends before it begins goes over midnight."""
MAX_FILE_BYTES = 511_999
"""The most that a secret or a config may have: Podman takes no larger ones, and no empty ones."""
MAX_LOG_BYTES = 50_000_000


# --- parts of a service ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attachment:
    """A network that a service is on: ``network`` is its full name, ``aliases`` what others call it there."""

    network: Noun
    aliases: Names = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the container that the board publishes.  ``published`` 0: any free one."""

    target: Annotated[int, Range(1, 65535)]
    published: Annotated[int, Range(0, 65535)] = 0
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: Text = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume (``source`` is its full name), a path of the board (``bind``), or memory (``tmpfs``)."""

    kind: Literal["volume", "bind", "tmpfs"]
    target: Path
    source: Annotated[str, Length(0, 4096)] = ""
    read_only: bool = False
    size_bytes: Count = 0  # of tmpfs
    mode: Annotated[int, Range(0, 0o7777)] | None = None  # of tmpfs
    no_copy: bool = False  # do not fill a new volume with what the image has there
    options: Names = ()  # such as "rshared", "Z"


@dataclass(frozen=True, slots=True)
class Given:
    """A secret or config as the container sees it: the file ``target``."""

    source: Noun
    target: Path
    uid: Count = 0
    gid: Count = 0
    mode: Annotated[int, Range(0, 0o7777)] = 0o444


@dataclass(frozen=True, slots=True)
class Health:
    """How to ask a container whether it is well: ``test`` as compose has it, "CMD" or "CMD-SHELL" first.

    Each time costs the board a process or two, so it is not asked more often than each second.
    """

    test: Words
    interval_ms: Annotated[int, Range(1_000, 86_400_000)] = 30_000
    timeout_ms: Annotated[int, Range(1_000, 86_400_000)] = 30_000
    retries: Annotated[int, Range(1, 1000)] = 3
    start_period_ms: Annotated[int, Range(0, 86_400_000)] = 0


@dataclass(frozen=True, slots=True)
class Dependency:
    """What must hold of another service of the app before this one starts."""

    service: Noun
    condition: Literal["started", "healthy", "completed"] = "started"
    required: bool = True
    restart: bool = False  # start this one again when that one is replaced


@dataclass(frozen=True, slots=True)
class Restart:
    """What the agent does when a container ends.  ``max_attempts`` 0: without end, ever slower."""

    condition: Literal["none", "on-failure", "any"] = "any"
    delay_ms: Annotated[int, Range(0, 86_400_000)] = 5_000
    max_attempts: Annotated[int, Range(0, 1_000_000)] = 0
    window_ms: Annotated[int, Range(0, 86_400_000)] = 0


@dataclass(frozen=True, slots=True)
class Update:
    """How a new version takes the place of the old one.  ``monitor_ms``: how long one without a
    healthcheck must stay up; ``on_failure`` "continue" keeps what failed."""

    order: Literal["stop-first", "start-first"] = "stop-first"
    monitor_ms: Annotated[int, Range(0, 3_600_000)] = 5_000
    on_failure: Literal["rollback", "pause", "continue"] = "rollback"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may take, and what must be free for it to be admitted (``reserve_*``)."""

    cpu_milli: Count = 0
    memory_bytes: Count = 0
    pids: Count = 0
    reserve_cpu_milli: Count = 0
    reserve_memory_bytes: Count = 0
    shm_bytes: Count = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the board that the container gets."""

    host: Path
    container: Path
    permissions: Annotated[str, Match(r"[rwm]{1,3}", "some of r, w and m")] = "rwm"


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit, as in setrlimit(2); -1 is none."""

    name: Annotated[str, Match(r"[a-z]{1,16}", "the name of a limit, such as nofile")]
    soft: Annotated[int, Range(-1, 2**53)]
    hard: Annotated[int, Range(-1, 2**53)]


# --- an app --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Service:
    """``replicas`` containers of one image that are made alike.

    ``written`` is the image as the recipe has it, ``image_bytes`` what its registry has of it, compressed
    (0: not known).  ``network_mode`` and ``pid`` may be "service:<name>".  ``restarted`` counts the times
    that somebody asked for a restart: a higher number makes new containers of the same kind.
    """

    name: Noun
    image: Pinned
    written: Text = ""
    image_bytes: Count = 0
    replicas: Annotated[int, Range(0, 64)] = 1
    restarted: Count = 0
    pull: Literal["missing", "always", "never"] = "missing"
    entrypoint: Words | None = None
    command: Words | None = None
    environment: Pairs = field(default_factory=dict)
    labels: Pairs = field(default_factory=dict)
    annotations: Pairs = field(default_factory=dict)
    user: Text = ""
    working_dir: Annotated[str, Length(0, 4096)] = ""
    hostname: Text = ""
    networks: Annotated[tuple[Attachment, ...], Length(0, 32)] = ()
    network_mode: Annotated[
        str, Match(r"(none|host|service:[A-Za-z0-9][A-Za-z0-9_.-]{0,127})?", "a mode")
    ] = ""
    pid: Annotated[str, Match(r"(host|service:[A-Za-z0-9][A-Za-z0-9_.-]{0,127})?", "a mode")] = ""
    ports: Annotated[tuple[Port, ...], Length(0, 256)] = ()
    mounts: Annotated[tuple[Mount, ...], Length(0, 128)] = ()
    secrets: Annotated[tuple[Given, ...], Length(0, 64)] = ()
    configs: Annotated[tuple[Given, ...], Length(0, 64)] = ()
    health: Health | None = None
    no_health: bool = False  # the image's own check is switched off
    depends_on: Annotated[tuple[Dependency, ...], Length(0, 64)] = ()
    restart: Restart = field(default_factory=Restart)
    update: Update = field(default_factory=Update)
    limits: Limits = field(default_factory=Limits)
    stop_signal: Text = ""
    stop_grace_ms: Annotated[int, Range(0, 86_400_000)] = 10_000
    devices: Annotated[tuple[Device, ...], Length(0, 64)] = ()
    group_add: Names = ()
    cap_add: Names = ()
    cap_drop: Names = ()
    security_opt: Names = ()
    sysctls: Pairs = field(default_factory=dict)
    ulimits: Annotated[tuple[Ulimit, ...], Length(0, 32)] = ()
    extra_hosts: Names = ()  # "name:address"
    dns: Names = ()
    dns_search: Names = ()
    dns_options: Names = ()
    init: bool = False
    read_only: bool = False
    tty: bool = False
    open_stdin: bool = False
    privileged: bool = False
    oom_score_adj: Annotated[int, Range(-1000, 1000)] | None = None
    log_max_bytes: Annotated[int, Range(4096, MAX_LOG_BYTES)] = 5_000_000
    log_driver: Literal["k8s-file", "journald", "none"] = "k8s-file"


@dataclass(frozen=True, slots=True)
class Network:
    """``name`` is the full one.  A ``shared`` one (external in the recipe) is made when the first app
    needs it, and goes with the last."""

    name: Noun
    internal: bool = False
    shared: bool = False
    ipv6: bool = False
    subnet: Text = ""
    gateway: Text = ""
    labels: Pairs = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Volume:
    """``name`` is the full one.  What is in it stays until somebody asks that it goes.
    An ``external`` one must be there."""

    name: Noun
    external: bool = False
    driver_options: Pairs = field(default_factory=dict)
    labels: Pairs = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Secret:
    """A sealed secret; same ``name`` and ``version``, same content."""

    name: Noun
    version: Annotated[str, Match(r"[a-z0-9]{1,32}", "lower-case letters and digits")]
    box: Annotated[str, Length(1, 1024 * 1024)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """A file: its ``content``, or a ``box`` of it where it contains a secret."""

    name: Noun
    version: Annotated[str, Match(r"[a-z0-9]{1,64}", "lower-case letters and digits")]
    content: Annotated[str, Length(0, MAX_FILE_BYTES)] = ""
    box: Annotated[str, Length(0, 1024 * 1024)] = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """A user of a registry (its host and port), and the sealed password."""

    registry: Annotated[str, Length(1, 255)]
    user: Text
    box: Annotated[str, Length(1, 16384)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class App:
    """The manifest of one app.

    ``revision`` counts its deployments at the hub: what failed is tried again when that is higher.
    ``stopped``: everything stays, nothing runs.  ``purge``: of an app that is to go, its volumes go
    too; it then has no services.  ``timeout_ms`` bounds an update from the first step to healthy.
    """

    name: AppName
    revision: Annotated[int, Range(1, 2**53)]
    version: Text = ""
    services: Annotated[tuple[Service, ...], Length(0, 64)] = ()
    networks: Annotated[tuple[Network, ...], Length(0, 32)] = ()
    volumes: Annotated[tuple[Volume, ...], Length(0, 128)] = ()
    secrets: Annotated[tuple[Secret, ...], Length(0, 128)] = ()
    configs: Annotated[tuple[Config, ...], Length(0, 128)] = ()
    logins: Annotated[tuple[Login, ...], Length(0, 16)] = ()
    stopped: bool = False
    purge: bool = False
    timeout_ms: Annotated[int, Range(1_000, 86_400_000)] = 300_000
    windows: Annotated[tuple[Clockwise, ...], Length(0, 16)] = ()  # when an update may begin; none: always


@dataclass(frozen=True, slots=True)
class Order:
    """``down/order``: the whole desired state of one board; a higher ``generation`` replaces a lower one."""

    board: str
    generation: Annotated[int, Range(1, 2**53)]
    issued_ms: Millis
    apps: Annotated[tuple[App, ...], Length(0, 64)] = ()
