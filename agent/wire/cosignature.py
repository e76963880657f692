"""Cosignatures: what a witness says of a checkpoint, and when.

The format is the C2SP cosignature (https://c2sp.org/tlog-cosignature), version 1 over Ed25519.  It is one
more signature line of the note that the log signed itself; what is signed is not the text alone:

    cosignature/v1
    time 1679315147
    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

and the line holds, after the key id, eight bytes of the time (big-endian) and the 64 of the signature.

    key id = SHA-256(name || 0x0A || 0x04 || public key)[:4]

So a cosignature can never be taken for a signature, or a signature for it, even under one key.

>>> from agent.wire.note import Signer, open_note, sign
>>> witness = Cosigner("witness.example.com/w1", bytes(32))
>>> log = Signer("example.com/log", bytes(32))
>>> note = sign("example.com/log\\n20852163\\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\\n", log)
>>> cosigned = add_signature(note, cosign(note, witness, 1679315147))
>>> text, at_s = open_cosigned(cosigned, witness.verifier)
>>> text.splitlines()[1], at_s
('20852163', 1679315147)
>>> open_note(cosigned, log.verifier) == text
True
>>> open_cosigned(note, witness.verifier)
Traceback (most recent call last):
agent.wire.errors.Corrupt: the note is not cosigned by witness.example.com/w1

A hub's cosignature is its *receipt*: "at this time this was the largest tree that I held of this log, and
it began with every smaller one that I ever cosigned".  Whoever cosigns looked first; nothing here does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from agent.wire.canonical import to_base64
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import Signer, Verifier, parse_key, split_note

COSIGNATURE = b"\x04"
MAX_AT_S = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """A named public key (32 bytes) of a witness.  Raises Refused for a name or key that cannot be one."""

    name: str
    public_key: bytes
    key: Verifier = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Verifier(self.name, self.public_key))

    @classmethod
    def parse(cls, vkey: str) -> CosignatureVerifier:
        """Read ``name+hash+base64(0x04 || public key)``.  Raises Refused."""
        name, key_hash, public_key = parse_key(vkey, "cosignature key", COSIGNATURE)
        verifier = cls(name, public_key)
        if verifier.key_id.hex() != key_hash:
            raise Refused(
                f"the hash {key_hash} does not belong to the key {name}",
                hint="the key was cut or mistyped: copy it again",
            )
        return verifier

    @classmethod
    def of(cls, verifier: Verifier) -> CosignatureVerifier:
        """The same name and key, for cosignatures instead of signatures."""
        return cls(verifier.name, verifier.public_key)

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand for this key before each of its cosignatures."""
        text = self.name.encode() + b"\n" + COSIGNATURE + self.public_key
        return hashlib.sha256(text).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text form of this key."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(COSIGNATURE + self.public_key)}"


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A named private key of a witness, from its seed of 32 bytes.  Raises Refused."""

    name: str
    seed: bytes = field(repr=False)
    verifier: CosignatureVerifier = field(init=False)

    def __post_init__(self) -> None:
        public_key = Signer(self.name, self.seed).public_key
        object.__setattr__(self, "verifier", CosignatureVerifier(self.name, public_key))

    @property
    def vkey(self) -> str:
        """The text form of the public key."""
        return self.verifier.vkey


def cosign(note: str | bytes, cosigner: Cosigner, at_s: int) -> str:
    """The signature line of ``cosigner`` for a note, whose text it read and found true.  Raises Refused."""
    text, _ = split_note(note)
    if not 0 <= at_s <= MAX_AT_S:
        raise Refused(f"{at_s} is not a time of a cosignature")
    signature = Signer(cosigner.name, cosigner.seed).signature(_message(text, at_s))
    stamped = cosigner.verifier.key_id + at_s.to_bytes(8, "big") + signature
    return f"— {cosigner.name} {to_base64(stamped)}\n"


def add_signature(note: str, line: str) -> str:
    """The note with one signature line more.  Raises Refused for no line, or one that is there already."""
    _, before = split_note(note)
    _, after = split_note(note + line)
    if len(after) != len(before) + 1:
        raise Refused(f"{line[:64]!r} is not one signature line")
    return note + line


def open_cosigned(note: str | bytes, verifier: CosignatureVerifier) -> tuple[str, int]:
    """The text that the witness cosigned, and the time in seconds since 1970 at which it did.

    Raises Corrupt when it did not or its cosignature is bad, Refused when this is no note.  The newest
    counts where there are several.
    """
    text, signatures = split_note(note)
    times = []
    for name, key_id, stamped in signatures:
        if (name, key_id) != (verifier.name, verifier.key_id):
            continue
        at_s = int.from_bytes(stamped[:8], "big")
        # SPEC tlog-cosignature: It MUST NOT exceed 2^63 - 1.
        if (
            len(stamped) != 72
            or at_s > MAX_AT_S
            or not verifier.key.verifies(_message(text, at_s), stamped[8:])
        ):
            raise Corrupt(f"the cosignature by {name} does not match the text")
        times.append(at_s)
    if not times:
        raise Corrupt(f"the note is not cosigned by {verifier.name}")
    return text, max(times)


def _message(text: str, at_s: int) -> bytes:
    # SPEC tlog-cosignature: two newline terminated lines followed by the whole note body.
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()
