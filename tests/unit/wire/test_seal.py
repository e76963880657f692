"""Sealed boxes, and what is not one."""

from __future__ import annotations

import base64

import pytest

from agent.wire.errors import Corrupt, Refused
from agent.wire.seal import MAX_BOX, SealKey, check_public, generate, seal


@pytest.mark.parametrize("plaintext", [b"", b"a", b"\x00" * 100, bytes(range(256)) * 16])
def test_what_is_sealed_is_unsealed(plaintext: bytes) -> None:
    key = generate()
    assert key.unseal(seal(key.public, plaintext)) == plaintext
    assert SealKey.parse(key.text + "\n").unseal(seal(key.public, plaintext)) == plaintext


def test_the_same_secret_never_looks_the_same() -> None:
    key = generate()
    assert seal(key.public, b"secret") != seal(key.public, b"secret")


def test_a_secret_key_is_not_in_the_repr() -> None:
    key = generate()
    assert key.text not in repr(key)
    assert repr(key.secret) not in repr(key)


def test_every_changed_byte_is_noticed() -> None:
    key = generate()
    raw = base64.b64decode(seal(key.public, b"secret"))
    for index in range(len(raw)):
        changed = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(Corrupt):
            key.unseal(base64.b64encode(changed).decode())
    for length in range(len(raw)):
        with pytest.raises(Corrupt):
            key.unseal(base64.b64encode(raw[:length]).decode())


@pytest.mark.parametrize("box", ["?", "AAA", "AA=", "AB==", "ÄÄÄÄ", " AAAA", "AAAA\n", "A" * (MAX_BOX + 4)])
def test_what_is_no_base64_is_refused(box: str) -> None:
    with pytest.raises(Refused):
        generate().unseal(box)


@pytest.mark.parametrize(
    "public",
    [
        "",
        "AAAA",
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(b"\x01" + bytes(31)).decode(),
        "x" * 44,
    ],
    ids=["empty", "short", "zero", "low order", "not canonical"],
)
def test_keys_that_nothing_is_sealed_to(public: str) -> None:
    with pytest.raises(Refused):
        check_public(public)


def test_a_good_key_is_handed_back() -> None:
    public = generate().public
    assert check_public(public) == public
