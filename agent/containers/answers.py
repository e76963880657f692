"""What Podman's API says, read: containers, images, pulls, logs, and the reasons of a refusal.

Pure functions, called by `agent.containers.podman` in its threads.  They know what was measured of
Podman 4.3 and what the documents of 5 say: where the two differ, both are understood here, and nobody
else has to know.

>>> refusal("starting web", 500, "listen tcp4 :8080: bind: address already in use")
Refused('starting web: port 8080/tcp is taken by another program')
>>> read_time("2026-11-28T21:26:39.007852627Z"), read_time("0001-01-01T00:00:00Z")
(1795901199007, None)
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.containers.engine import Container, ContainerPhase, Image, Info, Thing
from agent.wire.apps import LogLine, Progress
from agent.wire.errors import LichenError, LinkDown, Refused

MAX_SAID = 600
"""Characters of what Podman says that go into a message."""
MAX_TEXT = 16_384
"""Characters of a log line (`agent.wire.apps.LogLine`)."""

# --- refusals ------------------------------------------------------------------------------------

# What the message contains: the code.  The status is no help: 4.3 says 500 to nearly everything.
CODES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"address already in use|port is already allocated", "port-taken"),
        (r"no space left on device|disk quota exceeded", "no-space"),
        # 4.3 stumbles over an image that lacks a layer when it is asked for that one.
        (r"layer not known|may be corrupted|nil pointer dereference", "image"),
        (r"(runc|crun) start \S+ failed", "broken"),
        (r"no (defined )?healthcheck", "no-check"),
        # "state improper" is what 4.3 says of a start when a removal was cut.
        (r"is not running|improper state|state improper|not in running state", "not-running"),
        (r"subnet .* already used", "in-use"),
        (r"already (exists|in use|used|connected)|name in use", "exists"),
        (r"being used|in use by|associated containers", "in-use"),
        (r"no such|not found|not known|unable to find", "not-found"),
        (r"permission denied|operation not permitted", "denied"),
    )
)
PORT = re.compile(r"(tcp|udp|sctp)[46]?[^:]* (?:\S*):(\d{1,5}): bind", re.IGNORECASE)

# The same of what a registry says in a pull.
PULL_CODES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"no space left on device|disk quota exceeded", "no-space"),
        (r"unauthorized|authentication required|denied|invalid username/password", "denied"),
        (r"(status:|registry) 40[13]", "denied"),
        (r"server gave HTTP response to HTTPS client", "plain-http"),
        (r"manifest unknown|name unknown|not found|no image found|digest", "image"),
        (r"refused|no such host|time-?out|unreachable|no route|reset by peer|EOF|TLS|x509", "registry"),
        (r"server misbehaving|temporary failure|(status:|registry) 5\d\d", "registry"),
        (r"toomanyrequests|too many requests", "registry"),
    )
)
# Where in Podman it went wrong, before what went wrong; the name of a file there is another one each time.
PULL_NOISE = re.compile(
    r"^(?:initializing source|copying system image from manifest list:) ?\S*: "
    r"|(?:writing blob: )?storing blob to file \"[^\"]*\": (?:happened during read: )?"
)


def refusal(what: str, status: int, text: str) -> Refused:
    """The error of an answer with this status; ``what`` was being done."""
    said = _message(text)
    code = next((code for pattern, code in CODES if pattern.search(said)), "")
    if code == "port-taken" and (found := PORT.search(said)):
        reason = f"{what}: port {found[2]}/{found[1].lower()} is taken by another program"
        return Refused(reason, code=code, hint="ss -lntup shows by which")
    if not code:
        code = "not-found" if status == 404 else "engine"
    return Refused(f"{what}: {said[:MAX_SAID] or f'Podman answered {status}'}", code=code)


def pull_failure(reference: str, said: str) -> LichenError:
    """The error of a pull that was told ``said``."""
    reason = f"{reference} cannot be had: {PULL_NOISE.sub('', said)[:MAX_SAID]}"
    code = next((code for pattern, code in PULL_CODES if pattern.search(said)), "image")
    if code == "registry":
        return LinkDown(reason, code=code)
    if code == "plain-http":
        hint = "a registry without TLS has to be named as such at the hub"
        return Refused(reason, code="image", hint=hint)
    hint = "`lichen registry set` says who the hub is there; then deploy again" if code == "denied" else ""
    return Refused(reason, code=code, hint=hint)


def _message(text: str) -> str:
    """The sentence in an answer that says no."""
    try:
        body = json.loads(text)
    except ValueError:
        return text.strip()
    return str(body.get("message") or body.get("cause") or text) if isinstance(body, dict) else text


# --- pulls ---------------------------------------------------------------------------------------

BEGINS_LAYER = re.compile(r"^Copying blob ")
ENDS_LAYERS = re.compile(r"^(Copying config|Writing manifest) ")


@dataclass
class PullWords:
    """What a pull says, line by line: how far it is, and what went wrong.

    Podman 4.3 names each layer when it begins with it; 5 counts the bytes of each.
    """

    error: str = ""
    _begun: int = 0
    _bytes: dict[str, tuple[int, int]] = field(default_factory=dict)  # by layer: done, of

    def read(self, line: bytes) -> Progress | None:
        """Take one line of the stream; returns the progress that it tells."""
        try:
            said = json.loads(line)
        except ValueError:
            return None
        if not isinstance(said, dict):
            return None
        detail = said.get("errorDetail")
        error = said.get("error") or (detail.get("message") if isinstance(detail, dict) else "")
        if error:
            self.error = str(error)
            return None
        count = said.get("progressDetail")
        if isinstance(count, dict) and count.get("total"):
            self._bytes[str(said.get("id", ""))] = int(count.get("current", 0)), int(count["total"])
            done = sum(done for done, _ in self._bytes.values())
            return Progress(done, sum(total for _, total in self._bytes.values()), "By")
        return self._read_words(str(said.get("stream", "")))

    def _read_words(self, words: str) -> Progress | None:
        if self._bytes:
            return None
        if BEGINS_LAYER.match(words):
            self._begun += 1
            return Progress(self._begun - 1, 0, "layers")
        if ENDS_LAYERS.match(words) and self._begun:
            return Progress(self._begun, self._begun, "layers")
        return None


# --- what there is -------------------------------------------------------------------------------

PHASES: Mapping[str, ContainerPhase] = {
    "configured": "created",
    "created": "created",
    "initialized": "created",
    "running": "running",
    "stopping": "running",
    "paused": "paused",
    "stopped": "ending",
    "exited": "exited",
    "removing": "removing",
}
"""Of Podman's words; whatever else it says is broken."""

