"""`lichen-agent usage show`, `verify` and `export`: of a board that has joined, and of a copied folder."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.__main__ import main
from agent.base import process
from agent.identity import open_identity
from agent.wire.cosignature import Cosigner
from agent.wire.errors import EXIT_CODES, ConfigError, Corrupt, Refused
from agent.wire.note import Verifier
from support.homehub import HomeHub
from support.ledgers import Bench
from support.logs import LOG, ORIGIN, WITNESS, UsageLog

VECTOR = Path(__file__).parents[1] / "vectors" / "usage-log"
BAD, NO_LOG, REFUSED = EXIT_CODES[Corrupt], EXIT_CODES[ConfigError], EXIT_CODES[Refused]


class Board:
    """A board that has joined a hub, and what its commands say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.patch = folder, capsys, patch
        # A process that ends waits for no thread, such as the one that times this test.
        patch.setattr(process, "_leave_threads", lambda code: None)
        self.config = folder / "agent.toml"
        self.config.write_text('state_dir = "state"\n')
        identity = open_identity(folder / "state")
        self.hub = HomeHub(folder / "hub")
        self.hub.admit(identity)
        receipt = self.hub.keys.receipt
        self.bench = Bench(folder / "state" / "usage", identity.log_key, Cosigner(receipt.name, receipt.seed))

    def write(self, *batches: int, signed: bool = True, received: bool = True) -> None:
        """Batches of records, signed and with a receipt."""
        asyncio.run(self._write(batches, signed, received))

    async def _write(self, batches: Sequence[int], signed: bool, received: bool) -> None:
        async with self.bench.open() as ledger:
            if signed:
                await ledger.hub_size_known(ledger.size)
            for count in batches:
                await ledger.append(self.bench.records(count))
            if signed and received:
                await self.bench.receive(ledger)

    def say(self, *words: str, status: int = 0) -> str:
        """What `lichen-agent usage ...` prints, errors too."""
        given = ["lichen-agent", "usage", *words, "--config", str(self.config)]
        self.patch.setattr(sys, "argv", given)
        assert main() == status, self.capsys.readouterr()
        said = self.capsys.readouterr()
        return said.out + said.err


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(tmp_path, capsys, monkeypatch)


# --- show ------------------------------------------------------------------------------------------


def test_show_prints_the_newest_records(board: Board) -> None:
    board.write(30)
    said = board.say("show", "--last", "3")
    rows = said.splitlines()
    assert rows[0].split()[:3] == ["record", "until", "what"]
    assert [row.split()[0] for row in rows[1:4]] == ["28", "29", "30"], "0 is the record of the epoch"
    assert "demo/web" in rows[1]
    assert "– / –" in rows[1], "what is not counted is not 0"
    assert "31 records, 31 of them signed" in rows[-1]
    assert board.say("show", "--app", "other").startswith("No records of other")


def test_show_prints_as_json_exactly_what_was_logged(board: Board) -> None:
    board.write(3)
    lines = board.say("show", "--json", "--app", "demo").splitlines()

    async def entries() -> list[bytes]:
        async with board.bench.open() as ledger:
            return await ledger.entries(1, 3)

    assert [line.encode() for line in lines] == asyncio.run(entries())
    assert json.loads(lines[0])["io_r"] is None


def test_without_a_log_show_says_so(board: Board) -> None:
    assert "there is no usage log" in board.say("show", status=NO_LOG)


# --- verify ----------------------------------------------------------------------------------------


def test_verify_says_which_checkpoint_and_receipt_it_verified(board: Board) -> None:
    board.write(300)
    board.write(5, received=False)
    said = board.say("verify")
    assert "records     306 good" in said
    assert "checkpoint  size 306, root " in said
    assert f"signed by board {board.bench.log_key.name}" in said
    assert f"receipt     size 301, by {board.hub.keys.hub}/receipt at " in said
    assert "5 records later" in said
    found = json.loads(board.say("verify", "--json"))
    assert (found["size"], found["receipt"]["size"], found["unsigned"]) == (306, 301, 0)


