"""A hub in one file, and back: `lichen-hub backup` and `lichen-hub restore`.

Owns what is in a backup and what has to hold after a restore; how the file is sealed is the
business of `hub.access.sealed`.  Inside is a tar stream of about.json, hub.toml, keys/, ca/ and
hub.db, nothing else: the broker's configuration is written at each start, and its database must
not come back, as its acknowledgements would be those of another time.

The copy of the database is one moment of it, taken while the hub goes on writing (VACUUM INTO
reads under one snapshot).  For that time it needs room for a second one beside the first.

After a restore boards know more than their hub.  So the number of the hub document jumps to the
seconds since 1970, which no document that was signed before has reached; whatever could let
somebody in (join tokens, sessions, login links, API tokens) has ended, because it may have been
revoked since; and readings that were acknowledged and are gone show as a gap, as boards tell
which they no longer have.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO, cast

from agent.base.files import make_directory
from agent.base.lock import held
from agent.wire.decode import Length, Range, decode_json
from agent.wire.errors import ConfigError, Corrupt, LichenError, Refused
from agent.wire.plain import dumps
from hub import config as configuration
from hub.access.keys import DOCUMENT_NUMBER, Keyring, read_document
from hub.access.sealed import Opener, Sealer
from hub.config import Directory
from hub.fleet.announcement import ANNOUNCED
from hub.store import accounts, boards, events, facts, orders, placements, readers, tokens
from hub.store.database import Store, Tx, copy_database

ABOUT = "about.json"
DATABASE = "hub.db"
NAMES = re.compile(
    r"about\.json|hub\.toml|hub\.db|keys/(root|order|receipt|time|command|release|vault)\.key|keys/hub\.note"
    r"|ca/(ca|server|crl)\.(pem|key|toml|serials)"
)
NEEDED = ("hub.toml", "hub.db", "keys/root.key", "ca/ca.pem", "ca/ca.key")
MAX_ABOUT = 4096
BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class About:
    """What a backup says of itself: of which hub, made when, by which version."""

    hub: Annotated[str, Length(1, 64)]
    name: Annotated[str, Length(0, 256)]
    made_ms: Annotated[int, Range(0, 2**53)]
    version: Annotated[str, Length(1, 64)]


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and what ended by it; ``boards`` are the names of those that it knows."""

    about: About
    boards: tuple[str, ...]
    revoked: tuple[str, ...]
    join_tokens: int
    credentials: int


# --- backup ---------------------------------------------------------------------------------------


async def backup(directory: Directory, file: Path, passphrase: str) -> int:
    """Write a backup of the hub in ``directory``, which may run; returns its size in bytes.

    Raises ConfigError when ``file`` is there already or cannot be written, Refused ("disk-full"),
    Busy when another backup is being made.
    """
    if file.exists():
        raise ConfigError(f"{file} exists already", hint="choose another name, or remove it first")
    config = configuration.load(directory)
    keys = Keyring.load(directory.keys)
    about = About(keys.hub, config.name, _now_ms(), version("lichen"))
    with held(directory.path / "backup.lock", "a backup"):
        copying = make_directory(directory.path / ".backup")
        try:
            copy = copying / DATABASE
            copy.unlink(missing_ok=True)  # of one that was killed
            await copy_database(directory.database, copy)
            return await asyncio.to_thread(_seal, directory, copy, about, file, passphrase)
        finally:
            shutil.rmtree(copying)


def _seal(directory: Directory, database: Path, about: About, file: Path, passphrase: str) -> int:
    temporary = file.with_name(f".{file.name}.new")
    try:
        with _created(temporary) as raw:
            _pack(directory, database, about, raw, passphrase)
            raw.flush()
            os.fsync(raw.fileno())
            size = raw.tell()
        temporary.rename(file)
    except OSError as error:
        raise _unwritten(file, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _pack(directory: Directory, database: Path, about: About, raw: BinaryIO, passphrase: str) -> None:
    with (
        Sealer(raw, passphrase) as sealer,
        # A cast, because the stubs ask for more than the stream form of tarfile uses.
        tarfile.open(mode="w|", fileobj=cast("BinaryIO", sealer), bufsize=BLOCK) as tar,
    ):
        _add_bytes(tar, ABOUT, dumps(about))
        for path in _files(directory):
            tar.add(path, str(path.relative_to(directory.path)))
        tar.add(database, DATABASE)


def _files(directory: Directory) -> list[Path]:
    """The small files of a hub, by what `NAMES` lets back in."""
    found = [directory.config, *sorted(directory.keys.iterdir()), *sorted(directory.ca.iterdir())]
    return [path for path in found if NAMES.fullmatch(str(path.relative_to(directory.path)))]


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, BytesIO(data))


# --- restore ----------------------------------------------------------------------------------------


