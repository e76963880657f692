"""Random secrets that stand for a right: join tokens, sessions, API tokens, login links.

Owns how they are drawn and how they are stored: 128 bits or more, and only their SHA-256.
A fast hash is right here, because what is hashed cannot be guessed; looking a secret up by
its hash also compares in constant time, since nobody can steer the hash byte by byte.
`hub.store.tokens` and `hub.access.login` call it.

>>> len(new_secret()), new_secret("lichen_")[:7]
(26, 'lichen_')
>>> fingerprint("abc")[:16]
'ba7816bf8f01cfea'
"""

from __future__ import annotations

import base64
import hashlib
import secrets


def new_secret(prefix: str = "", *, bits: int = 128) -> str:
    """``prefix`` and ``bits`` random bits as lower-case base32: short enough to be typed once."""
    return prefix + base64.b32encode(secrets.token_bytes(bits // 8)).decode().rstrip("=").lower()


def fingerprint(secret: str) -> str:
    """What is stored of a secret: its SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
