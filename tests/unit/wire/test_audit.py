"""The audit of a whole log: a good one is good, and whatever was changed is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.audit import Audit, audit
from agent.wire.cosignature import CosignatureVerifier, Cosigner, add_signature, cosign
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import Signer, Verifier, generate, sign
from agent.wire.proofs import ProofFile
from agent.wire.tiles import WIDTH, Tile, pack_entries, tile_bytes, tiles_of
from agent.wire.tlog import Checkpoint, Frontier, leaf_hash
from agent.wire.usage import EpochRecord, HoleRecord, encode, read
from support.logs import AT_S, BOARD, LOG, ORIGIN, WITNESS, UsageLog, entry, record, salt_of, short_entry

VECTORS = Path(__file__).parents[2] / "vectors" / "usage-log"

Files = dict[str, bytes]


def check(files: Files, **options: Any) -> Audit:
    return audit(files.get, BOARD.verifier, WITNESS.verifier, **options)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 300, 512, 700])
def test_a_good_log_is_good(size: int) -> None:
    found = check(UsageLog.of(size).files)
    assert (found.checkpoint.origin, found.checkpoint.size) == (ORIGIN, size)
    assert (found.entries, found.first_entry, found.holes) == (size, 0, ())
    assert (found.receipt_size, found.receipt_at_s) == (None, None)
    assert found.began == (record(0) if size else None)


@pytest.mark.slow
def test_a_log_with_tiles_on_three_levels_is_good() -> None:
    log = UsageLog.of(65_536 + 300, short_entry)
    log.export(receipt=65_537)
    found = check(log.files)
    assert (found.entries, found.receipt_size) == (65_836, 65_537)
    assert {Tile.parse(path).level for path in log.files if "tile/" in path} == {-1, 0, 1, 2}
    for path, place in (
        ("tile/0/100", "tile/0/100: its hashes do not lead to hash 100 of tile/1/000"),
        ("tile/1/000", "tile/1/000: its hashes do not lead to hash 0 of tile/2/000.p/1"),
        ("tile/0/256", "tile/0/256: its hashes do not lead to hash 0 of tile/1/001.p/1"),
        ("tile/2/000.p/1", "tile/2/000.p/1: hash 0 has another hash"),
        ("tile/1/001.p/1", "tile/1/001.p/1: hash 0 has another hash"),
        ("tile/0/257.p/44", "tile/0/257.p/44: record 65792 has another hash"),
        ("tile/entries/256", "record 65536: "),
    ):
        with pytest.raises(Corrupt, match=place):
            check(log.files | {path: flipped(log.files[path], 5)})


def test_the_log_of_the_vectors_is_good_and_written_as_ever() -> None:
    """A whole log, its proof and its keys as files: for other languages, and so that no byte ever changes."""
    log = UsageLog.of(5)
    files = log.export(receipt=4)
    assert {path: (VECTORS / path).read_bytes() for path in files} == files
    _, log_key, hub_key = (VECTORS / "keys.txt").read_text().splitlines()
    found = audit(files.get, Verifier.parse(log_key), CosignatureVerifier.parse(hub_key))
    assert (found.entries, found.receipt_size, found.receipt_at_s) == (5, 4, AT_S)
    text = (VECTORS / "3.tlog-proof").read_text()
    assert log.proof(3).text() == text
    proven = ProofFile.parse(text).verify(None, Verifier.parse(log_key), [CosignatureVerifier.parse(hub_key)])
    assert proven.entry == entry(3)


# --- the receipt -------------------------------------------------------------------------------------


def test_a_receipt_in_a_file_or_in_the_checkpoint() -> None:
    log = UsageLog.of(300)
    found = check(log.export(receipt=299))
    assert (found.receipt_size, found.receipt_at_s) == (299, AT_S)
    found = check(log.export() | {"checkpoint": log.cosigned(at_s=AT_S + 9).encode()})
    assert (found.receipt_size, found.receipt_at_s) == (300, AT_S + 9)
    without = audit(log.export(receipt=299).get, BOARD.verifier)
    assert (without.receipt_size, without.receipt_at_s) == (None, None)


def test_a_receipt_for_more_than_there_is_tells_of_an_old_copy() -> None:
    newer = UsageLog.of(301)
    with pytest.raises(Corrupt, match="receipt: the board signed 301 entries, of which this log has 300"):
        check(UsageLog.of(300).files | {"receipt": newer.cosigned().encode()})


def test_a_receipt_of_another_history_proves_that_the_log_was_rewritten() -> None:
    other = UsageLog.of(200, lambda seq: entry(seq) if seq != 151 else encode(replace(record(151), run="x")))
    with pytest.raises(Corrupt, match="receipt: the board signed another history of 200 entries") as raised:
        check(UsageLog.of(300).files | {"receipt": other.cosigned().encode()})
    assert "keep both" in raised.value.hint


def test_a_receipt_by_another_hub_or_for_another_log_is_none() -> None:
    log = UsageLog.of(10)
    note = log.note()
    foreign = Cosigner(WITNESS.name, bytes(32))
    for place in ("checkpoint", "receipt"):
        with pytest.raises(Corrupt, match="receipt: the note is not cosigned by"):
            check(log.files | {place: add_signature(note, cosign(note, foreign, AT_S)).encode()})
    second = UsageLog.of(10, signer=Signer(ORIGIN[:-1] + "q", LOG.seed))
    with pytest.raises(Corrupt, match="receipt: it is of the log"):
        check(log.files | {"receipt": second.cosigned().encode()})
    with pytest.raises(Corrupt, match="receipt: the note is not cosigned by"):
        check(log.files | {"receipt": note.encode()})


# --- what was changed is named -----------------------------------------------------------------------


def test_every_changed_byte_of_a_small_log_is_noticed() -> None:
    log = UsageLog.of(2)
    files = log.export(receipt=1)
    places = {
        "checkpoint": "checkpoint: ",
        "receipt": "receipt: ",
        "tile/0/000.p/2": "tile/0/000.p/2: record ",
    }
    for path, data in files.items():
        for at in range(len(data)):
            with pytest.raises((Corrupt, Refused)) as raised:
                check(files | {path: flipped(data, at)})
            place = places.get(path, ("record ", "tile/entries/000.p/2: "))
            assert str(raised.value).startswith(place), (path, at)


@given(st.integers(1, 700), st.data())
def test_a_changed_entry_is_named(size: int, data: st.DataObject) -> None:
    log = UsageLog.of(size, short_entry)
    index = data.draw(st.integers(0, size - 1))
    log.entries[index] = flipped(short_entry(index), data.draw(st.integers(0, 20)))
    # In the last tile, the tile and what is below it are two sayings; the root tells which is right.
    with pytest.raises(Corrupt, match=rf"^record {index}: it is not what was logged"):
        check(log.export())


@given(st.integers(1, 700), st.data())
def test_a_changed_tile_is_named(size: int, data: st.DataObject) -> None:
    files = UsageLog.of(size, short_entry).files
    tile = data.draw(st.sampled_from(list(tiles_of(size))))
    at = data.draw(st.integers(0, tile.width * 32 - 1))
    with pytest.raises(Corrupt, match=rf"^{tile.path}: "):
        check(files | {tile.path: flipped(files[tile.path], at)})


@given(st.integers(1, 700), st.data())
def test_a_file_that_is_cut_or_gone_is_named(size: int, data: st.DataObject) -> None:
    files = UsageLog.of(size, short_entry).files
    path = data.draw(st.sampled_from(sorted(files)))
    with pytest.raises((Corrupt, Refused), match=rf"^{path}: "):
        check(files | {path: files[path][: data.draw(st.integers(0, len(files[path]) - 1))]})
    if "entries" not in path:
        del files[path]
        with pytest.raises(Corrupt, match=rf"^{path}: .* missing"):
            check(files)


def test_entries_that_are_exchanged_are_noticed() -> None:
    log = UsageLog.of(300)
    log.entries[7], log.entries[8] = log.entries[8], log.entries[7]
    with pytest.raises(Corrupt, match=r"^record 7: it is not what was logged"):
        check(log.export())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda seq: short_entry(seq + (seq == 5)), "^record 5: it says that it is number 6"),
        (lambda seq: short_entry(seq) if seq != 5 else b"{}", "^record 5: .* no record of a usage log"),
        (lambda seq: short_entry(max(seq, 1)), "^record 0: it says that it is number 1"),
    ],
)
def test_entries_that_were_logged_out_of_order_are_noticed(
    wrong: Callable[[int], bytes], reason: str
) -> None:
    """The hashes are right: it is the board that wrote nonsense, and signed it."""
    with pytest.raises(Corrupt, match=reason):
        check(UsageLog.of(10, wrong).files)


def test_a_checkpoint_of_another_history_is_noticed() -> None:
    files = UsageLog.of(300).files
    other = UsageLog.of(300, short_entry).files
    with pytest.raises(Corrupt, match=r"^checkpoint: its root is not that of the 300 entries") as raised:
        check(files | {"checkpoint": other["checkpoint"]})
    assert "rewrote" in raised.value.hint
    empty = sign(Checkpoint(ORIGIN, 0, bytes(32)).text(), LOG)
    with pytest.raises(Corrupt, match=r"^checkpoint: an empty log has another root"):
        check({"checkpoint": empty.encode()})


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "checkpoint: it is missing"),
        ({"checkpoint": b""}, "checkpoint: the text of a note must end"),
        ({"checkpoint": sign("a log\n0\n\n", LOG).encode()}, "checkpoint: 'a log' is not the origin"),
        ({"checkpoint": sign(f"{ORIGIN}\n0\n", LOG).encode()}, "checkpoint: a checkpoint is at least three"),
        (
            {"checkpoint": sign(Checkpoint(ORIGIN, 0, bytes(32)).text(), BOARD).encode()},
            "checkpoint: the note is",
        ),
    ],
)
def test_what_is_no_log_is_refused(files: Files, reason: str) -> None:
    with pytest.raises((Corrupt, Refused), match=f"^{reason}"):
        check(files)


def test_the_log_of_another_board_is_noticed() -> None:
    with pytest.raises(Corrupt, match=r"^checkpoint: this is the log of board .*, and the key is that of "):
        audit(UsageLog.of(3).files.get, generate().verifier)


# --- what is missing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 255, 256, 300, 699, 700])
def test_a_board_lets_go_of_the_beginning(first: int) -> None:
    log = UsageLog.of(700)
    log.entries[:first] = [None] * first
    found = check(log.export())
    assert (found.first_entry, found.entries, found.began) == (first, 700 - first, None)


@pytest.mark.parametrize(("first", "count"), [(5, 1), (256, 256), (200, 300), (699, 1), (1, 699)])
def test_what_is_missing_in_the_middle_is_noticed(first: int, count: int) -> None:
    log = UsageLog.of(700)
    log.entries[first : first + count] = [None] * count
    with pytest.raises(
        Corrupt, match=f"^record {first}: it is missing, and no record declares a hole there"
    ) as raised:
        check(log.export())
    assert f"record {first + count - 1}:" in raised.value.hint


def holed(*holes: tuple[int, int]) -> UsageLog:
    """A log of 600 entries, of which nobody holds 100 to 399, and that says so of ``holes``."""
    log = UsageLog.of(600)
    head = {
        name: getattr(record(1), name)
        for name in ("boot", "mono0_ms", "mono1_ms", "wall0_ms", "wall1_ms", "clock")
    }
    for seq, (first, count) in enumerate(holes, 600):
        hole = HoleRecord(**head, seq=seq, salt=salt_of(seq), first=first, count=count, reason="restored")
        log.extend([encode(hole)])
    log.entries[100:400] = [None] * 300
    log.export()
    return log


@pytest.mark.parametrize(
    "holes", [[(100, 300)], [(0, 500)], [(250, 150), (100, 150)], [(90, 20), (105, 300)]]
)
def test_a_declared_hole_is_none(holes: list[tuple[int, int]]) -> None:
    found = check(holed(*holes).files)
    assert found.entries == 300 + len(holes)
    assert [(hole.first, hole.count) for hole in found.holes] == holes


@pytest.mark.parametrize(
    ("holes", "first"),
    [([(100, 299)], 399), ([(101, 299)], 100), ([(100, 100), (201, 199)], 200), ([(500, 9)], 100)],
)
def test_a_hole_covers_no_more_than_it_says(holes: list[tuple[int, int]], first: int) -> None:
    with pytest.raises(Corrupt, match=f"^record {first}: it is missing"):
        check(holed(*holes).files)


def test_a_full_tile_stands_in_for_a_partial_one() -> None:
    """SPEC tlog-tiles: the log may delete a partial tile once the full one is there."""
    small, large = UsageLog.of(300), UsageLog.of(600)
    files = large.files | {"checkpoint": small.files["checkpoint"]}
    assert "tile/0/001.p/44" not in files
    files["tile/1/000.p/1"] = small.files["tile/1/000.p/1"]
    assert check(files).entries == 300


# --- the look of somebody else at each entry -----------------------------------------------------------


def test_each_entry_is_shown_in_order() -> None:
    seen: list[tuple[int, bytes]] = []
    check(UsageLog.of(300).files, inspect=lambda index, raw: seen.append((index, raw)))
    assert seen == [(index, entry(index)) for index in range(300)]


def test_what_is_found_at_a_look_is_named() -> None:
    log = UsageLog.of(
        5, lambda seq: short_entry(seq) if seq != 3 else short_entry(seq).replace(b"later", b"board")
    )
    assert check(log.files).entries == 5
    with pytest.raises(Refused, match=r"^record 3: entry 3\.boot: missing"):
        check(log.files, inspect=lambda _, raw: read(raw))


def test_how_an_epoch_began_is_told() -> None:
    began = check(UsageLog.of(2).files).began
    assert isinstance(began, EpochRecord)
    assert began.reason == "the first of this board"


def test_a_tree_of_another_width_is_noticed() -> None:
    """A tile may not be wider than the size of the log says."""
    log = UsageLog.of(WIDTH)
    frontier = Frontier()
    frontier.extend(leaf_hash(entry(index)) for index in range(WIDTH))
    files = log.files | {"tile/0/000": tile_bytes(Tile(0, 0), log.read) + bytes(32)}
    with pytest.raises(Corrupt, match=r"^tile/0/000: 8224 bytes where 256 hashes take 8192"):
        check(files)
    files = log.files | {"tile/entries/000": pack_entries([*log.entries, b"more"])}
    with pytest.raises(Corrupt, match=r"^tile/entries/000: "):
        check(files)
