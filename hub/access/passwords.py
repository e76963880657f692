"""Passwords of admins, stored as argon2id strings.

Owns the cost of a hash and the rule for a new password; `hub.access.login` calls it on a
thread of its own, since one hash takes a tenth of a second and 64 MiB.  It stores nothing
and never logs.

>>> stored = hash_password("correct horse battery")
>>> stored.split("$")[1:4]
['argon2id', 'v=19', 'm=65536,t=3,p=1']
>>> verify(stored, "correct horse battery"), verify(stored, "wrong"), verify(None, "wrong")
(True, False, False)
"""

from __future__ import annotations

import secrets

from nacl.exceptions import InvalidkeyError
from nacl.pwhash import argon2id

from agent.wire.errors import ConfigError

# RFC 9106, section 4, second recommended option (t=3, m=64 MiB), with the one lane of libsodium.
PASSES = 3
MEMORY_BYTES = 64 * 1024 * 1024
SHORTEST = 10
LONGEST_BYTES = 1024

# Verified in place of a name that does not exist, so that both answers take the same time.
# Salt and tag are arbitrary: no password leads to this tag.
_NOBODY = b"$argon2id$v=19$m=65536,t=3,p=1$bGljaGVubGljaGVubGljaA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def check_password(password: str, what: str = "password") -> str:
    """Return a new password that is good enough, called ``what``.  Raises ConfigError."""
    if len(password) < SHORTEST:
        raise ConfigError(
            f"the {what} has {len(password)} characters; at least {SHORTEST} are needed",
            hint="a few words in a row are easy to keep in mind and hard to guess",
        )
    if len(_bytes(password)) > LONGEST_BYTES:
        raise ConfigError(f"the {what} is over {LONGEST_BYTES} bytes long")
    return password


def generate() -> str:
    """A new password of 100 bits that a person can copy from a screen."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    groups = ("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))
    return "-".join(groups)


def hash_password(password: str) -> str:
    """The string to store for ``password``; blocks for about 0.1 s."""
    return argon2id.str(_bytes(password), opslimit=PASSES, memlimit=MEMORY_BYTES).decode()


def verify(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the one behind ``stored``; None stands for a name nobody has."""
    attempt = _bytes(password)
    if len(attempt) > LONGEST_BYTES:
        return False
    try:
        return argon2id.verify(stored.encode() if stored else _NOBODY, attempt) and stored is not None
    except InvalidkeyError:
        return False


def _bytes(password: str) -> bytes:
    # JSON may carry lone surrogates, which plain UTF-8 refuses to encode.
    return password.encode("utf-8", "surrogatepass")
