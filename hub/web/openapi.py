"""The API's own description, OpenAPI 3.1, made from the route table.

Owns how a `Route` becomes an operation.  `hub.web.server` serves the document at
/api/v1/openapi.json; a test holds it against the routes and against real answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, get_type_hints

from hub.web import problems
from hub.web.api import table
from hub.web.api.route import ROOT, Route
from hub.web.schema import Schemas, is_required

DESCRIPTION = """
What the hub's pages and the command line `lichen` use. Times are integers of milliseconds since
the Unix epoch. Errors are problem documents (RFC 9457); `type` ends in a stable code.

Lists come in pages: `next` of an answer is the `after` of the next question, and a `Link` header
with `rel="next"` has the whole address; both are missing on the last page. Answers to GET have a
weak `ETag`; sent back as `If-None-Match` it is answered with 304 while nothing has changed. Where
an operation answers with `text/csv` as well, ask for it with `Accept: text/csv`; times are then
RFC 3339 in UTC, and pages are as in JSON.
""".strip()

ERRORS = {
    401: ("unauthenticated", "This needs a login"),
    403: ("forbidden", "A browser sent this from a page that is not this hub's"),
    404: ("not-found", "There is no such thing"),
    409: ("conflict", "Something else has this name, or the hub is busy"),
    413: ("too-large", "The body is too large"),
    422: ("invalid", "A parameter or the body is not as it should be; the message names the field"),
    429: ("too-many", "Too many attempts, or open streams"),
    503: ("unavailable", "Something that the hub needs for this cannot be reached"),
    507: ("disk-full", "The hub's disk is full"),
}
"""What may go wrong, by status, with the usual code."""


IN_PATH = {
    "board": ("The board's id, or its name", "pump-07"),
    "token": ("The id of the token, as the list has it", "3"),
    "app": ("The name of the app", "blog"),
    "secret": ("What the recipe calls the secret", "db_password"),
    "registry": ("Host and port of the registry", "registry.example.org:5000"),
    "card": ("The id of the rate card: its name and its first day", "house@2026-11-01"),
    "period": ("A month or a day, in UTC", "2026-11"),
}
"""The parameters in paths: what they are, and one of them."""


def describe(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    schemas = Schemas()
    problem = schemas.add(problems.ProblemDocument, written=True)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lichen hub", "version": version, "description": DESCRIPTION},
        "servers": [{"url": ROOT}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.named,
            "responses": {
                "problem": _problem("Why it was not done", problem),
                **{code: _problem(what, problem, status) for status, (code, what) in ERRORS.items()},
                "not-modified": {
                    "description": "What the caller has is still right",
                    "headers": {"ETag": _ref("headers", "etag")},
                },
            },
            "headers": {
                "etag": {
                    "description": "Changes when the answer does",
                    "schema": {"type": "string"},
                    "example": 'W/"0f3a9c51d2b84e67a1c0ffee"',
                },
                "link": {
                    "description": "The address of the next page (RFC 8288); missing on the last",
                    "schema": {"type": "string"},
                    "example": f'<{ROOT}/boards?limit=200&after=pump-07>; rel="next"',
                },
            },
            "parameters": {
                "if-none-match": {
                    "name": "If-None-Match",
                    "in": "header",
                    "required": False,
                    "description": "The ETag of an answer that the caller has kept",
                    "schema": {"type": "string"},
                },
                **{name: _in_path(name) for route in routes for name in route.names},
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token"},
                "session": {"type": "apiKey", "in": "cookie", "name": "lichen_session"},
            },
        },
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.function.__name__,
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": [_ref("parameters", name) for name in route.names]
        + _in_query(route.query, schemas)
        + ([_ref("parameters", "if-none-match")] if route.is_tagged else []),
        "responses": {
            str(_status(route)): _answer(route, schemas),
            **({"304": _ref("responses", "not-modified")} if route.is_tagged else {}),
            **{str(status): _ref("responses", ERRORS[status][0]) for status in _errors(route)},
            "default": _ref("responses", "problem"),
        },
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        content = {"application/json": {"schema": schemas.add(route.body, written=False)}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.public:
        operation["security"] = []
    return operation


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _problem(what: str, schema: dict[str, Any], status: int | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if status is not None:
        code, detail = ERRORS[status]
        title = HTTPStatus(status).phrase
        content["example"] = {
            "type": f"urn:lichen:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
        }
    return {"description": what, "content": {problems.MEDIA: content}}


def _errors(route: Route) -> list[int]:
    """What may go wrong with an operation, as far as its kind tells."""
    found: set[int] = set()
    if not route.public:
        found.add(401)
    if route.names:
        found.add(404)
    if route.query is not None or route.body is not None:
        found.add(422)
    if route.body is not None:
        found.add(413)
    if route.method != "GET":
        found |= {403, 409, 507}
    if route.public or "text/event-stream" in route.media:
        found.add(429)
    return sorted(found)


def _status(route: Route) -> int:
    return 204 if route.answer is None and not route.media else route.status


def _answer(route: Route, schemas: Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(_status(route)).phrase}
    media = [*route.media, *([table.MEDIA] if route.table is not None else [])]
    content: dict[str, Any] = {
        each: {"schema": {} if each.endswith("json") else {"type": "string"}} for each in media
    }
    if route.answer is not None:
        content["application/json"] = {"schema": schemas.add(route.answer, written=True)}
    if content:
        answer["content"] = content
    headers = {"ETag": "etag"} if route.is_tagged else {}
    if route.is_paged:
        headers["Link"] = "link"
    if headers:
        answer["headers"] = {name: _ref("headers", component) for name, component in headers.items()}
    return answer


def _in_path(name: str) -> dict[str, Any]:
    says, example = IN_PATH[name]
    schema = {"type": "string"}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": says,
        "schema": schema,
        "example": example,
    }


def _in_query(cls: Any, schemas: Schemas) -> list[dict[str, Any]]:
    if cls is None:
        return []
    hints = get_type_hints(cls, include_extras=True)
    return [
        {
            "name": field.name,
            "in": "query",
            "required": is_required(field, written=False),
            "schema": schemas.add(hints[field.name], written=False),
            **({"description": text} if (text := field.metadata.get("says")) else {}),
            **({"example": value} if (value := field.metadata.get("example")) else {}),
        }
        for field in dataclasses.fields(cls)
    ]
