"""Sealed boxes: secrets that only the holder of one key can read.

A box is libsodium's ``crypto_box_seal`` (an anonymous sender; X25519, XSalsa20-Poly1305), as
base64 in one line.  It says nothing about who sealed it: what a board may act on is the
signed order around the box (`agent.wire.note`), never the box alone.  A public key is the base64
of its 32 bytes, a secret key that of its own 32.  Hubs seal; boards unseal; nothing here
does I/O.

>>> key = SealKey.parse("d2hhdCBhIGJvYXJkIG5ldmVyIHRlbGxzIGFueWJvZHk=")
>>> key.public
'qYlTKtrVR+F2ieovoqQMP9IBXphgpoFtQLnkTbe3GQo='
>>> box = seal(key.public, b"the password")
>>> len(box), key.unseal(box)
(80, b'the password')
>>> generate().unseal(box)
Traceback (most recent call last):
agent.wire.errors.Corrupt: the sealed box was not made for this key, or was changed on the way
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nacl import bindings
from nacl.exceptions import CryptoError

from agent.wire.canonical import from_base64, to_base64
from agent.wire.errors import Corrupt, Refused

MAX_BOX = 1024 * 1024
"""Longest box accepted, in characters."""


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key pair of a board; made by `generate` or `SealKey.parse`."""

    secret: bytes = field(repr=False)
    public: str

    @classmethod
    def parse(cls, text: str) -> SealKey:
        """The key pair whose `text` this is.  Raises Refused."""
        secret = from_base64(text.strip(), "sealing key", bindings.crypto_box_SECRETKEYBYTES)
        return cls(secret, to_base64(bindings.crypto_scalarmult_base(secret)))

    @property
    def text(self) -> str:
        """What `parse` reads back: the secret key; keep it in a file of mode 0600."""
        return to_base64(self.secret)

    def unseal(self, box: str) -> bytes:
        """What was sealed.  Raises Refused for what is no box, Corrupt for what this key does not open."""
        if len(box) > MAX_BOX:
            raise Refused(f"a sealed box of {len(box)} characters is over {MAX_BOX}", code="too-large")
        sealed = from_base64(box, "sealed box")
        try:
            public = from_base64(self.public, "sealing key")
            return bindings.crypto_box_seal_open(sealed, public, self.secret)
        except (CryptoError, TypeError) as error:
            raise Corrupt("the sealed box was not made for this key, or was changed on the way") from error


def generate() -> SealKey:
    """A new key pair."""
    public, secret = bindings.crypto_box_keypair()
    return SealKey(secret, to_base64(public))


def check_public(public: str) -> str:
    """Return ``public`` if it is a sealing public key that something can be sealed to.  Raises Refused."""
    seal(public, b"")
    return public


def seal(public: str, plaintext: bytes) -> str:
    """A box that only the secret key of ``public`` opens.  Raises Refused for a bad key."""
    key = from_base64(public, "sealing key", bindings.crypto_box_PUBLICKEYBYTES)
    try:
        return to_base64(bindings.crypto_box_seal(plaintext, key))
    except CryptoError as error:
        # Points of low order give a shared secret that everybody knows.
        raise Refused("the sealing key is a point of low order") from error
