"""A copy of a usage log as a folder: the keys that it is checked with, its files, and what a check found.

The files are those of `agent.wire.audit`.  Beside them may lie ``keys.toml``:

    # Public keys: of the board's log, and of its hub's receipts.
    log_key = "euy4m2mbqmjm2npt/usage/abcdefghijklmnop+2bb0581c+AcBo..."
    hub_key = "hitq4og4jcuc6imk/receipt+b7567d05+BMnY..."

Whoever made the folder wrote that file, too.  It says with which keys the log is consistent; whether they
are the right ones is for the reader to know, or to ask: so the ids that follow from them are told.

Called by ``lichen-agent usage`` and ``lichen usage``.  It repairs and writes nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.wire import words
from agent.wire.audit import Audit, Fetch, audit
from agent.wire.cosignature import CosignatureVerifier
from agent.wire.decode import decode
from agent.wire.errors import ConfigError, Corrupt, LichenError, Refused
from agent.wire.note import Verifier, party_id
from agent.wire.tiles import CHECKPOINT, MAX_BUNDLE

KEYS = "keys.toml"
HEAD = "# Public keys: of the board's log, and of its hub's receipts.\n"
TRUSTED = "name keys that you trust with --log-key and --hub-key"


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys of a log; without ``hub`` receipts cannot be checked."""

    log: Verifier
    hub: CosignatureVerifier | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """``keys.toml``."""

    log_key: str
    hub_key: str = ""


# --- keys ------------------------------------------------------------------------------------------


def parse_keys(log_key: str, hub_key: str = "") -> Keys:
    """The keys in their text forms (c2sp.org/signed-note); the hub's as a signer or as a witness.

    Raises ConfigError.
    """
    try:
        log = Verifier.parse(log_key.strip())
    except Refused as error:
        raise ConfigError(f"the log key cannot be used: {error}", hint=error.hint) from error
    return Keys(log, _hub_key(hub_key.strip()) if hub_key.strip() else None)


def _hub_key(text: str) -> CosignatureVerifier:
    try:
        return CosignatureVerifier.parse(text)
    except Refused as error:
        try:
            return CosignatureVerifier.of(Verifier.parse(text))
        except Refused:
            raise ConfigError(f"the hub key cannot be used: {error}", hint=error.hint) from error


def keys_text(keys: Keys) -> str:
    """The file ``keys.toml``."""
    hub = f'hub_key = "{keys.hub.vkey}"\n' if keys.hub else ""
    return f'{HEAD}log_key = "{keys.log.vkey}"\n{hub}'


def read_keys(folder: Path) -> Keys:
    """The keys that lie in a folder.

    Raises ConfigError when there are none, Corrupt when the file is not as `keys_text` writes it: one changed
    byte in a folder is to be seen, wherever it is.
    """
    data = _read(folder / KEYS)
    if data is None:
        raise ConfigError(
            f"there is no {KEYS} in {folder}",
            hint="name the board's key with --log-key, and its hub's with --hub-key",
        )
    try:
        text = data.decode()
        file = decode(_File, tomllib.loads(text), strict=True)
        keys = parse_keys(file.log_key, file.hub_key)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, LichenError) as error:
        raise Corrupt(f"{KEYS}: {error}", hint=TRUSTED) from error
    if keys_text(keys) != text:
        raise Corrupt(f"{KEYS}: it is not as it was written", hint=TRUSTED)
    return keys


# --- files -----------------------------------------------------------------------------------------


def files_of(folder: Path) -> Fetch:
    """The files of the log in a folder.  Raises ConfigError when there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="a log is a folder, the one with `checkpoint` in it")
    if not (folder / CHECKPOINT).exists():
        raise ConfigError(
            f"there is no usage log in {folder}", hint="it is the folder with `checkpoint` in it"
        )
    return lambda path: _read(folder / path)


def _read(path: Path) -> bytes | None:
    """A file of a log, of which none is larger than a bundle.  Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BUNDLE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


# --- the check -------------------------------------------------------------------------------------


def check(fetch: Fetch, keys: Keys) -> Audit:
    """The whole check.  Raises Corrupt, or Refused, with the place."""
    return audit(fetch, keys.log, keys.hub)


def report_of(found: Audit, keys: Keys, *, own_keys: bool = False) -> Iterator[str]:
    """What was verified, in lines.  ``own_keys``: they came with the log."""
    yield f"log         {found.checkpoint.origin}"
    first = f", from record {found.first_entry} on" if found.first_entry else ""
    yield f"records     {found.entries} good{first}"
    for hole in found.holes:
        yield f"hole        {hole.count} records from {hole.first} on: {words.plain(hole.reason)}"
    root = found.checkpoint.root.hex()
    yield f"checkpoint  size {found.checkpoint.size}, root {root[:16]}, signed by board {found.board}"
    yield f"receipt     {_receipt(found, keys)}"
    if own_keys:
        yield f"keys        those in its {KEYS}: compare them with what you know of board and hub"


def _receipt(found: Audit, keys: Keys) -> str:
    if keys.hub is None:
        return "not checked, as no key of the hub is known"
    if found.receipt_size is None or found.receipt_at_s is None:
        return "none"
    behind = found.checkpoint.size - found.receipt_size
    rest = f"; {behind} records later than that" if behind else ""
    return f"size {found.receipt_size}, by {keys.hub.name} at {words.utc(found.receipt_at_s * 1000)}{rest}"


def as_json(found: Audit, keys: Keys) -> dict[str, object]:
    """The same for programs."""
    receipted = found.receipt_size is not None
    return {
        "origin": found.checkpoint.origin,
        "board": found.board,
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
        "records": found.entries,
        "first": found.first_entry,
        "holes": [{"first": hole.first, "count": hole.count, "reason": hole.reason} for hole in found.holes],
        "receipt": {"size": found.receipt_size, "at_s": found.receipt_at_s} if receipted else None,
        "log_key": keys.log.vkey,
        "hub_key": keys.hub.vkey if keys.hub else None,
        "hub": keys.hub.name.partition("/")[0] if keys.hub else None,
        "key_of": party_id(keys.log.public_key),
    }
