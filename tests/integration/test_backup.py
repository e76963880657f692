"""A hub in one file and back: while it runs, after a bad day, and from a file that cannot be trusted."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.wire.errors import ConfigError, Corrupt, LichenError, Refused
from hub import backup as subject
from hub.access.keys import Keyring, read_document
from hub.access.sealed import CHUNK, EXTRA_BYTES, HEADER_BYTES, MAGIC, Opener, Sealer
from hub.config import Directory
from support.applicant import Applicant, ask, join, join_file
from support.lab import Lab

pytestmark = pytest.mark.slow

PASSPHRASE = "a horse of another colour"
HEAD = len(MAGIC) + 16 + HEADER_BYTES
FAST = {
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1}
    ],
    "report": {"every_s": 0.2, "commit_every_s": 0.2},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.2},
}


@pytest.fixture
async def lab(short_path: Path) -> AsyncIterator[Lab]:
    async with Lab(short_path) as lab:
        (lab.dir / "passphrase").write_text(PASSPHRASE + "\n")
        await lab.start_hub()
        yield lab


async def back_up(lab: Lab, name: str = "hub.backup") -> Path:
    words = ("--dir", str(lab.hub_dir), "--passphrase-file", str(lab.dir / "passphrase"))
    said = await lab.command("lichen-hub", "backup", str(lab.dir / name), *words)
    assert "MB" in said
    return lab.dir / name


async def restore(lab: Lab, file: Path, into: Path, *words: str, status: int = 0) -> str:
    options = ("--passphrase-file", str(lab.dir / "passphrase"), *words)
    return await lab.command("lichen-hub", "restore", str(file), str(into), *options, status=status)


async def put_back(lab: Lab, file: Path, *words: str) -> str:
    """The disk fails: the hub is killed, and its directory is what the backup holds."""
    await lab.hub.kill()
    lab.hub_dir.rename(lab.dir / "lost")
    said = await restore(lab, file, lab.hub_dir, *words)
    lab.api_token = ""
    return said


# --- after a bad day ---------------------------------------------------------------------------------


async def test_boards_go_on_after_a_restore_and_what_was_lost_shows_as_a_gap(lab: Lab) -> None:
    pump = await lab.add_board("pump", **FAST)
    await pump.start()
    await lab.until(lambda: pump.joined and pump.stored() > 5, "readings are stored")
    file = await back_up(lab)
    before = pump.stored()
    await lab.until(lambda: pump.stored() > before + 20, "more are stored and acknowledged")
    await lab.until(lambda: pump.held() < 5, "the board has let go of them")
    await put_back(lab, file)
    [(stream, kept)] = settled(lab, lab.hub_dir)
    [(_, had)] = settled(lab, lab.dir / "lost")
    assert had > kept
    at_restore = pump.stored()

    await lab.start_hub()
    await lab.until(lambda: pump.stored() > at_restore + 10, "the board goes on")
    gaps = lab.ask(lab.hub_dir / "hub.db", "SELECT stream, seq0, count FROM gaps WHERE board = ?", pump.id)
    [(found, seq0, count)] = gaps
    assert (found, seq0) == (stream, kept + 1)
    # What came after the last acknowledgement that reached the board is not lost.
    assert 0 < count <= had - kept
    assert pump.stored() + count == settled(lab, lab.hub_dir)[0][1]
    await lab.until(lambda: "hub document replaced" in pump.tail(200), "it takes the document")
    assert number(lab.hub_dir) > number(lab.dir / "lost")
    assert pump.running


def settled(lab: Lab, hub: Path) -> list[tuple[str, int]]:
    return lab.ask(hub / "hub.db", "SELECT stream, contiguous FROM streams")  # type: ignore[return-value]


def number(hub: Path) -> int:
    document = read_document(hub / "keys", Keyring.load(hub / "keys"))
    assert document is not None
    return document.number


async def test_what_could_let_somebody_in_has_ended(lab: Lab) -> None:
    stays, goes = Applicant(), Applicant()
    for board, name in ((stays, "pump"), (goes, "valve")):
        await join(lab, board.request(await join_file(lab, name=name)))
    open_file = await join_file(lab, name="late")
    old_token = lab.api_token
    said = await put_back(lab, await back_up(lab), "--revoke", "valve")
    assert "boards it knows: pump" in said
    assert "revoked now: valve" in said
    assert "1 open join tokens" in said
    assert not (lab.hub_dir / "broker" / "mosquitto.db").exists()
    await lab.start_hub()
    status, problem = await ask(lab, "POST", "/join", Applicant().request(open_file))
    assert (status, problem["detail"]) == (403, "this join token was revoked")
    status, problem = await ask(lab, "POST", "/join", goes.request(await join_file(lab)))
    assert problem["type"].endswith(":revoked")
    lab.api_token, new = old_token, lab.api_token
    with pytest.raises(AssertionError, match="401"):
        await lab.api("GET", "/hub")
    lab.api_token = new
    [row] = (await lab.api("GET", "/boards"))["boards"]
    assert (row["name"], row["presence"]) == ("pump", "offline")
    assert (await lab.api("GET", "/events"))["events"][-1]["kind"]
    kinds = [event["kind"] for event in (await lab.api("GET", "/events"))["events"]]
    assert "restored" in kinds


async def test_each_restore_of_one_backup_signs_a_higher_document(lab: Lab) -> None:
    file = await back_up(lab)
    numbers = [number(lab.hub_dir)]
    for round in range(2):
        await lab.hub.kill()
        lab.hub_dir.rename(lab.dir / f"lost{round}")
        began_s = int(time.time())
        await lab.until(lambda: int(time.time()) > began_s, "the next second")  # noqa: B023
        await restore(lab, file, lab.hub_dir)
        await lab.hub.start()
        await lab.until(lab.healthy, "the hub answers /healthz")
        numbers.append(number(lab.hub_dir))
    assert numbers[0] < numbers[1] < numbers[2]


# --- the command line --------------------------------------------------------------------------------


async def test_a_backup_is_encrypted_private_and_leaves_nothing_beside_it(lab: Lab) -> None:
    file = await back_up(lab)
    assert file.stat().st_mode & 0o777 == 0o600
    data = file.read_bytes()
    assert b"SQLite format" not in data
    assert (lab.hub_dir / "keys" / "root.key").read_bytes().strip() not in data
    assert not (lab.hub_dir / ".backup").exists()
    assert [path.name for path in lab.dir.glob("*backup*")] == ["hub.backup"]
    words = ("--dir", str(lab.hub_dir), "--passphrase-file", str(lab.dir / "passphrase"))
    await lab.command("lichen-hub", "backup", str(file), *words, status=78)
    await lab.command("lichen-hub", "backup", str(lab.dir / "b"), "--dir", str(lab.hub_dir), status=78)
    assert file.read_bytes() == data


async def test_a_restore_goes_into_an_empty_directory_only(lab: Lab) -> None:
    file = await back_up(lab)
    await restore(lab, file, lab.hub_dir, status=78)
    empty = lab.dir / "empty"
    empty.mkdir()
    await restore(lab, file, empty)
    modes = {path.stat().st_mode & 0o777 for path in empty.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert empty.stat().st_mode & 0o777 == 0o700
    await restore(lab, file, lab.dir / "other", "--revoke", "nobody", status=77)
    assert not (lab.dir / "other").exists()
    assert list(lab.dir.glob(".*.restoring")) == []


# --- files that cannot be trusted --------------------------------------------------------------------


def sealed(fill: Callable[[Any], None], passphrase: str = PASSPHRASE) -> bytes:
    file = io.BytesIO()
    with Sealer(file, passphrase) as sealer:
        fill(sealer)
    return file.getvalue()


def read_all(data: bytes, passphrase: str = PASSPHRASE) -> bytes:
    opener = Opener(io.BytesIO(data), passphrase)
    found = b""
    while part := opener.read(10_000):
        found += part
    return found


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_sealed_comes_back(size: int) -> None:
    plain = bytes(index % 251 for index in range(size))
    assert read_all(sealed(lambda sealer: sealer.write(plain))) == plain


@pytest.fixture(scope="module")
def three() -> bytes:
    """A file of three chunks."""
    return sealed(lambda sealer: sealer.write(b"x" * (2 * CHUNK + 100)))


WHOLE = CHUNK + EXTRA_BYTES


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        pytest.param(lambda three: b"", Refused, id="empty"),
        pytest.param(lambda three: b"lichen-backup/v2\n" + three[17:], Refused, id="another version"),
        pytest.param(lambda three: three[: HEAD - 1], Corrupt, id="a part of the header"),
        pytest.param(lambda three: three[:HEAD], Refused, id="the header alone"),
        pytest.param(lambda three: three[: HEAD + WHOLE], Corrupt, id="one chunk"),
        pytest.param(lambda three: three[: HEAD + 2 * WHOLE], Corrupt, id="all but the last"),
        pytest.param(lambda three: three[:-1], Corrupt, id="all but a byte"),
        pytest.param(lambda three: three + b"\0", Corrupt, id="a byte more"),
        pytest.param(
            lambda three: three[: HEAD + WHOLE] + three[HEAD + 2 * WHOLE :], Corrupt, id="a chunk left out"
        ),
        pytest.param(lambda three: three[:-30] + b"\0" + three[-29:], Corrupt, id="a byte changed"),
        pytest.param(lambda three: three[:20] + b"\0\0" + three[22:], Refused, id="the salt changed"),
    ],
)
def test_a_file_that_was_cut_or_changed_is_refused(
    three: bytes, changed: Callable[[bytes], bytes], kind: type[LichenError]
) -> None:
    with pytest.raises(kind):
        read_all(changed(three))


async def test_a_wrong_passphrase_or_a_damaged_file_leaves_nothing_behind(lab: Lab) -> None:
    file = await back_up(lab)
    data = file.read_bytes()
    into = Directory(lab.dir / "into")
    with pytest.raises(Refused, match="passphrase is wrong"):
        await subject.restore(file, into, "another passphrase")
    for damaged in (data[:-1], data[: len(data) // 2], data[:-20] + bytes(20)):
        bad = lab.dir / "bad"
        bad.write_bytes(damaged)
        with pytest.raises(Corrupt):
            await subject.restore(bad, into, PASSPHRASE)
    assert not into.path.exists()
    assert list(lab.dir.glob(".*.restoring")) == []


async def test_only_the_parts_of_a_hub_come_out_of_a_backup(short_path: Path) -> None:
    for name, kind in (("../evil", tarfile.REGTYPE), ("keys/root.key", tarfile.SYMTYPE)):

        def fill(sealer: Any, name: str = name, kind: bytes = kind) -> None:
            with tarfile.open(mode="w|", fileobj=sealer) as tar:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, "/etc/passwd", 0
                tar.addfile(member, io.BytesIO())

        file = short_path / "evil.backup"
        file.write_bytes(sealed(fill))
        with pytest.raises(Corrupt, match="no part of a hub"):
            await subject.restore(file, Directory(short_path / "into"), PASSPHRASE)
        assert sorted(path.name for path in short_path.iterdir()) == ["evil.backup"]
    file.write_bytes(sealed(lambda sealer: sealer.write(b"no tar at all" * 100)))
    with pytest.raises(Corrupt):
        await subject.restore(file, Directory(short_path / "into"), PASSPHRASE)
    with pytest.raises(ConfigError, match="cannot be read"):
        await subject.restore(short_path / "none", Directory(short_path / "into"), PASSPHRASE)
