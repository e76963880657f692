"""Cosignatures: as specified, by another implementation of Ed25519, and with every byte changed."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.cosignature import (
    MAX_AT_S,
    CosignatureVerifier,
    Cosigner,
    add_signature,
    cosign,
    open_cosigned,
)
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import Signer, Verifier, open_note, sign, split_note

LOG = Signer("example.com/behind-the-sofa", bytes(range(32)))
WITNESS = Cosigner("witness.example.com/w1", bytes(range(1, 33)))
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
AT_S = 1679315147
NOTE = sign(TEXT, LOG)
COSIGNED = add_signature(NOTE, cosign(NOTE, WITNESS, AT_S))
# https://c2sp.org/tlog-cosignature; nobody published the keys.
PUBLISHED = f"""{TEXT}
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501  it is a vector


def test_the_published_example_is_divided_as_ours() -> None:
    for note in (PUBLISHED, COSIGNED):
        text, ((log, _, signature), (witness, _, stamped)) = split_note(note)
        assert (text, log, len(signature)) == (TEXT, LOG.name, 64)
        assert (witness, len(stamped), int.from_bytes(stamped[:8], "big")) == (WITNESS.name, 72, AT_S)
    with pytest.raises(Corrupt, match=r"not cosigned by witness\.example\.com/w1"):
        open_cosigned(PUBLISHED, WITNESS.verifier)


def test_openssl_accepts_a_cosignature(tmp_path: Path) -> None:
    """What is signed is the message of the specification, letter by letter."""
    stamped = split_note(COSIGNED)[1][1][2]
    (tmp_path / "text").write_text(f"cosignature/v1\ntime 1679315147\n{TEXT}")
    (tmp_path / "signature").write_bytes(stamped[8:])
    # RFC 8410: the fixed head of an Ed25519 public key as SubjectPublicKeyInfo.
    spki = bytes.fromhex("302a300506032b6570032100") + WITNESS.verifier.public_key
    (tmp_path / "key.der").write_bytes(spki)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", "text", "-sigfile", "signature"]
    keyed = [*verify, "-pubin", "-keyform", "DER", "-inkey", "key.der"]
    good = subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    (tmp_path / "text").write_text(f"cosignature/v1\ntime 1679315148\n{TEXT}")
    bad = subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False)
    assert bad.returncode != 0


def test_the_text_and_the_time_come_out() -> None:
    assert open_cosigned(COSIGNED, WITNESS.verifier) == (TEXT, AT_S)
    assert open_cosigned(COSIGNED.encode(), WITNESS.verifier) == (TEXT, AT_S)
    assert open_note(COSIGNED, LOG.verifier) == TEXT


@pytest.mark.parametrize("at_s", [0, 1, 2**31, MAX_AT_S])
def test_any_time_that_can_be_written(at_s: int) -> None:
    assert open_cosigned(NOTE + cosign(NOTE, WITNESS, at_s), WITNESS.verifier) == (TEXT, at_s)


@pytest.mark.parametrize("at_s", [-1, MAX_AT_S + 1])
def test_no_other_time(at_s: int) -> None:
    with pytest.raises(Refused, match="is not a time of a cosignature"):
        cosign(NOTE, WITNESS, at_s)


def test_a_time_beyond_what_is_allowed_is_noticed() -> None:
    """SPEC tlog-cosignature: It MUST NOT exceed 2^63 - 1."""
    at_s = MAX_AT_S + 1
    message = f"cosignature/v1\ntime {at_s}\n{TEXT}".encode()
    stamped = at_s.to_bytes(8, "big") + Signer(WITNESS.name, WITNESS.seed).signature(message)
    line = f"— {WITNESS.name} {base64.b64encode(WITNESS.verifier.key_id + stamped).decode()}\n"
    with pytest.raises(Corrupt, match="does not match the text"):
        open_cosigned(NOTE + line, WITNESS.verifier)


@pytest.mark.parametrize("size", [1, 64, 71, 73])
def test_a_cosignature_of_another_length_is_noticed(size: int) -> None:
    line = f"— {WITNESS.name} {base64.b64encode(WITNESS.verifier.key_id + bytes(size)).decode()}\n"
    with pytest.raises(Corrupt, match="does not match the text"):
        open_cosigned(NOTE + line, WITNESS.verifier)


def test_every_changed_byte_is_noticed() -> None:
    raw = COSIGNED.encode()
    first = len(NOTE.encode())
    for at in range(len(raw)):
        for bit in (1, 32):
            changed = raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
            if at < len(TEXT.encode()) or at >= first:
                with pytest.raises((Corrupt, Refused)):
                    open_cosigned(changed, WITNESS.verifier)


def test_a_signature_is_no_cosignature_and_the_other_way_round() -> None:
    """One seed and one name for both: the key ids and what is signed still differ."""
    both = Cosigner(LOG.name, LOG.seed)
    assert both.verifier.key_id != LOG.verifier.key_id
    with pytest.raises(Corrupt, match="not cosigned"):
        open_cosigned(NOTE, both.verifier)
    with pytest.raises(Corrupt, match="with no key of"):
        open_note(f"{TEXT}\n{cosign(NOTE, both, AT_S)}", LOG.verifier)


def test_the_newest_of_several_counts() -> None:
    twice = add_signature(COSIGNED, cosign(COSIGNED, WITNESS, AT_S - 60))
    assert open_cosigned(twice, WITNESS.verifier) == (TEXT, AT_S)


def test_what_others_cosigned_is_not_looked_at() -> None:
    other = Cosigner(WITNESS.name, bytes(32))
    note = add_signature(COSIGNED, cosign(NOTE, other, AT_S + 60))
    assert open_cosigned(note, WITNESS.verifier) == (TEXT, AT_S)
    assert open_cosigned(note, other.verifier) == (TEXT, AT_S + 60)


@pytest.mark.parametrize("line", ["", "\n", "a\n", "— a\n", COSIGNED[len(NOTE) :] * 2])
def test_only_one_line_is_added(line: str) -> None:
    with pytest.raises(Refused):
        add_signature(NOTE, line)


def test_a_line_is_not_added_twice() -> None:
    with pytest.raises(Refused, match="appears twice"):
        add_signature(COSIGNED, cosign(NOTE, WITNESS, AT_S))


def test_a_key_as_text() -> None:
    vkey = WITNESS.vkey
    assert CosignatureVerifier.parse(vkey) == WITNESS.verifier
    assert CosignatureVerifier.of(Verifier(WITNESS.name, WITNESS.verifier.public_key)) == WITNESS.verifier
    for at in range(len(vkey)):
        with pytest.raises(Refused):
            CosignatureVerifier.parse(vkey[:at] + chr(ord(vkey[at]) ^ 1) + vkey[at + 1 :])
    with pytest.raises(Refused, match="not an Ed25519 key of type 04"):
        CosignatureVerifier.parse(LOG.vkey)
    with pytest.raises(Refused, match="not an Ed25519 key of type 01"):
        Verifier.parse(vkey)


def test_the_secret_is_in_no_repr() -> None:
    assert repr(WITNESS.seed) not in repr(WITNESS)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_anything_else_is_refused(note: str | bytes) -> None:
    with pytest.raises((Refused, Corrupt)):
        open_cosigned(note, WITNESS.verifier)