def test_before_the_hub_is_heard_nothing_is_signed(board: Board) -> None:
    board.write(3, signed=False)
    assert "nothing is signed yet" in board.say("verify", status=REFUSED)
    assert "nothing is signed yet" in board.say("export", str(board.folder / "out"), status=REFUSED)
    assert "none signed" in board.say("show")


def test_a_receipt_of_another_hub_is_none(board: Board) -> None:
    board.write(3)
    other = HomeHub(board.folder / "other").keys.receipt.vkey
    log_key = board.bench.log_key.vkey
    assert "receipt: " in board.say("verify", "--log-key", log_key, "--hub-key", other, status=BAD)


def test_a_changed_byte_on_the_disk_is_named(board: Board) -> None:
    board.write(50)
    [segment] = (board.folder / "state" / "usage").glob("*/*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    for words in (("verify",), ("show",), ("export", str(board.folder / "out"))):
        said = board.say(*words, status=BAD)
        assert segment.name in said, said


# --- export ----------------------------------------------------------------------------------------


def test_an_export_verifies_wherever_it_is_copied(board: Board) -> None:
    board.write(300)
    out = board.folder / "out"
    assert "301 records" in board.say("export", str(out))
    copy = shutil.copytree(out, board.folder / "elsewhere" / "copy")
    board.config.unlink()  # on any machine
    said = board.say("verify", str(copy))
    assert "records     301 good" in said
    assert "keys.toml: compare them" in said
    keys = board.hub.keys.receipt.vkey
    assert "keys.toml" not in board.say(
        "verify", str(copy), "--log-key", board.bench.log_key.vkey, "--hub-key", keys
    )


def test_an_older_export_goes_on_and_nothing_else_is_written_over(board: Board) -> None:
    board.write(10)
    out = board.folder / "out"
    board.say("export", str(out))
    board.write(300)
    board.say("export", str(out))
    assert "records     311 good" in board.say("verify", str(out))
    (board.folder / "photos").mkdir()
    (board.folder / "photos" / "cat.jpg").write_bytes(b"cat")
    assert "something else" in board.say("export", str(board.folder / "photos"), status=NO_LOG)
    assert [path.name for path in (board.folder / "photos").iterdir()] == ["cat.jpg"]


def test_every_file_of_an_export_counts(board: Board) -> None:
    board.write(300)
    out = board.folder / "out"
    board.say("export", str(out))
    for path in [each for each in out.rglob("*") if each.is_file()]:
        good = path.read_bytes()
        for at in {0, len(good) // 2, len(good) - 1}:
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            board.patch.setattr(sys, "argv", ["lichen-agent", "usage", "verify", str(out)])
            assert main() in (BAD, REFUSED), (path, at)
            said = board.capsys.readouterr().err
            places = ("checkpoint:", "receipt:", "record ", "tile/", "keys.toml:")
            assert any(f"lichen-agent: {place}" in said for place in places), said
        path.write_bytes(good)
    assert "301 good" in board.say("verify", str(out))


def test_a_folder_without_keys_asks_for_them(board: Board) -> None:
    log = UsageLog.of(20)
    for path, data in log.files.items():
        (board.folder / "log" / path).parent.mkdir(parents=True, exist_ok=True)
        (board.folder / "log" / path).write_bytes(data)
    folder = str(board.folder / "log")
    assert "--log-key" in board.say("verify", folder, status=NO_LOG)
    key = Verifier("whatever", LOG.public_key).vkey
    assert "receipt     not checked" in board.say("verify", folder, "--log-key", key)
    assert "--log-key" in board.say("verify", folder, "--hub-key", WITNESS.vkey, status=NO_LOG)
    assert "log key cannot be used" in board.say("verify", folder, "--log-key", "x", status=NO_LOG)
    said = board.say("verify", str(VECTOR), "--log-key", key, "--hub-key", WITNESS.vkey)
    assert ORIGIN in said
    assert "receipt     size 4" in said
    assert "is no folder" in board.say("verify", str(board.folder / "nothing"), status=NO_LOG)
