"""Trees, proofs and checkpoints: against the vectors, and against RFC 6962 word by word."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import (
    EMPTY_ROOT,
    MAX_SIZE,
    Checkpoint,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    stored_count,
    stored_index,
    subtree_root,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "tlog.json").read_text("utf-8"))
THIRD_PARTY = Path(__file__).parents[4] / "shared" / "vectors"
LEAVES = [bytes.fromhex(each) for each in VECTORS["leaves"]]
SIZE = 70
ENTRIES = [b"entry %d" % index for index in range(SIZE)]


def named(cases: Sequence[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


def third_party(name: str) -> list[dict[str, Any]]:
    """The vectors of others, where they are: their names and words are not ours."""
    path = THIRD_PARTY / f"rfc6962-{name}.json"
    found = json.loads(path.read_text("utf-8"))["cases"] if path.exists() else {}
    return [{"name": key, "good": not case["wantErr"], **case} for key, case in found.items()]


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def raws(texts: Sequence[str] | None) -> list[bytes]:
    return [raw(text) for text in texts or ()]


# --- the definitions, word by word ---------------------------------------------------------------


def divided(entries: Sequence[bytes]) -> int:
    return 1 << (len(entries) - 1).bit_length() - 1


def defined_root(entries: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1: MTH(D[n])."""
    if len(entries) < 2:
        return hashlib.sha256(b"\x00" + entries[0]).digest() if entries else hashlib.sha256().digest()
    k = divided(entries)
    return hashlib.sha256(b"\x01" + defined_root(entries[:k]) + defined_root(entries[k:])).digest()


def defined_path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1: PATH(m, D[n])."""
    if len(entries) == 1:
        return []
    k = divided(entries)
    if m < k:
        return [*defined_path(m, entries[:k]), defined_root(entries[k:])]
    return [*defined_path(m - k, entries[k:]), defined_root(entries[:k])]


def defined_proof(m: int, entries: Sequence[bytes], *, known: bool = True) -> list[bytes]:
    """RFC 6962, section 2.1.2: SUBPROOF(m, D[n], b)."""
    if m == len(entries):
        return [] if known else [defined_root(entries)]
    k = divided(entries)
    if m <= k:
        return [*defined_proof(m, entries[:k], known=known), defined_root(entries[k:])]
    return [*defined_proof(m - k, entries[k:], known=False), defined_root(entries[:k])]


class Tree:
    """Every entry, everything stored, and the root at each size."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        frontier = Frontier()
        self.stored: list[bytes] = []
        self.roots = [frontier.root()]
        for entry in entries:
            self.stored += frontier.append(leaf_hash(entry))
            self.roots.append(frontier.root())

    def read(self, level: int, index: int) -> bytes:
        return self.stored[stored_index(level, index)]


TREE = Tree(ENTRIES)


# --- vectors ---------------------------------------------------------------------------------------


def test_the_published_roots_of_eight_leaves() -> None:
    assert [root.hex() for root in Tree(LEAVES).roots] == [EMPTY_ROOT.hex(), *VECTORS["roots"]]


@pytest.mark.parametrize("case", named(VECTORS["inclusion"]))
def test_inclusion_of_the_vectors(case: dict[str, Any]) -> None:
    proof = raw(case["leaf"]), case["index"], case["size"], raws(case["proof"]), raw(case["root"])
    assert_good(case["good"], partial(check_inclusion, *proof))


@pytest.mark.parametrize("case", named(VECTORS["consistency"]))
def test_consistency_of_the_vectors(case: dict[str, Any]) -> None:
    proof = case["old"], case["new"], raws(case["proof"]), raw(case["old_root"]), raw(case["new_root"])
    assert_good(case["good"], partial(check_consistency, *proof))


def test_inclusion_of_the_vectors_of_others() -> None:
    for case in third_party("inclusion"):
        proof = (
            raw(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            raws(case["proof"]),
            raw(case["root"]),
        )
        assert_good(case["good"], partial(check_inclusion, *proof), case["name"])


def test_consistency_of_the_vectors_of_others() -> None:
    for case in third_party("consistency"):
        proof = case["size1"], case["size2"], raws(case["proof"]), raw(case["root1"]), raw(case["root2"])
        assert_good(case["good"], partial(check_consistency, *proof), case["name"])


def assert_good(good: bool, check: Callable[[], None], name: str = "") -> None:
    is_accepted = False
    with contextlib.suppress(Corrupt):
        check()
        is_accepted = True
    assert is_accepted is good, name


# --- trees and proofs --------------------------------------------------------------------------------


def test_every_root_and_every_proof_is_as_defined() -> None:
    for size in range(SIZE + 1):
        entries = ENTRIES[:size]
        assert TREE.roots[size] == defined_root(entries) == subtree_root(0, size, TREE.read)
        for index in range(0, size, 3):
            assert inclusion_proof(index, size, TREE.read) == defined_path(index, entries)
        for old in range(1, size + 1, 3):
            assert consistency_proof(old, size, TREE.read) == defined_proof(old, entries)


def test_every_proof_is_accepted() -> None:
    for size in range(SIZE + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.read)
            check_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, TREE.roots[size])
        for old in range(size + 1):
            proof = consistency_proof(old, size, TREE.read)
            check_consistency(old, size, proof, TREE.roots[old], TREE.roots[size])


