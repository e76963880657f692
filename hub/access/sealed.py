"""A file that only a passphrase opens, written and read as a stream.

Owns the format of `lichen-hub backup`, which `hub.backup` fills; it knows nothing of what is in it.

    magic    17 bytes  "lichen-backup/v1" and a line feed; another version has another magic
    salt     16 bytes  random
    header   24 bytes  of crypto_secretstream_xchacha20poly1305 (libsodium)
    chunk    17 + n    of that stream: n = 65,536, and less in the last one
    ...
    last     17 + n    the one with the tag FINAL; nothing follows

The key is argon2id of the passphrase (UTF-8) and the salt, with 3 passes over 256 MiB: these are
part of v1, so a file cannot ask its reader for more.  Magic and salt are the additional data of
the first chunk.  The stream is authenticated in order: a chunk that was changed, moved or left
out, and an end that is missing, are noticed.

>>> import io
>>> file = io.BytesIO()
>>> with Sealer(file, "correct horse battery") as sealer:
...     sealer.write(b"the keys of a hub")
17
>>> opener = Opener(io.BytesIO(file.getvalue()), "correct horse battery")
>>> opener.read(7), opener.read(100), opener.read(100)
(b'the key', b's of a hub', b'')
"""

from __future__ import annotations

import io
import secrets
from typing import BinaryIO, Self

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from agent.wire.errors import Corrupt, Refused

MAGIC = b"lichen-backup/v1\n"
CHUNK = 65_536
PASSES = 3
MEMORY_BYTES = 256 * 1024 * 1024
# libsodium: sizes and tags of crypto_secretstream_xchacha20poly1305.
HEADER_BYTES = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
EXTRA_BYTES = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
MESSAGE = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
FINAL = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL


class Sealer(io.RawIOBase):
    """Seals what is written into ``file``; leaving the block without an error writes the end."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        super().__init__()
        self._file = file
        salt = secrets.token_bytes(argon2id.SALTBYTES)
        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        header = bindings.crypto_secretstream_xchacha20poly1305_init_push(self._state, _key(passphrase, salt))
        self._additional: bytes | None = MAGIC + salt
        self._waiting = bytearray()
        file.write(MAGIC + salt + header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, where: object) -> None:
        if kind is None:
            self._push(bytes(self._waiting), FINAL)
        self.close()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._waiting += data
        # One more than a chunk: the last is only known when nothing follows.
        while len(self._waiting) > CHUNK:
            self._push(bytes(self._waiting[:CHUNK]), MESSAGE)
            del self._waiting[:CHUNK]
        return len(data)

    def _push(self, plain: bytes, tag: int) -> None:
        sealed = bindings.crypto_secretstream_xchacha20poly1305_push(
            self._state, plain, ad=self._additional, tag=tag
        )
        self._additional = None
        self._file.write(sealed)


class Opener(io.RawIOBase):
    """Reads what a `Sealer` wrote.  Every read raises Corrupt when the file is not what it was.

    Made with a wrong passphrase it raises Refused (code "passphrase"); for a file of another
    kind or version Refused, too.
    """

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        super().__init__()
        self._file = file
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise Refused(
                "this is no backup of a hub that this version can read",
                hint="a backup begins with 'lichen-backup/v1'",
            )
        salt = file.read(argon2id.SALTBYTES)
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise _cut_short()
        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, _key(passphrase, salt))
        self._ended = False
        try:
            self._plain = self._pull(magic + salt)
        except Corrupt as error:
            raise Refused(
                "the passphrase is wrong, or the beginning of the file was changed", code="passphrase"
            ) from error

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; b"" at the end that was written, and never before it."""
        while not self._plain and not self._ended:
            self._plain = self._pull(None)
        size = len(self._plain) if size < 0 else size
        taken, self._plain = self._plain[:size], self._plain[size:]
        return taken

    def finish(self) -> None:
        """Read to the end, so that all of the file has been checked."""
        while self.read(CHUNK):
            pass

    def _pull(self, additional: bytes | None) -> bytes:
        sealed = self._file.read(CHUNK + EXTRA_BYTES)
        if not sealed:
            raise _cut_short()
        try:
            plain, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(
                self._state, sealed, ad=additional
            )
        except CryptoError as error:
            raise Corrupt(
                "the backup is damaged: a part of it is not what was written", hint="use another copy of it"
            ) from error
        if tag == FINAL:
            self._ended = True
            if self._file.read(1):
                raise Corrupt("the backup goes on after its end", hint="use another copy of it")
        return plain


def _key(passphrase: str, salt: bytes) -> bytes:
    return argon2id.kdf(
        bindings.crypto_secretstream_xchacha20poly1305_KEYBYTES,
        passphrase.encode("utf-8", "surrogatepass"),
        salt,
        opslimit=PASSES,
        memlimit=MEMORY_BYTES,
    )


def _cut_short() -> Corrupt:
    return Corrupt("the backup ends too early: a part of it is missing", hint="use another copy of it")
