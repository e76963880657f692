"""Proof files: read as they were written, and nothing that was changed is believed."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Corrupt, Refused
from agent.wire.note import sign
from agent.wire.proofs import MAX_PROOF, ProofFile
from support.logs import AT_S, LOG, WITNESS, UsageLog, entry, short_entry

USAGE = UsageLog.of(300)
PROOF = USAGE.proof(255)


@pytest.mark.parametrize("index", [0, 1, 128, 255, 256, 298, 299])
@pytest.mark.parametrize("extra", [True, False])
def test_a_proof_is_read_as_it_was_written_and_holds(index: int, extra: bool) -> None:
    proof = USAGE.proof(index, extra=extra)
    for text in (proof.text(), proof.text().encode()):
        assert ProofFile.parse(text) == proof
    proven = proof.verify(None if extra else entry(index), LOG.verifier, [WITNESS.verifier])
    assert (proven.entry, proven.index, proven.checkpoint.size) == (entry(index), index, 300)
    assert proven.witnessed == {WITNESS.name: AT_S}


def test_a_log_of_one_entry_takes_no_hashes() -> None:
    proof = UsageLog.of(1).proof(0)
    assert proof.hashes == ()
    assert ProofFile.parse(proof.text()).verify(None, LOG.verifier).index == 0


def test_no_changed_byte_is_believed() -> None:
    raw = replace(USAGE.proof(299), extra=entry(299)).text().encode()
    for at in range(len(raw)):
        for bit in (1, 32):
            changed = raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
            with pytest.raises((Corrupt, Refused)):
                ProofFile.parse(changed).verify(None, LOG.verifier, [WITNESS.verifier])


def test_another_entry_index_log_or_key_is_not_believed() -> None:
    bare = replace(PROOF, extra=None)
    with pytest.raises(Corrupt, match="does not lead from leaf 255"):
        bare.verify(entry(254), LOG.verifier)
    with pytest.raises(Corrupt, match="does not lead from leaf 254"):
        replace(bare, index=254).verify(entry(255), LOG.verifier)
    with pytest.raises(Corrupt, match="about another entry 255"):
        PROOF.verify(entry(254), LOG.verifier)
    with pytest.raises(Corrupt, match="with no key of"):
        PROOF.verify(None, replace(LOG, name="other").verifier)
    with pytest.raises(Corrupt, match="not cosigned by"):
        replace(PROOF, note=USAGE.note()).verify(None, LOG.verifier, [WITNESS.verifier])
    with pytest.raises(Refused, match="has no entry with it"):
        bare.verify(None, LOG.verifier)


def test_a_checkpoint_of_another_log_under_the_same_key_is_not_believed() -> None:
    text = USAGE.note().partition("\n\n")[0] + "\n"
    forged = sign(text.replace(LOG.name, LOG.name[:-1] + "q"), LOG)
    with pytest.raises(Corrupt, match="the checkpoint is of the log"):
        replace(PROOF, note=forged).verify(None, LOG.verifier)


GOOD = PROOF.text()
HEAD, _, NOTE = GOOD.partition("\n\n")
LINES = HEAD.split("\n")


def joined(*lines: str) -> str:
    return "\n".join(lines) + "\n\n" + NOTE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with the line"),
        (GOOD.replace("@v1", "@v2"), "begins with the line"),
        ("\n" + GOOD, "begins with the line"),
        (HEAD, "after an empty one"),
        (joined(LINES[0], *LINES[2:], LINES[1]), "is not base64"),
        (joined(LINES[0], LINES[1], *LINES[3:]), "is the index"),
        (joined(LINES[0], LINES[1]), "is the index"),
        (joined(LINES[0], "extra ", *LINES[2:]), "1 to 65535 bytes"),
        (joined(LINES[0], "extra " + base64.b64encode(bytes(65_536)).decode(), *LINES[2:]), "1 to 65535"),
        (joined(LINES[0], "extra YR==", *LINES[2:]), "not canonical"),
        (joined(LINES[0], "extra  YQ==", *LINES[2:]), "not base64"),
        (joined(LINES[0], "index 0255", *LINES[3:]), "not the index of an entry"),
        (joined(LINES[0], "index -1", *LINES[3:]), "not the index of an entry"),
        (joined(LINES[0], "index ٣", *LINES[3:]), "not the index of an entry"),
        (joined(LINES[0], "index 1 ", *LINES[3:]), "not the index of an entry"),
        (joined(LINES[0], "index " + "9" * 30, *LINES[3:]), "not the index of an entry"),
        (joined(*LINES, "YQ=="), "has 1 bytes, not 32"),
        (joined(*LINES[:3], *[LINES[3]] * 64), "up to 63 hashes"),
        (GOOD.replace("\n", "\r\n"), "begins with the line"),
        ("x" * (MAX_PROOF + 1), "over the limit"),
    ],
)
def test_what_is_written_in_another_way_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        ProofFile.parse(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Refused, match="not UTF-8"):
        ProofFile.parse(GOOD.encode() + b"\xff")


@given(st.integers(1, 2000), st.data())
def test_any_entry_of_any_log(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    log = UsageLog()
    log.extend(map(short_entry, range(size)))
    proof = ProofFile.parse(log.proof(index).text())
    assert proof.verify(None, LOG.verifier, [WITNESS.verifier]).entry == short_entry(index)
