"""Secrets at rest: what the hub keeps of passwords that it has to tell again, to boards.

Owns ``keys/vault.key`` (0600; part of every backup) and the form of a sealed text.  `hub.apps` seals
secrets of apps and passwords of registries with it before they go to the store, and opens them to seal
them anew, to a board (`agent.wire.seal`).  Passwords of admins are not here: those are only ever
compared (`hub.access.passwords`).

A sealed text is base64 of a random nonce of 24 bytes and XChaCha20-Poly1305 of the plaintext (libsodium).
The ``purpose`` is its additional data: a text that was moved to another row does not open there.

>>> vault = Vault(bytes(32))
>>> sealed = vault.seal(b"the password", "secret demo/db v1")
>>> vault.open(sealed, "secret demo/db v1")
b'the password'
>>> vault.open(sealed, "secret other/db v1")
Traceback (most recent call last):
agent.wire.errors.Corrupt: the vault's key does not open the secret other/db v1

To tell that a text with a secret in it is the same as before, without saying anything of it:

>>> vault.fingerprint(b"password=x"), vault.fingerprint(b"password=y")
('9ea0f9a4c808d48b4ec8f8d32ab7c86f', 'b09e4a1a3285e3ad8ab99f8598d87e29')
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from nacl import bindings
from nacl.exceptions import CryptoError

from agent.base.files import write_file
from agent.wire.canonical import from_base64, to_base64
from agent.wire.errors import ConfigError, Corrupt, Refused

FILE = "vault.key"
KEY_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES


@dataclass(frozen=True, slots=True)
class Vault:
    """Seals and opens with one key."""

    key: bytes = field(repr=False)

    def seal(self, plaintext: bytes, purpose: str) -> str:
        """A text that only this vault opens, and only for the same purpose."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            plaintext, purpose.encode(), nonce, self.key
        )
        return to_base64(nonce + sealed)

    def open(self, sealed: str, purpose: str) -> bytes:
        """What was sealed.  Raises Corrupt."""
        try:
            raw = from_base64(sealed, "sealed text")
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                raw[NONCE_BYTES:], purpose.encode(), raw[:NONCE_BYTES], self.key
            )
        except (CryptoError, Refused, ValueError, TypeError) as error:
            raise Corrupt(
                f"the vault's key does not open the {purpose}",
                hint=f"keys/{FILE} and the database belong together: restore both from one backup",
            ) from error

    def fingerprint(self, text: bytes) -> str:
        """32 hexadecimal digits that are the same for the same text, and mean nothing without the key."""
        return hashlib.blake2b(text, key=self.key, digest_size=16, person=b"lichen-print").hexdigest()


def generate() -> Vault:
    """A vault with a new key."""
    return Vault(secrets.token_bytes(KEY_BYTES))


def save(folder: Path, vault: Vault) -> None:
    """Write the key, readable by the hub's user only."""
    write_file(folder / FILE, f"{to_base64(vault.key)}\n".encode())


def load(folder: Path, *, is_needed: bool) -> Vault:
    """The vault whose key lies in ``folder``; a hub that has nothing to open yet (not ``is_needed``)
    gets a new one, as hubs of earlier versions have none.

    Raises ConfigError for a key that is missing though something was sealed with it, or is none.
    """
    path = folder / FILE
    if not path.exists() and not is_needed:
        vault = generate()
        save(folder, vault)
        return vault
    try:
        return Vault(from_base64(path.read_text("ascii").strip(), "vault key", KEY_BYTES))
    except (OSError, UnicodeDecodeError, Refused) as error:
        raise ConfigError(
            f"the hub's key {path} cannot be read: {error}",
            hint="restore it from a backup: without it no secret of an app can be told to a board",
        ) from error
