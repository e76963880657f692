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
from hub.web.api.route import ROOT, Route
from hub.web.schema import Schemas, is_required

DESCRIPTION = """
What the hub's pages and the command line `lichen` use. Times are integers of milliseconds since
the Unix epoch. Errors are problem documents (RFC 9457); `type` ends in a stable code.
""".strip()


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
                "problem": {
                    "description": "Why it was not done",
                    "content": {problems.MEDIA: {"schema": problem}},
                }
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
        "parameters": [_in_path(name) for name in route.names] + _in_query(route.query, schemas),
        "responses": {
            str(_status(route)): _answer(route, schemas),
            "default": {"$ref": "#/components/responses/problem"},
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


def _status(route: Route) -> int:
    return 204 if route.answer is None and not route.media else route.status


def _answer(route: Route, schemas: Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(_status(route)).phrase}
    content: dict[str, Any] = {
        media: {"schema": {} if media.endswith("json") else {"type": "string"}} for media in route.media
    }
    if route.answer is not None:
        content["application/json"] = {"schema": schemas.add(route.answer, written=True)}
    if content:
        answer["content"] = content
    return answer


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


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
        }
        for field in dataclasses.fields(cls)
    ]
