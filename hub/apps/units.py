"""Text, numbers, durations, sizes and modes as compose writes them.

Each of them raises ValueError with a reason for what is none.

>>> duration_ms("1m30s"), size_bytes("1.5g"), mode("0440"), whole("0x10")
(90000, 1610612736, 288, 16)
"""

from __future__ import annotations

import math
import re

from agent.wire.plain import show

_ODD = re.compile("[\0\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,16}|0[bB][01]{1,64}|0[oO]?[0-7]{1,22}|[1-9][0-9]{0,18}|0)")
_NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h|d|w)")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_MODE = re.compile(r"0?[oO]?([0-7]{3,4})")

_MS = {
    "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6,
    "d": 8.64e7, "w": 6.048e8,
}  # fmt: skip


def is_text(text: str) -> bool:
    """Whether text can be stored and given to a process: no NUL, no half of a surrogate."""
    return not _ODD.search(text)


def whole(text: str) -> int:
    """A whole number; as in Go, a leading 0 means octal."""
    text = text.replace("_", "")
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{show(text)} is not a whole number")
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567"
    found = int(digits, 8) if octal else int(digits, 0)
    return -found if text.startswith("-") else found


def number(text: str) -> float:
    """A finite number."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(found := float(text)):
        raise ValueError(f"{show(text)} is not a number")
    return found


def duration_ms(text: str) -> int:
    """A duration in milliseconds, at least one unless it is zero."""
    if text == "0":
        return 0
    position, total = 0, 0.0
    while part := _PART.match(text, position):
        total += float(part[1]) * _MS[part[2]]
        position = part.end()
    if position != len(text) or not text:
        raise ValueError(f"{show(text)} is not a duration such as '30s' or '1m30s'")
    return math.ceil(total - 1e-9)


def size_bytes(text: str) -> int:
    """A size in bytes."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{show(text)} is not a size such as '64m' or '1g'")
    return int(float(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))


def mode(text: str) -> int:
    """The mode of a file, in octal with or without a leading 0."""
    found = _MODE.fullmatch(text)
    if not found:
        raise ValueError(f"{show(text)} is not the mode of a file, such as 0440")
    return int(found[1], 8)