@st.composite
def wrong(draw: st.DrawFn, proof: Sequence[bytes]) -> list[bytes]:
    """The proof with one thing about it changed."""
    at = draw(st.integers(0, len(proof)))
    other = list(proof)
    change = draw(st.sampled_from(["bit", "less", "more", "twice", "exchanged"]))
    if change == "more" or at == len(proof):
        other.insert(at, draw(st.binary(min_size=32, max_size=32)))
    elif change == "bit":
        bit = draw(st.integers(0, 255))
        other[at] = (int.from_bytes(other[at], "big") ^ 1 << bit).to_bytes(32, "big")
    elif change == "exchanged" and at + 1 < len(other):
        other[at], other[at + 1] = other[at + 1], other[at]
    elif change == "twice":
        other.insert(at, other[at])
    else:
        del other[at]
    return other


@given(st.data())
def test_a_changed_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, SIZE))
    index = data.draw(st.integers(0, size - 1))
    leaf, root = leaf_hash(ENTRIES[index]), TREE.roots[size]
    with pytest.raises(Corrupt):
        check_inclusion(leaf, index, size, data.draw(wrong(inclusion_proof(index, size, TREE.read))), root)
    old = data.draw(st.integers(1, size))
    proof = data.draw(wrong(consistency_proof(old, size, TREE.read)))
    with pytest.raises(Corrupt):
        check_consistency(old, size, proof, TREE.roots[old], root)


@given(st.data())
def test_a_proof_is_of_one_entry_alone(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, SIZE))
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, TREE.read)
    if other != index:
        with pytest.raises(Corrupt):
            check_inclusion(leaf_hash(ENTRIES[other]), index, size, proof, TREE.roots[size])
        with pytest.raises(Corrupt):
            check_inclusion(leaf_hash(ENTRIES[index]), other, size, proof, TREE.roots[size])


def test_an_inner_node_is_no_entry() -> None:
    """The prefixes keep a subtree from being shown as a leaf."""
    forged = TREE.read(1, 0) + TREE.read(1, 1)
    assert leaf_hash(forged) != node_hash(TREE.read(1, 0), TREE.read(1, 1))
    with pytest.raises(Corrupt):
        check_inclusion(leaf_hash(forged), 0, 1, [], TREE.roots[4])


def test_sizes_as_large_as_they_may_be() -> None:
    proof = [bytes(32)] * 63
    with pytest.raises(Corrupt, match="does not lead"):
        check_inclusion(bytes(32), 0, MAX_SIZE, proof, bytes(32))
    with pytest.raises(Corrupt, match="a proof of 62 hashes"):
        check_inclusion(bytes(32), 0, MAX_SIZE, proof[1:], bytes(32))
    with pytest.raises(Corrupt, match="no entry"):
        check_inclusion(bytes(32), 0, MAX_SIZE + 1, proof, bytes(32))
    with pytest.raises(Corrupt, match="cannot have grown"):
        check_consistency(1, MAX_SIZE + 1, proof, bytes(32), bytes(32))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, MAX_SIZE + 1)])
def test_no_proof_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(Refused, match="there is no entry"):
        inclusion_proof(index, size, TREE.read)


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5), (0, -1), (0, MAX_SIZE + 1)])
def test_no_proof_of_growth_backwards(old: int, new: int) -> None:
    with pytest.raises(Refused, match="cannot have grown"):
        consistency_proof(old, new, TREE.read)


def test_what_is_stored_is_where_it_is_looked_for() -> None:
    place = 0
    for leaf in range(300):
        assert stored_count(leaf) == place
        level = 0
        while True:
            assert stored_index(level, leaf >> level) == place
            place += 1
            if not leaf >> level & 1:
                break
            level += 1


def test_a_frontier_goes_on_from_what_was_written_down() -> None:
    frontier = Frontier()
    for size, entry in enumerate(ENTRIES):
        again = Frontier.of(size, frontier.hashes)
        copied = frontier.copy()
        assert frontier.append(leaf_hash(entry)) == again.append(leaf_hash(entry))
        assert frontier.root() == again.root() == TREE.roots[size + 1]
        assert (copied.size, copied.root()) == (size, TREE.roots[size])
    assert Frontier().extend(map(leaf_hash, ENTRIES)) == TREE.stored


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (1, []),
        (0, [bytes(32)]),
        (3, [bytes(32)]),
        (1, [bytes(31)]),
        (-1, [bytes(32)]),
        (MAX_SIZE + 1, [bytes(32)]),
    ],
)
def test_a_frontier_that_cannot_be_is_refused(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(Refused):
        Frontier.of(size, hashes)


# --- checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", named(VECTORS["checkpoints"]))
def test_checkpoints_of_the_vectors(case: dict[str, Any]) -> None:
    if "size" not in case:
        with pytest.raises(Refused):
            Checkpoint.parse(case["text"])
        return
    checkpoint = Checkpoint.parse(case["text"])
    assert (checkpoint.origin, checkpoint.size) == (case["origin"], case["size"])
    assert list(checkpoint.extensions) == case["extensions"]
    assert checkpoint.text() == case["text"]
