"""One operation of the API: its address, and a typed function that answers.

The signature of the function is the whole truth: `Route` reads from it what comes in (names
of the path, ``query``, ``body``) and what goes out; `hub.web.openapi` describes exactly that,
and `Route.serve` decodes and encodes by exactly that.

    async def rename(call: Call, board: str, body: Change) -> Board:
        '''Rename a board.'''                        # the summary in the document

    Route("PATCH", "/boards/{board}", rename)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, Literal, get_args, get_origin, get_type_hints

from aiohttp import ETag, web

from agent.wire.decode import decode, dumps, loads
from agent.wire.errors import ConfigError, Refused
from hub.access.login import Principal
from hub.web.api import table
from hub.web.api.paging import link_of
from hub.web.api.table import Table
from hub.web.parts import Parts

ROOT = "/api/v1"
MAX_JSON = 64 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler sees it: the hub's parts, who asks, and the raw request."""

    parts: Parts
    request: web.Request
    principal: Principal | None

    @property
    def admin(self) -> str:
        """The admin who asks; routes that are not public always have one."""
        assert self.principal is not None, "the guard lets only public routes through without"
        return self.principal.admin


@dataclass(frozen=True, slots=True)
class Route:
    """An operation under `ROOT`.

    ``media`` names further content types beside (or, when the function returns a response
    itself, instead of) JSON; ``table`` makes the answer CSV for who asks for that; ``public`` needs
    no login; ``max_body``: most bytes of a body.  A GET that answers with JSON or a table has an ETag
    (RFC 9110, section 8.8.3).
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    function: Callable[..., Awaitable[Any]]
    status: int = 200
    public: bool = False
    media: tuple[str, ...] = ()
    table: Callable[[Any], Table] | None = None
    max_body: int = MAX_JSON
    hints: Mapping[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", get_type_hints(self.function, include_extras=True))

    @property
    def url(self) -> str:
        return ROOT + self.path

    @property
    def names(self) -> list[str]:
        """The parameters in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def query(self) -> Any:
        """The dataclass of the query, or None."""
        return self.hints.get("query")

    @property
    def body(self) -> Any:
        """The dataclass of the body, or None."""
        return self.hints.get("body")

    @property
    def is_paged(self) -> bool:
        """Whether it answers with a page of a list."""
        return self.answer is not None and "next" in get_type_hints(self.answer)

    @property
    def is_tagged(self) -> bool:
        """Whether answers have an ETag."""
        return self.method == "GET" and self.answer is not None

    @property
    def answer(self) -> Any:
        """The dataclass that is answered; None: nothing, or a response of its own ``media``."""
        returned = self.hints["return"]
        parts = [each for each in (get_args(returned) or (returned,)) if not _is_response(each)]
        return next((each for each in parts if each is not type(None)), None)

    @property
    def summary(self) -> str:
        """The first line of what the function says of itself."""
        return self._words()[0]

    @property
    def description(self) -> str:
        """The rest of it."""
        return self._words()[1]

    def _words(self) -> tuple[str, str]:
        head, _, rest = inspect.cleandoc(self.function.__doc__ or "").partition("\n")
        return head.rstrip("."), rest.strip()

    async def serve(self, call: Call) -> web.StreamResponse:
        """Decode the request, call the function, encode its answer.  Raises Refused."""
        given: dict[str, Any] = {name: call.request.match_info[name] for name in self.names}
        if self.query is not None:
            given["query"] = read_query(self.query, call.request)
        if self.body is not None:
            given["body"] = await read_body(self.body, call.request, max_bytes=self.max_body)
        answer = await self.function(call, **given)
        if isinstance(answer, web.StreamResponse):
            return answer
        if answer is None:
            return web.Response(status=204)
        response = self._encoded(answer, call.request)
        if link := link_of(call.request, answer):
            response.headers["Link"] = link
        return tagged(response, call.request) if self.is_tagged else response

    def _encoded(self, answer: object, request: web.Request) -> web.Response:
        if self.table is None or not table.is_wanted(request):
            return json_response(answer, self.status)
        body = table.encode(self.table(answer))
        response = web.Response(body=body, content_type=table.MEDIA, charset="utf-8")
        response.enable_compression()
        return response


def _is_response(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, web.StreamResponse)


def json_response(answer: object, status: int = 200) -> web.Response:
    """An answer as JSON, compressed when that pays."""
    response = web.Response(body=dumps(answer), status=status, content_type="application/json")
    response.enable_compression()
    return response


def tagged(response: web.Response, request: web.Request) -> web.Response:
    """The answer under a weak ETag, which ignores how it is compressed; 304 when the caller has it."""
    assert isinstance(response.body, bytes), "only what is whole has a tag"
    etag = ETag(blake2b(response.body, digest_size=12).hexdigest(), is_weak=True)
    known = request.if_none_match or ()
    if any(each.value in (etag.value, "*") for each in known):
        link = {"Link": response.headers["Link"]} if "Link" in response.headers else {}
        response = web.Response(status=304, headers=link)
    response.etag = etag
    response.headers["Vary"] = "Accept"
    return response


async def read_body(cls: type[Any], request: web.Request, *, max_bytes: int = MAX_JSON) -> Any:
    """The JSON body as ``cls``.  Raises Refused with the path of what is wrong."""
    if max_bytes > MAX_JSON:  # the limit of the whole application holds for all others
        request = request.clone(client_max_size=max_bytes)
    body = await request.read()
    if not body:
        raise Refused("this needs a JSON body", hint=f"fields: {', '.join(f.name for f in fields(cls))}")
    return _strictly(cls, loads(body, max_bytes=max_bytes), "")


def read_query(cls: type[Any], request: web.Request) -> Any:
    """The query string as ``cls``; a field that is a tuple may be given several times.

    Raises Refused, also for names that nobody knows: a typing error must not select everything.
    """
    kinds: Mapping[str, type] = _query_kinds(cls)
    given: dict[str, Any] = {}
    for name in request.query:
        kind = kinds.get(name)
        if kind is tuple:
            given[name] = [text for text in request.query.getall(name) if text]
        elif kind is int:
            given[name] = _integer(name, request.query[name])
        else:
            given[name] = request.query[name]
    return _strictly(cls, given, "")


def _strictly(cls: type[Any], value: object, where: str) -> Any:
    """`decode` that refuses unknown keys; the mistake is the caller's, not the operator's."""
    try:
        return decode(cls, value, strict=True, where=where)
    except ConfigError as error:
        raise Refused(str(error), hint=error.hint) from error


def _query_kinds(cls: Any) -> Mapping[str, type]:
    """For each field whether its text becomes an int, a tuple or stays text."""
    kinds: dict[str, type] = {}
    for name, hint in get_type_hints(cls).items():
        flat = {get_origin(each) or each for each in (hint, *get_args(hint))}
        kinds[name] = tuple if tuple in flat else int if int in flat else str
    return kinds


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise Refused(f"{name}: {text[:40]!r} is not an integer")
    return int(text)
