"""What we sign and prove is checked by others: by the notes and trees of the Go authors, and by openssl."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from support import goverify
from support.logs import AT_S, BOARD, LOG, WITNESS, UsageLog, entry

USAGE = UsageLog.of(300)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    return goverify.build(tmp_path_factory.mktemp("verify"))


def verify(
    program: Path, proofs: Iterable[bytes], log: str = LOG.vkey, witness: str = WITNESS.vkey
) -> list[str]:
    """What the program says of each proof."""
    return goverify.verify(program, proofs, log, witness)


def test_go_accepts_every_proof_of_a_log(verifier: Path) -> None:
    said = verify(verifier, (USAGE.proof(index).text().encode() for index in range(USAGE.size)))
    assert said == [f"good {index} 300 {AT_S}" for index in range(USAGE.size)]


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257])
def test_go_accepts_the_last_proof_of_logs_of_every_shape(verifier: Path, size: int) -> None:
    assert verify(verifier, [UsageLog.of(size).proof(size - 1).text().encode()]) == [
        f"good {size - 1} {size} {AT_S}"
    ]


def test_go_refuses_each_with_one_changed_byte(verifier: Path) -> None:
    for index in (0, 256, 299):
        proof = USAGE.proof(index).text().encode()
        wrong = [
            proof[:at] + bytes([proof[at] ^ bit]) + proof[at + 1 :]
            for at in range(len(proof))
            for bit in (1, 4, 32)
        ]
        said = verify(verifier, (each for each in wrong if b"\0" not in each))
        assert {line.partition(" ")[0] for line in said} == {"bad"}


def test_go_refuses_other_keys_and_other_entries(verifier: Path) -> None:
    proof = USAGE.proof(7)
    good = [proof.text().encode()]
    other = UsageLog.of(300, lambda seq: entry(seq + 1))
    assert verify(verifier, good)[0].startswith("good")
    assert verify(verifier, good, log=BOARD.vkey)[0].startswith("bad")
    for each in (other.proof(7).hashes, proof.hashes[:-1], proof.hashes[::-1]):
        changed = type(proof)(proof.index, each, proof.note, proof.extra).text().encode()
        assert verify(verifier, [changed])[0].startswith("bad")


def test_openssl_accepts_a_checkpoint(tmp_path: Path) -> None:
    text, _, lines = USAGE.note().partition("\n\n")
    (tmp_path / "text").write_text(f"{text}\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(lines.split()[2])[4:])
    # RFC 8410: the fixed head of an Ed25519 public key as SubjectPublicKeyInfo.
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + LOG.public_key)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", "text", "-sigfile", "signature"]
    keyed = [*verify, "-pubin", "-keyform", "DER", "-inkey", "key.der"]
    good = subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    (tmp_path / "text").write_text(f"{text}\n".replace("\n300\n", "\n301\n"))
    assert subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False).returncode != 0
