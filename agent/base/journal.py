"""Where log records go: to systemd's journal with their fields, or to stderr as key=value.

Called once by each process before anything else.  Everybody logs through the standard library
with a constant message and fields: ``log.info("board joined", extra={"board": id})``.  It never
decides what is worth a record.

The journal is spoken to natively (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram a record,
fields in upper case, so ``journalctl BOARD=k3yd5q7c2n4xw6ba`` finds what concerns a board.

>>> record = logging.LogRecord("agent.link", logging.INFO, "link.py", 7, "link is up", None, None)
>>> record.broker = "hub.example:8422"
>>> record.created = 0.0
>>> KeyValue().format(record)
'time=1970-01-01T00:00:00.000Z level=info from=agent.link message="link is up" broker=hub.example:8422'
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from agent.wire.errors import ConfigError

JOURNAL = Path("/run/systemd/journal/socket")
LEVELS = ("debug", "info", "warning", "error")

# What every record has; the rest came from ``extra`` and is a field.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"=\\]+", re.ASCII)


def setup(level: str = "info") -> None:
    """Send the records of this process, and Python's warnings, to the journal or to stderr.

    Raises ConfigError when ``level`` is not one of LEVELS.
    """
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r} is not one of {', '.join(LEVELS)}")
    handler: logging.Handler
    if _stderr_is_the_journal():
        handler = Journal(JOURNAL)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(KeyValue())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


class KeyValue(logging.Formatter):
    """One line a record, ``key=value``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line (or lines) of ``record``, without a newline at the end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        pairs = [
            ("time", at.replace("+00:00", "Z")),
            ("level", record.levelname.lower()),
            ("from", record.name),
            ("message", record.getMessage()),
            *_fields(record),
        ]
        line = " ".join(f"{key}={_quoted(value)}" for key, value in pairs)
        return "\n    ".join([line, *_traceback(record).splitlines()])


class Journal(logging.Handler):
    """Writes records to journald's socket; to stderr when it does not take one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._plain = KeyValue()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self._socket.sendto(datagram(record), self._path)
        except OSError:
            # journald restarts, or the record is too long for a datagram: stderr is a pipe to it too.
            print(self._plain.format(record), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def datagram(record: logging.LogRecord) -> bytes:
    """A record in journald's native form."""
    trace = _traceback(record)
    entry = {
        "MESSAGE": record.getMessage() + (f"\n{trace}" if trace else ""),
        "PRIORITY": str(_priority(record.levelno)),
        "SYSLOG_IDENTIFIER": Path(sys.argv[0]).name,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    for key, value in _fields(record):
        entry.setdefault(_field_name(key), str(value))
    return b"".join(_encoded(key, value.encode(errors="replace")) for key, value in entry.items())


def _encoded(key: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (key.encode(), value)
    return b"%s\n%s%s\n" % (key.encode(), len(value).to_bytes(8, "little"), value)


def _field_name(key: str) -> str:
    # Only A-Z, 0-9 and _, at most 64, no _ at the start: journald drops others silently.
    return re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64] or "FIELD"


def _priority(level: int) -> int:
    """The syslog priority (syslog(3)) of a logging level."""
    lowest = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for bound, priority in lowest if level >= bound), 7)


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    return ((key, value) for key, value in vars(record).items() if key not in _STANDARD)


def _traceback(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(logging.Formatter().formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _quoted(value: object) -> str:
    text = str(value)
    if not text.isprintable():
        return json.dumps(text)  # what a stranger sent must not speak to the terminal
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _stderr_is_the_journal() -> bool:
    """Whether systemd connected stderr to the journal (systemd.exec(5), $JOURNAL_STREAM).

    The variable alone proves nothing: a child whose stderr was redirected inherits it too.
    """
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (device, inode) == (str(stderr.st_dev), str(stderr.st_ino))
