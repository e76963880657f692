"""Signed notes: texts with Ed25519 signatures, and the keys that make and check them.

The format is the C2SP signed note (https://c2sp.org/signed-note): a text that ends in a newline,
a blank line, and one line per signature, which is an em dash, the name of the key, and base64 of
four bytes of key id and the signature of the text.

    key id = SHA-256(name || 0x0A || 0x01 || public key)[:4]

>>> signer = Signer.parse("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
>>> note = sign('''If you think cryptography is the answer to your problem,
... then you don't know what your problem is.
... ''', signer)
>>> print(note, end="")
If you think cryptography is the answer to your problem,
then you don't know what your problem is.
<BLANKLINE>
— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
>>> signer.vkey
'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'
>>> open_note(note, Verifier.parse(signer.vkey)).splitlines()[1]
"then you don't know what your problem is."

A text may only be used once `open_note` has returned it.  A name is not covered by the signature,
so what is signed says itself what it is (`agent.wire.messages.compose`).  A party is known by a hash of
its key: a board by that of its log key, a hub by that of its root key.

>>> party_id(signer.public_key)
'y6u5kqprc2xifc3j'

There is one way to write every note and every key, and everything else is Refused: the same
key twice, base64 with stray bits, control characters.  A signature that does not hold is Corrupt.
Both sides use this module; it reads and writes no files.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from nacl import bindings
from nacl.exceptions import BadSignatureError

from agent.wire.canonical import from_base64, to_base64
from agent.wire.errors import Corrupt, Refused

MAX_NOTE = 1024 * 1024
"""Largest note accepted, in bytes."""
MAX_SIGNATURES = 64
"""Most signature lines accepted.  SPEC signed-note: MUST accept at least up to 16."""
MAX_NAME = 255

ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


def party_id(public_key: bytes) -> str:
    """The id of the board or hub with this key: 16 of the characters a-z and 2-7."""
    return base64.b32encode(hashlib.sha256(public_key).digest())[:16].decode().lower()


# --- keys --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verifier:
    """A named public key (32 bytes).  Raises Refused for a name or key that cannot be one."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != bindings.crypto_sign_PUBLICKEYBYTES:
            raise Refused(f"the public key of {self.name} has {len(self.public_key)} bytes, not 32")
        # Under a key of low order one signature fits many texts; a second way to write one
        # key would give one party two ids.  libsodium checks both, and the prime order.
        if not bindings.crypto_core_ed25519_is_valid_point(self.public_key):
            raise Refused(f"the public key of {self.name} is not a canonical point of prime order")

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Read ``name+hash+base64(0x01 || public key)``.  Raises Refused."""
        name, key_hash, public_key = parse_key(vkey, "verifier key")
        verifier = cls(name, public_key)
        _check_hash(verifier, key_hash)
        return verifier

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand for this key before each of its signatures."""
        text = self.name.encode() + b"\n" + ED25519 + self.public_key
        return hashlib.sha256(text).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text form of this key."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(ED25519 + self.public_key)}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is one of ``text`` by this key."""
        if len(signature) != bindings.crypto_sign_BYTES:
            return False
        try:
            bindings.crypto_sign_open(signature + text, self.public_key)
        except BadSignatureError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A named private key, from its seed of 32 bytes.  Raises Refused for a bad name or size."""

    name: str
    seed: bytes = field(repr=False)
    verifier: Verifier = field(init=False)

    def __post_init__(self) -> None:
        if len(self.seed) != bindings.crypto_sign_SEEDBYTES:
            raise Refused(f"the seed of {self.name[:MAX_NAME]!r} has {len(self.seed)} bytes, not 32")
        public_key, _ = bindings.crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "verifier", Verifier(self.name, public_key))

    @classmethod
    def parse(cls, skey: str) -> Signer:
        """Read ``PRIVATE+KEY+name+hash+base64(0x01 || seed)``.  Raises Refused."""
        if not skey.startswith(_PRIVATE):
            raise Refused(f"a private key begins with {_PRIVATE}; this text does not")
        name, key_hash, seed = parse_key(skey.removeprefix(_PRIVATE), "private key")
        signer = cls(name, seed)
        _check_hash(signer.verifier, key_hash)
        return signer

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.verifier.public_key

    @property
    def vkey(self) -> str:
        """The text form of the public key."""
        return self.verifier.vkey

    @property
    def skey(self) -> str:
        """The text form of the private key; keep it in a file of mode 0600."""
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{to_base64(ED25519 + self.seed)}"

    def signature(self, text: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of ``text`` (RFC 8032)."""
        _, secret_key = bindings.crypto_sign_seed_keypair(self.seed)
        return bindings.crypto_sign(text, secret_key)[: bindings.crypto_sign_BYTES]


def generate(name: str = "") -> Signer:
    """A new key; without a name it is named by its own `party_id`, as log and root keys are."""
    seed = secrets.token_bytes(bindings.crypto_sign_SEEDBYTES)
    if not name:
        public_key, _ = bindings.crypto_sign_seed_keypair(seed)
        name = party_id(public_key)
    return Signer(name, seed)


