"""Signed notes against the vectors, and against another implementation of Ed25519."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.wire.errors import Corrupt, Refused
from agent.wire.note import (
    MAX_NOTE,
    MAX_SIGNATURES,
    Signer,
    Verifier,
    generate,
    open_note,
    party_id,
    sign,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signed-note.json").read_text("utf-8"))
ERRORS = {"refused": Refused, "corrupt": Corrupt}
PETER = VECTORS["keys"][0]
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"


def named(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", named(VECTORS["notes"]))
def test_notes_of_the_vectors(case: dict[str, Any]) -> None:
    verifiers = [Verifier.parse(vkey) for vkey in case["vkeys"]]
    for note in (case["note"], case["note"].encode()):
        if "text" in case:
            assert open_note(note, *verifiers) == case["text"]
        else:
            with pytest.raises(ERRORS[case["error"]]):
                open_note(note, *verifiers)


@pytest.mark.parametrize("key", VECTORS["keys"], ids=lambda key: str(key["vkey"]).partition("+")[0])
def test_keys_of_the_vectors(key: dict[str, str]) -> None:
    signer = Signer.parse(key["skey"])
    assert (signer.skey, signer.vkey) == (key["skey"], key["vkey"])
    assert Verifier.parse(key["vkey"]) == signer.verifier
    assert party_id(signer.public_key) == key["party"]


@pytest.mark.parametrize("key", named(VECTORS["weak_keys"]))
def test_weak_public_keys_are_refused(key: dict[str, str]) -> None:
    with pytest.raises(Refused, match="not a canonical point of prime order"):
        Verifier.parse(key["vkey"])


def test_signing_gives_the_published_bytes() -> None:
    published = next(case["note"] for case in VECTORS["notes"] if case["name"] == "two signatures, one known")
    peter = published.rpartition("— EnochRoot")[0]
    assert sign(TEXT, Signer.parse(PETER["skey"])) == peter


@pytest.mark.parametrize("kind", ["skey", "vkey"])
def test_no_part_and_no_mangling_of_a_key_is_a_key(kind: str) -> None:
    text = PETER[kind]
    parse = {"skey": Signer.parse, "vkey": Verifier.parse}[kind]
    parts = {text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)} - {text}
    mangled = {text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :] for i in range(len(text))}
    for other in parts | mangled | {text + "\n", " " + text, text + "A", text.upper()}:
        with pytest.raises(Refused):
            parse(other)


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann",
        "++",
        "",
    ],
    ids=["too long", "another algorithm", "upper-case hash", "only a name", "only plus signs", "empty"],
)
def test_keys_written_otherwise_are_refused(vkey: str) -> None:
    with pytest.raises(Refused):
        Verifier.parse(vkey)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a+b", "a\tb", "a\nb", "a\u2003b", "a\u0085b", "a\u3000b", "\x00", "\ud800", "n" * 256],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refused):
        Signer(name, bytes(32))
    with pytest.raises(Refused):
        Verifier(name, generate().public_key)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(Refused, match=f"{size} bytes"):
        Signer("a", bytes(size))
    with pytest.raises(Refused, match=f"{size} bytes"):
        Verifier("a", bytes(size))


@pytest.mark.parametrize("text", ["", "no newline", "a\rb\n", "a\x00\n", "half a pair \ud800\n"])
def test_texts_that_cannot_be_signed(text: str) -> None:
    with pytest.raises(Refused):
        sign(text, generate())


def test_signers_are_some_and_different() -> None:
    signer = generate()
    for signers in ((), (signer, signer), [generate() for _ in range(MAX_SIGNATURES + 1)]):
        with pytest.raises(Refused, match="different signers"):
            sign("text\n", *signers)


def test_sixteen_signatures_are_accepted_and_too_many_are_not() -> None:
    signers = [generate() for _ in range(MAX_SIGNATURES)]
    assert open_note(sign("text\n", *signers[:16]), signers[15].verifier) == "text\n"
    note = sign("text\n", *signers)
    assert open_note(note, signers[-1].verifier) == "text\n"
    with pytest.raises(Refused) as raised:
        open_note(note + sign("text\n", generate()).removeprefix("text\n\n"), signers[0].verifier)
    assert raised.value.code == "too-large"


@pytest.mark.parametrize(
    "letter", ["a", "é", b"a", "é".encode()], ids=["str", "wide str", "bytes", "wide bytes"]
)
def test_the_size_is_checked_in_bytes(letter: str | bytes) -> None:
    size = len(letter.encode() if isinstance(letter, str) else letter)
    with pytest.raises(Refused) as raised:
        open_note(letter * (MAX_NOTE // size + 1), generate().verifier)
    assert raised.value.code == "too-large"


def test_what_is_not_utf8_is_refused() -> None:
    signer = generate()
    for note in (b"\xff" + sign("a\n", signer).encode(), "\ud800" + sign("a\n", signer)):
        with pytest.raises(Refused, match="UTF-8"):
            open_note(note, signer.verifier)


def test_a_key_that_shares_only_the_name_is_unknown() -> None:
    mine, other = generate("board"), generate("board")
    assert open_note(sign("a\n", other, mine), mine.verifier) == "a\n"
    with pytest.raises(Corrupt, match="signed by board, with no key of board"):
        open_note(sign("a\n", other), mine.verifier)


def test_a_generated_key_is_named_by_its_party() -> None:
    signer = generate()
    assert signer.name == party_id(signer.public_key)
    assert generate("hub/order").name == "hub/order"
    assert generate() != generate()


def test_a_secret_is_in_no_repr_and_no_error() -> None:
    signer = generate("board")
    secret = base64.b64encode(signer.seed).decode()
    assert secret not in repr(signer)
    assert repr(signer.seed) not in repr(signer)
    with pytest.raises(Refused) as raised:
        Signer.parse(signer.skey[:-4] + "AAA=")
    assert signer.skey[-40:-8] not in str(raised.value)


def test_openssl_accepts_a_signature(tmp_path: Path) -> None:
    signer = generate("board")
    note = sign("lichen/time/v1\n{}\n", signer)
    text, _, line = note.rpartition("\n\n")
    (tmp_path / "text").write_text(f"{text}\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(line.split()[-1])[4:])
    # RFC 8410: the fixed head of an Ed25519 public key as SubjectPublicKeyInfo.
    spki = bytes.fromhex("302a300506032b6570032100") + signer.public_key
    (tmp_path / "key.der").write_bytes(spki)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", "text", "-sigfile", "signature"]
    keyed = [*verify, "-pubin", "-keyform", "DER", "-inkey", "key.der"]
    good = subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    (tmp_path / "text").write_text(f"{text} \n")
    bad = subprocess.run(keyed, cwd=tmp_path, capture_output=True, check=False)
    assert bad.returncode != 0
