"""Tiles and bundles: their paths, which there are, what is in them, and proofs made from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Corrupt, Refused
from agent.wire.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    bundles_of,
    pack_entries,
    split_hashes,
    tile_bytes,
    tile_reader,
    tiles_of,
    unpack_entries,
)
from agent.wire.tlog import consistency_proof, inclusion_proof, leaf_hash, subtree_root
from support.logs import UsageLog, short_entry

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "tlog.json").read_text("utf-8"))
LOG = UsageLog.of(2000, short_entry)


def test_paths_of_the_vectors() -> None:
    for case in VECTORS["paths"]:
        tile = Tile(case["level"], case["index"], case["width"])
        assert (tile.path, Tile.parse(case["path"])) == (case["path"], tile)


@pytest.mark.parametrize("path", VECTORS["bad_paths"])
def test_no_other_path_is_one(path: str) -> None:
    with pytest.raises(Refused, match="is not the path of a tile"):
        Tile.parse(path)


@given(st.integers(-1, 7), st.integers(0, 10**15), st.integers(1, WIDTH))
def test_a_path_is_read_as_it_was_written(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


def test_the_examples_of_the_specification() -> None:
    """SPEC tlog-tiles: a tree of size 70,000, and one of 256."""
    tiles = list(tiles_of(70_000))
    assert [tile for tile in tiles if tile.width < WIDTH] == [
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert [tile.level for tile in tiles if tile.width == WIDTH] == [0] * 273 + [1]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(bundles_of(257)) == [Tile(ENTRIES, 0), Tile(ENTRIES, 1, 1)]
    assert list(bundles_of(600, first=511)) == [Tile(ENTRIES, 1), Tile(ENTRIES, 2, 88)]
    assert list(tiles_of(0)) == list(bundles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 2_000))
def test_new_tiles_are_those_that_were_not_there(size: int, more: int) -> None:
    before, after = set(tiles_of(size)), set(tiles_of(size + more))
    assert set(tiles_of(size + more, size)) == after - before


def test_a_tile_spans_its_entries() -> None:
    assert Tile(0, 3, 10).leaves == range(768, 778)
    assert Tile(ENTRIES, 3).leaves == range(768, 1024)
    assert Tile(1, 1, 2).leaves == range(65_536, 66_048)


@given(st.data())
def test_proofs_are_made_from_tiles(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LOG.size))
    files = {tile.path: tile_bytes(tile, LOG.read) for tile in tiles_of(size)}
    read = tile_reader(size, lambda tile: files[tile.path])
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert subtree_root(0, size, read) == subtree_root(0, size, LOG.read)
    assert inclusion_proof(index, size, read) == inclusion_proof(index, size, LOG.read)
    assert consistency_proof(old, size, read) == consistency_proof(old, size, LOG.read)


def test_no_hash_beyond_the_log_is_read_from_tiles() -> None:
    read = tile_reader(300, lambda tile: tile_bytes(tile, LOG.read))
    assert read(0, 299) == leaf_hash(short_entry(299))
    for level, index in ((0, 300), (8, 1), (2, 75), (9, 0)):
        with pytest.raises(Refused, match="is not within a log of 300 entries"):
            read(level, index)


def test_a_tile_of_another_width_is_noticed() -> None:
    read = tile_reader(300, lambda tile: bytes(32 * 43))
    with pytest.raises(Corrupt, match="1376 bytes where 44 hashes take 1408"):
        read(0, 299)
    with pytest.raises(Corrupt):
        split_hashes(bytes(31), 1)


@given(st.lists(st.none() | st.binary(min_size=1, max_size=40), max_size=20))
def test_a_bundle_holds_its_entries(entries: list[bytes | None]) -> None:
    assert unpack_entries(pack_entries(entries), len(entries)) == entries


def test_an_entry_as_long_as_it_may_be() -> None:
    longest = bytes(65_535)
    assert unpack_entries(pack_entries([longest]), 1) == [longest]
    for entry in (longest + b"x", b""):
        with pytest.raises(Refused, match="not within 1 to 65535"):
            pack_entries([entry])


@pytest.mark.parametrize(
    ("bundle", "width"),
    [
        (b"", 1),
        (b"\0\1a", 2),
        (b"\0\1a\0\1b", 1),
        (b"\0\2a", 1),
        (b"\0", 1),
        (b"\0\1a\0", 1),
        (b"\0\1a\0\1", 2),
    ],
)
def test_a_bundle_that_is_cut_or_has_more_is_noticed(bundle: bytes, width: int) -> None:
    with pytest.raises(Corrupt, match="each after its length"):
        unpack_entries(bundle, width)
