"""Base64 that is written in one way only.

Used by `agent.wire.note` and `agent.wire.seal`; a key or signature that two texts could stand for would
be two things to whoever compares texts.

>>> to_base64(bytes([1, 2, 3, 4]))
'AQIDBA=='
>>> from_base64("AQIDBB==", "signature")
Traceback (most recent call last):
agent.wire.errors.Refused: the signature is not canonical base64
"""

from __future__ import annotations

import base64
import binascii

from agent.wire.errors import Refused


def to_base64(raw: bytes) -> str:
    """Standard base64 with padding, on one line (RFC 4648, section 4)."""
    return base64.b64encode(raw).decode()


def from_base64(text: str, what: str, size: int | None = None) -> bytes:
    """The bytes of ``text``, ``size`` of them if given.  Raises Refused, calling the thing ``what``."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"the {what} is not base64: {error}") from error
    # RFC 4648, section 3.5: the bits that pad the last character must be zero.
    if to_base64(raw) != text:
        raise Refused(f"the {what} is not canonical base64")
    if size is not None and len(raw) != size:
        raise Refused(f"the {what} has {len(raw)} bytes, not {size}")
    return raw