async def restore(file: Path, directory: Directory, passphrase: str, revoke: Sequence[str] = ()) -> Restored:
    """Make the hub of a backup in ``directory``, which must be empty or not there.

    ``revoke`` are boards, by id or name, to revoke as well.  Nothing is left behind when it
    fails.  Raises ConfigError (the directory, the file), Refused (no backup, wrong passphrase,
    unknown board) and Corrupt (damaged).
    """
    if directory.path.is_dir() and any(directory.path.iterdir()):
        raise ConfigError(
            f"{directory.path} is not empty", hint="restore into a new directory, then look at both"
        )
    making = Directory(directory.path.with_name(f".{directory.path.name}.restoring"))
    shutil.rmtree(making.path, ignore_errors=True)  # of one that was killed
    try:
        about = await asyncio.to_thread(_unpack, file, making, passphrase)
        restored = await _make_good(making, about, revoke)
        make_directory(directory.path)
        making.path.rename(directory.path)
    except OSError as error:
        raise _unwritten(directory.path, error) from error
    finally:
        shutil.rmtree(making.path, ignore_errors=True)
    return restored


def _unpack(file: Path, into: Directory, passphrase: str) -> About:
    try:
        raw = file.open("rb")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    with raw:
        opener = Opener(raw, passphrase)
        for folder in (into.path, into.keys, into.ca, into.broker):
            make_directory(folder)
        about = None
        try:
            with tarfile.open(mode="r|", fileobj=cast("BinaryIO", opener), bufsize=BLOCK) as tar:
                for member in tar:
                    data = tar.extractfile(member) if member.isreg() else None
                    if data is None or not NAMES.fullmatch(member.name):
                        raise Corrupt(f"the backup holds {member.name[:64]!r}, which is no part of a hub")
                    if member.name == ABOUT:
                        about = decode_json(About, data.read(MAX_ABOUT), max_bytes=MAX_ABOUT)
                        continue
                    with _created(into.path / member.name) as out:
                        shutil.copyfileobj(data, out, BLOCK)
                        os.fsync(out.fileno())
        except tarfile.TarError as error:
            raise Corrupt(f"the backup cannot be unpacked: {error}") from error
        opener.finish()
    missing = [name for name in NEEDED if not (into.path / name).exists()]
    if about is None or missing:
        raise Corrupt(f"the backup lacks {missing[0] if missing else ABOUT}", hint="use another one")
    return about


async def _make_good(directory: Directory, about: About, revoke: Sequence[str]) -> Restored:
    """What has to hold after a restore; see the module."""
    configuration.load(directory)
    keys = Keyring.load(directory.keys)
    if keys.hub != about.hub:
        raise Corrupt(f"the backup says that it is of hub {about.hub}, and its keys are of {keys.hub}")
    last = read_document(directory.keys, keys)
    now_ms = _now_ms()
    async with Store.open(directory.database) as store, store.write() as tx:
        number = max(await facts.read_fact(tx, DOCUMENT_NUMBER), last.number if last else 0)
        await facts.write_fact(tx, DOCUMENT_NUMBER, max(number, now_ms // 1000))
        await facts.write_fact(tx, ANNOUNCED, 0)
        revoked = await _revoke(tx, revoke, now_ms)
        join_tokens = await tokens.revoke_open(tx, now_ms)
        credentials = await accounts.end_credentials(tx, ("session", "link", "token"))
        credentials += await readers.remove_readers(tx)
        await boards.all_offline(tx)
        # Boards may have seen higher generations: they say so, and then theirs are made anew.
        await orders.forget_published(tx)
        text = f"restored from a backup that was {(now_ms - about.made_ms) // 3_600_000} h old"
        await events.add_event(tx, at_ms=now_ms, kind="restored", text=text)
        known = await boards.list_names(tx)
    # Without it the next start signs a document with a new number, whatever it says.
    (directory.keys / "hub.note").unlink(missing_ok=True)
    return Restored(about, tuple(known), revoked, join_tokens, credentials)


async def _revoke(tx: Tx, wanted: Sequence[str], now_ms: int) -> tuple[str, ...]:
    names = []
    for id_or_name in wanted:
        row = await boards.get_board(tx, id_or_name)
        if await boards.revoke_board(tx, row.id, now_ms):
            await placements.drop_board(tx, row.id, now_ms)
            await events.add_event(
                tx, at_ms=now_ms, kind="revoked", text="revoked at the restore", board=row.id
            )
        names.append(row.name)
    return tuple(names)


# ---------------------------------------------------------------------------------------------------


def _created(path: Path) -> BinaryIO:
    """A new file that only its owner can read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _unwritten(path: Path, error: OSError) -> LichenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(
            f"{path} cannot be written: the disk is full", code="disk-full", hint="make room, then try again"
        )
    return ConfigError(f"{path} cannot be written: {error.strerror or error}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
