"""What people type into forms, as the values that handlers want."""

from __future__ import annotations

from aiohttp import web

from agent.wire.errors import Refused
from hub.web.api.boards import read_labels

Posted = list[tuple[str, str | web.FileField]]
"""The fields of a form in the order in which they were sent; a name may be there several times."""


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of a form, without spaces at their ends; files are refused."""
    return {name: value.strip() for name, value in (await read_fields(request)).items()}


async def read_fields(request: web.Request) -> dict[str, str]:
    """The fields of a form as they were typed; files are refused."""
    fields: dict[str, str] = {}
    for name, value in await read_parts(request):
        if not isinstance(value, str):
            raise Refused(f"{name[:64]}: files are not expected here")
        fields[name] = value
    return fields


async def read_parts(request: web.Request, *, max_bytes: int = 0) -> Posted:
    """A form as it was sent, files among it; ``max_bytes``: more than the application takes otherwise."""
    try:
        posted = await (request.clone(client_max_size=max_bytes) if max_bytes else request).post()
    except (ValueError, LookupError) as error:  # aiohttp's words for bad encodings and boundaries
        raise Refused(f"the form cannot be read: {error}", code="request") from error
    return [(name, value) for name, value in posted.items() if isinstance(value, str | web.FileField)]


def labels_of(text: str) -> dict[str, str]:
    """Labels typed with spaces or commas between: "site=north floor=2".  Raises Refused."""
    return read_labels(tuple(text.replace(",", " ").split()))


def integer_of(name: str, text: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``.  Raises Refused."""
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not low <= int(text) <= high:
        raise Refused(f"{name}: {text[:40]!r} is not a number from {low} to {high}")
    return int(text)
