"""Errors as HTTP: which status, and the words, for programs (RFC 9457) and for people.

Owns the one table from the kinds of `agent.wire.errors` to HTTP status, and the middleware
that applies it.  Handlers raise; nothing else in the web turns an error into an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from agent.wire.decode import dumps
from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, LinkDown, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BY_CODE = {
    "invalid": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "revoked": 403,
    "not-found": 404,
    "conflict": 409,
    "offline": 409,
    "expired": 410,
    "too-large": 413,
    "too-many": 429,
    "usage-limit": 429,
    "method": 405,
    "too-slow": 408,
    "misdirected": 421,
    "disk-full": 507,
    "compose": 422,
    "recipe": 422,
    "env": 422,
    "template": 422,
    "image": 422,
    "architecture": 422,
    "placement": 422,
    "secret": 422,
    "scale": 422,
    "rates": 422,
    "too-early": 409,
    "unchanged": 409,
}
"""What a refusal becomes, by its code; 400 for any other."""

BY_KIND: dict[type[LichenError], int] = {
    ConfigError: 500,
    LinkDown: 503,
    Busy: 409,
    Corrupt: 500,
    Refused: 400,
}

MEDIA = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemDocument:
    """What went wrong (RFC 9457): ``type`` ends in a stable code, ``hint`` says what helps."""

    type: str
    title: str
    status: int
    detail: str
    hint: str | None = None


def status_of(error: LichenError) -> int:
    """The HTTP status for an error."""
    if isinstance(error, Refused):
        return BY_CODE.get(error.code, BY_KIND[Refused])
    return next((status for kind, status in BY_KIND.items() if isinstance(error, kind)), 500)


def document(error: LichenError) -> ProblemDocument:
    """The error for programs."""
    status = status_of(error)
    return ProblemDocument(
        type=f"urn:lichen:problem:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=str(error),
        hint=error.hint or None,
    )


def answer(error: LichenError) -> web.Response:
    """The problem document as a response."""
    problem = document(error)
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
    return web.Response(body=dumps(problem), status=problem.status, content_type=MEDIA, headers=headers)


def wants_page(request: web.Request) -> bool:
    """Whether the answer is read by a person: a browser outside of the API."""
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def errors(
    page: Callable[[web.Request, LichenError, int], web.Response],
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that answers for every error; ``page`` renders it for people."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except LichenError as error:
            return _answer(request, error, page)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = _answer(request, _understood(request, error), page)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    return middleware


def _answer(
    request: web.Request, error: LichenError, page: Callable[[web.Request, LichenError, int], web.Response]
) -> web.Response:
    return page(request, error, status_of(error)) if wants_page(request) else answer(error)


def _understood(request: web.Request, error: web.HTTPException) -> LichenError:
    """An error of aiohttp's own in our words."""
    match error.status:
        case 404:
            return Refused(f"there is nothing at {request.path[:200]}", code="not-found")
        case 405:
            return Refused(f"{request.method[:20]} is not possible at {request.path[:200]}", code="method")
        case 413:
            return Refused("the request body is too large", code="too-large")
        case _:
            return Refused(error.text or error.reason, code="request")
