"""What ``lichen-agent usage ...`` does: show the usage log of this board, verify it, export it as a folder.

Called by `agent.commandline`.  It looks at the files on its own, beside a running agent or without one, and
needs no network; a folder that was copied from anywhere is verified on any machine.  It changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.base import logfolder
from agent.base.files import make_directory, understood, write_file
from agent.base.logfolder import KEYS, Keys, keys_text, parse_keys, read_keys
from agent.commands import say
from agent.config import Config
from agent.identity import recognise
from agent.usage.peek import Peek, export, peek
from agent.wire import words
from agent.wire.cosignature import CosignatureVerifier
from agent.wire.errors import ConfigError, LichenError, Refused
from agent.wire.note import Signer, Verifier, split_note
from agent.wire.plain import dumps
from agent.wire.tiles import CHECKPOINT
from agent.wire.usage import Other, read
from agent.wire.usage_words import COLUMNS, cells

FOLDER = "usage"
READABLE = 0o755


async def show_usage(config: Config, *, last: int, app: str, epoch: str, as_json: bool) -> None:
    """Print the newest records: in a table, or as JSON in lines, each exactly as it was logged."""
    with closing(_open(config, epoch)) as log:
        found = list(_newest(log, last, app))
        if as_json:
            for _, entry in found:
                say(entry.decode())
            return
        if not found:
            say("No records" + (f" of {app}." if app else "."))
            return
        rows: list[tuple[str, ...]] = [("record", "until", *COLUMNS)]
        rows += [(str(index), *_row(entry)) for index, entry in found]
        for line in _table(rows):
            say(line)
        say(_standing(log))


async def verify_own(config: Config, *, epoch: str, log_key: str, hub_key: str, as_json: bool) -> None:
    """Verify the log of this board, as it lies on its disk.  Raises Corrupt, Refused."""
    with closing(_open(config, epoch)) as log:
        next(log.files())  # tells when nothing is signed yet
        keys = parse_keys(log_key, hub_key) if log_key else _own_keys(config, log.origin)
        found = logfolder.check(log.fetch, keys)
        if as_json:
            return say(dumps(logfolder.as_json(found, keys) | {"unsigned": log.size - log.signed}).decode())
        for line in logfolder.report_of(found, keys):
            say(line)
        if log.size > log.signed:
            say(f"unsigned    {log.size - log.signed} records later than that")


def verify_folder(folder: Path, *, log_key: str, hub_key: str, as_json: bool) -> None:
    """Verify a copy of a log.  Raises Corrupt, Refused, ConfigError."""
    if hub_key and not log_key:
        raise ConfigError("a hub key alone says nothing about the board", hint="add --log-key")
    fetch = logfolder.files_of(folder)
    keys = parse_keys(log_key, hub_key) if log_key else read_keys(folder)
    found = logfolder.check(fetch, keys)
    if as_json:
        return say(dumps(logfolder.as_json(found, keys)).decode())
    for line in logfolder.report_of(found, keys, own_keys=not log_key):
        say(line)


async def export_usage(config: Config, folder: Path, *, epoch: str) -> None:
    """Write the log into a folder.  Raises ConfigError, Refused."""
    with closing(_open(config, epoch)) as log:
        next(log.files())
        keys = _own_keys(config, log.origin)
        _make_way(folder, log.origin)
        try:
            count = export(log, folder)
        except OSError as error:
            raise understood(folder, error) from error
        write_file(folder / KEYS, keys_text(keys).encode(), 0o644)
        say(f"{log.signed} records of {log.origin} are in {folder}: {count + 1} files")
        say(f"Next: lichen-agent usage verify {folder}")


# --- which log, which keys -------------------------------------------------------------------------


def _open(config: Config, epoch: str) -> Peek:
    return peek(config.state_dir / FOLDER, epoch)


def _own_keys(config: Config, origin: str) -> Keys:
    """The key of this board, under the name by which it signs, and that of the hub that it has joined."""
    path = config.state_dir / "log.key"
    try:
        public_key = Signer.parse(path.read_text("ascii").strip()).public_key
    except (OSError, ValueError, LichenError) as error:
        raise ConfigError(
            f"{path}, the key of this board, cannot be read: {error}",
            hint="run this with sudo, or name the key with --log-key",
        ) from error
    known = recognise(config.state_dir)
    hub = CosignatureVerifier.of(Verifier.parse(known[1].keys.receipt)) if known else None
    return Keys(Verifier(origin, public_key), hub)


def _make_way(folder: Path, origin: str) -> None:
    """A folder that is new, empty, or holds an older export of this log.  Raises ConfigError."""
    make_directory(folder, READABLE)
    if not any(folder.iterdir()):
        return
    try:
        text = split_note((folder / CHECKPOINT).read_bytes())[0]
    except (OSError, Refused):
        text = ""
    if text.partition("\n")[0] != origin:
        raise ConfigError(
            f"{folder} has something else in it",
            hint="name a new folder, or one with an older export of this log",
        )


# --- for people ------------------------------------------------------------------------------------


def _newest(log: Peek, last: int, app: str) -> Iterator[tuple[int, bytes]]:
    """The last entries, of one app or of all."""
    if not app:
        yield from log.entries(max(log.held_from, log.size - last), log.size)
        return
    wanted = b'"app":' + dumps(app)
    each = log.entries(log.held_from, log.size)
    yield from deque(((index, entry) for index, entry in each if wanted in entry), last)


def _row(entry: bytes) -> Sequence[str]:
    record = read(entry)
    if isinstance(record, Other):
        return ("", record.type)
    values: Mapping[str, Any] = asdict(record)
    doubt = "" if record.clock != "unsynced" else " (clock not set)"
    return (words.utc(record.wall1_ms) + doubt, *map(words.plain, cells(values)))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as what is in them; those without anything are left out."""
    count = max(map(len, rows))
    full = [(*row, *[""] * (count - len(row))) for row in rows]
    wide = [max(len(row[at]) for row in full) for at in range(count)]
    used = [at for at in range(count) if at == count - 1 or any(row[at] for row in full[1:])]
    for row in full:
        yield "  ".join(row[at].ljust(wide[at]) for at in used).rstrip()


def _standing(log: Peek) -> str:
    """How far the log is signed, in a sentence."""
    if not log.checkpoint:
        return f"{log.origin}: {log.size} records, none signed before the hub has been heard"
    return f"{log.origin}: {log.size} records, {log.signed} of them signed"