VARIANTS = {"armv6l": "v6", "armv7l": "v7"}
"""Of ``uname -m``, where Podman does not say it."""
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def read_info(said: Mapping[str, Any], machine: str) -> Info:
    """`/info`; ``machine`` is what uname says."""
    host, store = said["host"], said["store"]
    return Info(
        version=said["version"]["Version"],
        arch=host["arch"],
        variant=host.get("variant") or VARIANTS.get(machine, ""),
        storage=store["graphRoot"],
        memory_bytes=host["memTotal"],
        rootless=host["security"]["rootless"],
        memory_limits="memory" in (host.get("cgroupControllers") or ()),
        cgroup_manager=host.get("cgroupManager") or "",
    )


def read_container(listed: Mapping[str, Any], inspected: Mapping[str, Any] | None) -> Container:
    """A row of `/containers/json`, and what inspecting it says; None: it could not be inspected."""
    name, labels = (listed.get("Names") or [""])[0], listed.get("Labels") or {}
    if inspected is None:
        image_id, image = listed.get("ImageID") or "", listed.get("Image") or ""
        return Container(listed["Id"], name, labels, "broken", image_id, image)
    state = inspected["State"]
    phase = PHASES.get(state["Status"], "broken")
    networks = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=inspected["Id"],
        name=inspected["Name"],
        labels=labels,
        phase=phase,
        image_id=inspected["Image"],
        image=inspected.get("ImageName") or "",
        pid=state["Pid"] if phase in ("running", "paused") else 0,
        exit_code=state["ExitCode"] if phase in ("ending", "exited") else None,
        oom=bool(state.get("OOMKilled")),
        started_ms=read_time(state.get("StartedAt")),
        finished_ms=read_time(state.get("FinishedAt")) if phase in ("ending", "exited") else None,
        networks={key: value.get("IPAddress") or "" for key, value in networks.items()},
    )


def read_image(said: Mapping[str, Any]) -> Image:
    """`/images/{name}/json`."""
    check = said.get("HealthCheck") or said.get("Healthcheck") or {}
    return Image(
        id=said["Id"],
        names=(*(said.get("RepoTags") or ()), *(said.get("RepoDigests") or ())),
        size_bytes=said.get("Size") or 0,
        architecture=said.get("Architecture") or "",
        has_health=bool(check.get("Test")) and check["Test"] != ["NONE"],
    )


def read_things(said: list[dict[str, Any]]) -> list[Thing]:
    """Networks (names in small letters) or volumes (in capitals)."""
    return [
        Thing(each.get("name") or each["Name"], each.get("labels") or each.get("Labels") or {})
        for each in said
    ]


