"""Long lists in pieces: where a page begins, and the address of the next.

An answer that is a page has ``next``, which is None on the last one; its query takes it as
``after``.  Callers hand it back as it is: what stands in it is nobody's business but the list's.
The same is said in a `Link` header (RFC 8288), for programs that know no more than that.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web

from agent.wire.decode import Length
from agent.wire.errors import Refused

After = Annotated[str, Length(0, 128)]
SAYS = {"says": "The `next` of the page before"}


def id_after(after: str) -> int | None:
    """The id that a page of a list by id begins behind; None for the first.  Raises Refused."""
    if not after:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 15:
        raise Refused(f"after: {after[:40]!r} is not the next of a page", hint="leave it out to begin anew")
    return int(after)


def link_of(request: web.Request, answer: object) -> str:
    """The `Link` header of an answer; empty when there is no next page."""
    following = getattr(answer, "next", None)
    if following is None:
        return ""
    return f'<{request.rel_url.update_query(after=following)}>; rel="next"'
