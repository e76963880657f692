"""A join file as a QR code, for a phone that takes it from the screen to a board's card.

Pages and the command line draw with it; it knows only text.  What is in the code is the text of
the file as it is, so any reader shows what has to go into lichen-join.toml.

>>> print(terminal("k" * 20).splitlines()[0][:3])
███
>>> svg("k" * 20, "A join file").startswith("<svg viewBox=")
True
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segno import QRCode

QUIET = 4
"""Modules of empty space around the code (ISO/IEC 18004, section 9.1)."""


def svg(text: str, title: str) -> str:
    """The code as an SVG element without a size of its own, black on white whatever the page is.

    ``title`` is what it says to whoever cannot see it.
    """
    return _code(text).svg_inline(omitsize=True, border=QUIET, dark="#000", light="#fff", title=title)


def terminal(text: str) -> str:
    """The code in half blocks, for a terminal that writes light on dark; a join file takes 35 lines."""
    drawn = io.StringIO()
    _code(text).terminal(out=drawn, border=QUIET, compact=True)
    return drawn.getvalue()


def _code(text: str) -> QRCode:
    import segno  # late: few hubs ever draw one

    # Level M (15 % may be unreadable) is made for screens; Micro QR is read by few phones.
    return segno.make(text, error="m", micro=False)
