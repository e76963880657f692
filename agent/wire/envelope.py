"""The bytes around a payload: compression, its name, and the limits on both sides of it.

The content type of the MQTT message says which of the two it is; sizes are checked before anything
is inflated, and again while it is.

>>> data, content_type = pack(b'{"value":[' + b"21.5," * 100 + b"21.5]}")
>>> content_type, len(data) < 40
('application/json+zlib', True)
>>> len(unpack(data, content_type))
516
"""

from __future__ import annotations

import zlib

from agent.wire.errors import Refused

MAX_PAYLOAD = 256 * 1024
"""Largest message accepted from the wire, in bytes as it travels."""
MAX_INFLATED = 1024 * 1024
"""Largest message after inflating, in bytes."""
COMPRESS_ABOVE = 256
JSON = "application/json"
ZLIB_JSON = "application/json+zlib"


def pack(payload: bytes) -> tuple[bytes, str]:
    """The bytes to send and their content type; compressed when that pays."""
    if len(payload) <= COMPRESS_ABOVE:
        return payload, JSON
    return zlib.compress(payload, 6), ZLIB_JSON


def unpack(payload: bytes, content_type: str) -> bytes:
    """Undo `pack`, never holding more than MAX_INFLATED bytes.  Raises Refused."""
    if len(payload) > MAX_PAYLOAD:
        raise Refused(
            f"a message of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}", code="too-large"
        )
    if content_type in ("", JSON):
        return payload
    if content_type != ZLIB_JSON:
        raise Refused(f"content type {content_type[:64]!r} is neither {JSON} nor {ZLIB_JSON}")
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(payload, MAX_INFLATED)
    except zlib.error as error:
        raise Refused(f"the payload is not zlib data: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise Refused(f"the payload is cut short or inflates to over {MAX_INFLATED} bytes", code="too-large")
    return inflated
