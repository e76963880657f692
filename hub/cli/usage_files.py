"""`lichen usage verify`, `proof`, `fetch` and `import`: usage logs as files, and what they prove.

A folder or a proof is checked here, with the keys alone: that needs no hub and no login.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.base import logfolder
from agent.base.files import understood, write_file
from agent.base.logfolder import KEYS, Keys, parse_keys, read_keys
from agent.wire import words
from agent.wire.audit import Fetch
from agent.wire.canonical import to_base64
from agent.wire.errors import ConfigError, Corrupt, LichenError, Refused
from agent.wire.note import Verifier, party_id, split_note
from agent.wire.package import MAX_ENTRIES, fitting
from agent.wire.proofs import SUFFIX, ProofFile
from agent.wire.tiles import (
    CHECKPOINT,
    ENTRIES,
    WIDTH,
    Tile,
    bundles_of,
    tile_reader,
    tiles_of,
    unpack_entries,
)
from agent.wire.tlog import Checkpoint, consistency_proof
from agent.wire.usage import split_origin
from hub.cli.client import Hub
from hub.cli.output import print_json, when
from hub.cli.root import asks_hub, json_option

READABLE = 0o644
AT_ONCE = 8
"""Files that are asked for at once."""
PATIENCE_S = 120

log_key_option = click.option(
    "--log-key", default="", metavar="KEY", help="The public key of the board's log."
)
hub_key_option = click.option(
    "--hub-key", default="", metavar="KEY", help="The public key of its hub's receipts."
)
epoch_option = click.option("--epoch", default="", help="Of another than the current epoch of the log.")


# --- verify ----------------------------------------------------------------------------------------


@click.command()
@click.argument("what")
@log_key_option
@hub_key_option
@epoch_option
@json_option
def verify(what: str, log_key: str, hub_key: str, epoch: str, as_json: bool) -> None:
    """Check every record, hash and signature of a usage log.

    WHAT is a folder that was exported, or a .tlog-proof file: no hub is asked then. Or it is a board, whose
    log is fetched from this hub. Without keys those count that come with the log.

    \b
    lichen usage verify pump-07
    lichen usage verify /media/stick/pump-07
    lichen usage verify 7.tlog-proof --log-key KEY --hub-key KEY
    """
    path = Path(what)
    if hub_key and not log_key:
        raise click.UsageError("--hub-key needs --log-key beside it")
    given = parse_keys(log_key, hub_key) if log_key else None
    if path.is_file():
        _verify_proof(path, given, as_json)
    elif path.is_dir():
        _verify_folder(path, given, as_json)
    elif path.exists() or "/" in what or what.endswith(SUFFIX):
        raise ConfigError(f"there is no file or folder {what}", hint="or name a board of this hub")
    else:
        _verify_board(what, epoch, given, as_json)


@asks_hub
async def _verify_board(hub: Hub, board: str, epoch: str, given: Keys | None, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="lichen-usage-") as folder:
        await _fetch(hub, await _log_of(hub, board, epoch), Path(folder))
        await asyncio.to_thread(_verify_folder, Path(folder), given, as_json)


def _verify_folder(folder: Path, given: Keys | None, as_json: bool) -> None:
    fetch = logfolder.files_of(folder)
    keys = given or read_keys(folder)
    found = logfolder.check(fetch, keys)
    if as_json:
        return print_json(logfolder.as_json(found, keys))
    for line in logfolder.report_of(found, keys, own_keys=given is None):
        click.echo(line)


def _verify_proof(path: Path, given: Keys | None, as_json: bool) -> None:
    if given is None:
        raise ConfigError(
            "a proof is checked with keys that you know", hint="name them with --log-key and --hub-key"
        )
    try:
        proof = ProofFile.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    origin = split_note(proof.note)[0].partition("\n")[0]
    board, _ = split_origin(origin)
    if board != party_id(given.log.public_key):
        raise Corrupt(f"the proof is of board {board}, and the key of {party_id(given.log.public_key)}")
    log = Verifier(origin, given.log.public_key)
    proven = proof.verify(None, log, [given.hub] if given.hub else [])
    if as_json:
        return print_json(
            {
                "origin": origin,
                "index": proven.index,
                "size": proven.checkpoint.size,
                "entry": proven.entry.decode("utf-8", "replace"),
                "witnessed": proven.witnessed,
            }
        )
    click.echo(f"log         {origin}")
    click.echo(f"record      {proven.index} of {proven.checkpoint.size}")
    for name, at_s in proven.witnessed.items():
        click.echo(f"receipt     by {name} at {when(at_s * 1000)}")
    if not proven.witnessed:
        click.echo("receipt     not checked, as no key of the hub is known")
    click.echo(words.plain(proven.entry.decode("utf-8", "replace")))


# --- proof and fetch -------------------------------------------------------------------------------


@click.command()
@click.argument("board")
@click.argument("record", type=click.IntRange(0))
@click.option(
    "--size", type=click.IntRange(1), help="Under the checkpoint of this size, as statements name it."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="To this file, not to standard output.")
@epoch_option
@json_option
@asks_hub
async def proof(
    hub: Hub, board: str, record: int, size: int | None, output: Path | None, epoch: str, as_json: bool
) -> None:
    """Write the proof of one RECORD of BOARD, with the record in it: a file of c2sp.org/tlog-proof.

    It is checked with the two keys that are printed beside it, and nothing else.

    \b
    lichen usage proof pump-07 7 -o 7.tlog-proof
    """
    root = _root(await _log_of(hub, board, epoch))
    data = await hub.file(f"{root}/proof/{record}{SUFFIX}", params={"size": size})
    with tempfile.TemporaryDirectory(prefix="lichen-usage-") as folder:
        write_file(Path(folder) / KEYS, await hub.file(f"{root}/{KEYS}"))
        keys = read_keys(Path(folder))
    ProofFile.parse(data).verify(None, keys.log, [keys.hub] if keys.hub else [])
    hub_key = keys.hub.vkey if keys.hub else ""
    if output is not None:
        write_file(output, data, READABLE)
    if as_json:
        return print_json({"proof": data.decode(), "log_key": keys.log.vkey, "hub_key": hub_key})
    if output is None:
        click.echo(data, nl=False)
    click.echo(f"log key  {keys.log.vkey}\nhub key  {hub_key}", err=True)


@click.command()
@click.argument("board")
@click.argument("folder", type=click.Path(path_type=Path))
@epoch_option
@json_option
@asks_hub
async def fetch(hub: Hub, board: str, folder: Path, epoch: str, as_json: bool) -> None:
    """Copy the usage log of BOARD into FOLDER, as files of c2sp.org/tlog-tiles, with the keys.

    \b
    lichen usage fetch pump-07 ./pump-07
    lichen usage verify ./pump-07
    """
    log = await _log_of(hub, board, epoch)
    if folder.exists() and any(folder.iterdir()) and _origin(folder) != log["origin"]:
        raise ConfigError(
            f"{folder} has something else in it", hint="name a new folder, or one with an older copy"
        )
    count = await _fetch(hub, log, folder)
    if as_json:
        return print_json({"origin": log["origin"], "files": count})
    click.echo(f"{count} files of {log['origin']} are in {folder}. Next: lichen usage verify {folder}")


async def _log_of(hub: Hub, board: str, epoch: str) -> dict[str, Any]:
    """The log of an epoch of a board, or its current one.  Raises Refused."""
    logs = await hub.pages("/usage/logs", "logs", params={"board": board})
    for log in logs:
        if log["epoch"] == epoch or (not epoch and log["is_current"]):
            return dict(log)
    raise Refused(
        f"this hub holds no usage log {epoch} of {board}".replace("  ", " "),
        code="not-found",
        hint=f"`lichen usage ls --board {board}` lists them",
    )


def _root(log: dict[str, Any]) -> str:
    return f"/tlog/{log['board']}/{log['epoch']}"


async def _fetch(hub: Hub, log: dict[str, Any], folder: Path) -> int:
    """Copy a log into a folder; how many files it has.  The checkpoint comes last, when all is there."""
    root = _root(log)
    head = await hub.file(f"{root}/{CHECKPOINT}")
    size = Checkpoint.parse(split_note(head)[0]).size
    paths = [tile.path for tile in (*tiles_of(size), *bundles_of(size))]
    files = iter([KEYS, *paths])

    async def some() -> None:
        for path in files:
            try:
                _put(folder / path, await hub.file(f"{root}/{path}"))
            except Refused as error:
                if error.code != "not-found" or "/entries/" not in path:  # of what is lost there is no bundle
                    raise

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(some(), name=f"fetch {number}")
    except* LichenError as errors:
        raise errors.exceptions[0] from None
    _put(folder / CHECKPOINT, head)
    return len(paths) + 2


def _put(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise understood(path, error) from error


def _origin(folder: Path) -> str:
    try:
        return split_note((folder / CHECKPOINT).read_bytes())[0].partition("\n")[0]
    except (OSError, Refused):
        return ""


# --- import ----------------------------------------------------------------------------------------


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@log_key_option
@hub_key_option
@json_option
@asks_hub
async def import_log(hub: Hub, folder: Path, log_key: str, hub_key: str, as_json: bool) -> None:
    """Bring a usage log to this hub that `lichen-agent usage export` wrote into FOLDER.

    For boards without a network. It is checked here, and by the hub as if the board had sent it. What the
    hub has already is left out, so it may be stopped and done again.

    \b
    lichen usage import /media/stick/pump-07
    """
    files = logfolder.files_of(folder)
    keys = parse_keys(log_key, hub_key) if log_key else read_keys(folder)
    found = await asyncio.to_thread(logfolder.check, files, Keys(keys.log))
    log = _Carried(files, found.checkpoint, found.first_entry)
    answer = await _send(hub, log.package(0, 0))
    before = answer["size"]
    while answer["size"] < log.size:
        at = answer["size"]
        package = log.package(at, log.count(at))
        answer = await _send(hub, package)
        if answer["state"] == "behind" and answer["size"] == at:
            answer = await _send(hub, package)  # what does not fit twice is evidence, and is said to be
        if answer["size"] <= at:
            raise Refused(f"the hub took no records from {at} on: {answer['reason'] or answer['state']}")
    if as_json:
        return print_json({**answer, "imported": max(0, answer["size"] - before)})
    imported = max(0, answer["size"] - before)
    click.echo(f"{imported} records of {log.origin} imported: this hub holds {answer['size']} of {log.size}.")


async def _send(hub: Hub, package: dict[str, Any]) -> dict[str, Any]:
    answer = await hub.call("POST", "/usage/import", json=package, within_s=PATIENCE_S)
    if answer["state"] == "conflict":
        raise Corrupt(
            f"the board signed two histories of {answer['origin']}: {answer['reason']}",
            hint="the hub keeps both as evidence; `lichen problem ls` says more",
        )
    return dict(answer)


class _Carried:
    """A log in a folder, which was checked, on its way to a hub."""

    def __init__(self, fetch: Fetch, head: Checkpoint, first: int) -> None:
        self.size, self.origin, self._first = head.size, head.origin, first
        self._fetch = fetch
        self._note = (fetch(CHECKPOINT) or b"").decode()
        self._read = tile_reader(self.size, self._tile)

    def count(self, start: int) -> int:
        """How many entries go into the package from ``start`` on.  Raises Refused when they are not here."""
        if start < self._first:
            raise Refused(
                f"records {start} to {self._first - 1} are neither at the hub nor in this folder",
                hint="import an older export of this board first",
            )
        return min(MAX_ENTRIES, self.size - start)

    def package(self, start: int, count: int) -> dict[str, Any]:
        """Up to ``count`` entries from ``start`` on: first what is lost, then what is not, as a body."""
        if not count:
            return {"origin": self.origin, "start": 0}
        entries = self._entries(start, count)
        lost = next((at for at, entry in enumerate(entries) if entry is not None), count)
        held: list[bytes] = []
        for entry in entries[lost:]:
            if entry is None:
                break
            held.append(entry)
        held = held[: fitting(held)]
        end = start + lost + len(held)
        return {
            "origin": self.origin,
            "start": start,
            "entries": [entry.decode() for entry in held],
            "lost": [to_base64(self._read(0, index)) for index in range(start, start + lost)],
            "proof": [to_base64(each) for each in consistency_proof(end, self.size, self._read)],
            "checkpoint": self._note,
        }

    def _entries(self, start: int, count: int) -> Sequence[bytes | None]:
        found: list[bytes | None] = []
        for index in range(start // WIDTH, (start + count - 1) // WIDTH + 1):
            width = min(WIDTH, self.size - index * WIDTH)
            data = self._any(Tile(ENTRIES, index, width))
            found += [None] * width if data is None else unpack_entries(data[1], data[0])[:width]
        at = start % WIDTH
        return found[at : at + count]

    def _any(self, tile: Tile) -> tuple[int, bytes] | None:
        """A file of this width, or the full one that came later."""
        for width in {tile.width, WIDTH}:
            if (data := self._fetch(Tile(tile.level, tile.index, width).path)) is not None:
                return width, data
        return None

    def _tile(self, tile: Tile) -> bytes:
        found = self._any(tile)
        if found is None:
            raise Corrupt(f"{tile.path}: the tile is missing")
        return found[1][: tile.width * 32]


COMMANDS = (verify, proof, fetch, import_log)