def read_secret(said: Mapping[str, Any]) -> Thing:
    """A row of `/secrets/json`.  Before 4.5 secrets have no labels; ours are options of their driver."""
    spec = said["Spec"]
    options = (spec.get("Driver") or {}).get("Options") or {}
    ours = {key: value for key, value in options.items() if key.startswith("lichen.")}
    return Thing(spec["Name"], {**(spec.get("Labels") or {}), **ours})


def read_time(text: str | None) -> int | None:
    """Milliseconds since 1970 of RFC 3339 with any number of digits; None of the year 1."""
    found = TIME.fullmatch(text or "")
    if found is None or found[1].startswith("0001-"):
        return None
    moment = dt.datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return int(moment.timestamp()) * 1000 + int(f"{found[2] or '':0<3}"[:3])


# --- logs ----------------------------------------------------------------------------------------

Stream = Literal["stdout", "stderr"]
STREAMS: Mapping[int, Stream] = {0: "stdout", 1: "stdout", 2: "stderr"}
HEADER = 8
MAX_LOG = 1024 * 1024
"""Of memory for the lines of one log.  What is sent of it is far less: `agent.containers.logs`."""
LINE_COST = 200
MAX_FRAME = 128 * 1024
"""Bytes of a line that are looked at: more than MAX_TEXT characters take."""


def read_log(chunks: Iterable[bytes], *, most: int = MAX_LOG) -> list[LogLine]:
    """Lines with their times from the answer of ``/logs?timestamps=true``: the last that fit into ``most``.

    Each line is a frame: a byte for the stream, three of zero, four for the length (as Docker's
    "attach" has it).  A container with a terminal has no frames, only lines.  However much comes, what is
    not to be returned is let go of at once.
    """
    lines: deque[_Line] = deque()
    unfinished: dict[str, _Line] = {}  # by stream: which line goes on
    size = 0
    for stream, text in _frames(_Source(chunks)):
        at_ms, words = _split_time(text.rstrip("\r\n"))
        line = unfinished.pop(stream, None)
        if line is None:
            line = _Line(at_ms, stream, words[:MAX_TEXT])
            lines.append(line)
            size += line.size
        else:
            size -= line.size
            line.text = (line.text + words)[:MAX_TEXT]
            size += line.size
        if not text.endswith("\n"):
            unfinished[stream] = line
        while size > most and len(lines) > 1:
            gone = lines.popleft()
            size -= gone.size
            unfinished = {stream: line for stream, line in unfinished.items() if line is not gone}
    return [LogLine("", line.at_ms, line.stream, line.text) for line in lines]


@dataclass(slots=True)
class _Line:
    at_ms: int | None
    stream: Stream
    text: str

    @property
    def size(self) -> int:
        """What it takes of memory, about."""
        return LINE_COST + len(self.text)


class _Source:
    """Bytes that come in chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk, self._at = b"", 0

    def take(self, size: int, most: int) -> bytes:
        """The next ``size`` bytes, or as many as come; of those only the first ``most``."""
        taken = b""
        while size and (part := self.some(size)):
            size -= len(part)
            taken += part[: most - len(taken)]
        return taken

    def some(self, most: int) -> bytes:
        """The next bytes, not more than ``most``; none at the end."""
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._chunk, self._at = chunk, 0
        part = self._chunk[self._at : self._at + most]
        self._at += len(part)
        return part


def _frames(source: _Source) -> Iterator[tuple[Stream, str]]:
    while head := source.take(HEADER, HEADER):
        kind, size = head[0], int.from_bytes(head[4:], "big")
        if kind not in STREAMS or head[1:4] != b"\0\0\0":
            yield from _plain_lines(head, source)
            return
        if size:
            text = source.take(size - 1, MAX_FRAME) + source.take(1, 1)  # how it ends counts
            yield STREAMS[kind], text.decode(errors="replace")


def _plain_lines(head: bytes, source: _Source) -> Iterator[tuple[Stream, str]]:
    left = head
    while True:
        part = source.some(MAX_FRAME)
        whole, newline, left = (left + part).rpartition(b"\n")
        for line in (whole + newline if part else whole + newline + left).splitlines(keepends=True):
            yield "stdout", line.decode(errors="replace")
        if not part:
            return
        left = left[:MAX_FRAME]


def _split_time(text: str) -> tuple[int | None, str]:
    stamp, _, words = text.partition(" ")
    at_ms = read_time(stamp)
    return (None, text) if at_ms is None else (at_ms, words)