def parse_key(text: str, what: str, algorithm: bytes = ED25519) -> tuple[str, str, bytes]:
    """Name, hash and the 32 bytes of ``name+hash+base64``, none of which is in an error.  Raises Refused."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not re.fullmatch(r"[0-9a-f]{8}", parts[1], re.ASCII):
        raise Refused(f"a {what} is written name+hash+base64 with a hash of 8 lower-case hexadecimal digits")
    name, key_hash, encoded = parts
    raw = from_base64(encoded, what)
    if raw[:1] != algorithm or len(raw) != 33:
        raise Refused(f"the {what} {name[:MAX_NAME]!r} is not an Ed25519 key of type {algorithm.hex()}")
    return name, key_hash, raw[1:]


def _check_hash(verifier: Verifier, key_hash: str) -> None:
    if verifier.key_id.hex() != key_hash:
        raise Refused(
            f"the hash {key_hash} does not belong to the key {verifier.name}",
            hint="the key was cut or mistyped: copy it again",
        )


def _check_name(name: str) -> None:
    # SPEC signed-note: key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus.
    if not 0 < len(name) <= MAX_NAME or "+" in name or _CONTROL.search(name) or any(map(str.isspace, name)):
        raise Refused(f"{name[:64]!r} is not a key name of 1 to {MAX_NAME} characters without space or plus")
    _utf8(name)


# --- notes -------------------------------------------------------------------------------------


def sign(text: str, *signers: Signer) -> str:
    """The note of ``text`` with a signature by each signer.  Raises Refused for a text that cannot be one."""
    _check_text(text)
    encoded = _utf8(text)
    if not 0 < len({signer.verifier for signer in signers}) == len(signers) <= MAX_SIGNATURES:
        raise Refused(f"a note takes 1 to {MAX_SIGNATURES} different signers, not {len(signers)}")
    signatures = ((signer, signer.verifier.key_id + signer.signature(encoded)) for signer in signers)
    lines = (f"— {signer.name} {to_base64(signature)}\n" for signer, signature in signatures)
    return f"{text}\n{''.join(lines)}"


def open_note(note: str | bytes, *verifiers: Verifier) -> str:
    """The text of a note that at least one of ``verifiers`` signed.

    Raises Corrupt when none did or one of their signatures is bad, Refused when this is no
    note, or is one written in another way than `sign` writes it.
    """
    text, signatures = split_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    if len(known) != len(set(verifiers)):
        raise Refused("two of the verifier keys have the same name and key id")
    encoded = text.encode()
    signed = set()
    for name, key_id, signature in signatures:
        # SPEC signed-note: verifiers MUST ignore signatures from unknown keys, even if they share
        # a name or ID (but not both) with a known key.
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if verifier in signed:
            raise Refused(f"the note is signed twice by {name}")
        # SPEC signed-note: if a signature from a known key fails, clients SHOULD reject the whole note.
        if not verifier.verifies(encoded, signature):
            raise Corrupt(f"the signature by {name} does not match the text")
        signed.add(verifier)
    if not signed:
        by = ", ".join(sorted({name for name, _, _ in signatures})[:4])
        wanted = " or ".join(sorted(verifier.name for verifier in verifiers)) or "nobody"
        raise Corrupt(f"the note is signed by {by}, with no key of {wanted}")
    return text


def split_note(note: str | bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and (name, key id, signature) of each line; nothing is verified yet.  Raises Refused."""
    if len(note) > MAX_NOTE:
        raise Refused(f"a note of {len(note)} is over the limit of {MAX_NOTE} bytes", code="too-large")
    if isinstance(note, bytes):
        try:
            note = note.decode()
        except UnicodeDecodeError as error:
            raise Refused(f"the note is not UTF-8: {error.reason} at byte {error.start}") from error
    if len(_utf8(note)) > MAX_NOTE:
        raise Refused(f"the note is over the limit of {MAX_NOTE} bytes", code="too-large")
    # SPEC signed-note: the text is separated from the signatures by the last empty line.
    split = note.rfind("\n\n") + 1
    text, lines = note[:split], note[split + 1 :]
    _check_text(text)
    if not lines.endswith("\n") or _CONTROL.search(lines):
        raise Refused("the note does not end in signature lines")
    return text, _signatures(lines[:-1].split("\n"))


def _signatures(lines: list[str]) -> list[tuple[str, bytes, bytes]]:
    if len(lines) > MAX_SIGNATURES:
        raise Refused(f"{len(lines)} signatures are over the limit of {MAX_SIGNATURES}", code="too-large")
    if len(set(lines)) != len(lines):
        raise Refused("a signature line appears twice")
    parsed = []
    for line in lines:
        match line.split(" "):
            case ["—", name, encoded]:
                _check_name(name)
                raw = from_base64(encoded, "signature")
            case _:
                raise Refused(f"{line[:64]!r} is not a signature line (an em dash, a key name, base64)")
        if len(raw) < 5:
            raise Refused(f"the signature by {name} is too short to hold a key id and a signature")
        parsed.append((name, raw[:4], raw[4:]))
    return parsed


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise Refused("the text of a note must end with a newline, before a blank line and signatures")
    # SPEC signed-note: MUST NOT contain any ASCII control characters other than newline.
    if found := _CONTROL.search(text):
        raise Refused(f"the text of a note holds the control character {found.group()!r}")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Refused("half a surrogate pair is not UTF-8") from error
