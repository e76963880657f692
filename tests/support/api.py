"""A client of the hub's API that holds every answer against the API's own description."""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator


class Api:
    """Calls operations and checks what comes back: status, content type, and every field."""

    def __init__(self, http: aiohttp.ClientSession, url: str, document: dict[str, Any]) -> None:
        self._http = http
        self._url = url
        self._document = document
        self.covered: set[tuple[str, str]] = set()

    async def call(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        """Call ``/api/v1<path>``, expect ``status``, return the JSON (text of what is none)."""
        async with self._http.request(method, f"{self._url}/api/v1{path}", **options) as response:
            text = await response.text()
            assert response.status == status, f"{method} {path} -> {response.status}: {text}"
            described = self._described(method, path.partition("?")[0], response.status)
            if response.status == 204:
                assert text == ""
                return None
            if response.status == 304:
                return None
            media = response.content_type
            assert media in described["content"], f"{method} {path} answers {media}"
            if not media.endswith("json"):
                return text
            answer = json.loads(text)
            schema = {**described["content"][media]["schema"], "components": self._document["components"]}
            Draft202012Validator(schema).validate(answer)
            return answer

    async def refuses(self, method: str, path: str, status: int, code: str, **options: Any) -> str:
        """Call in vain; returns the reason and the hint."""
        problem = await self.call(method, path, status=status, **options)
        assert problem["type"] == f"urn:lichen:problem:{code}", problem
        assert problem["status"] == status
        return f"{problem['detail']} {problem.get('hint', '')}".strip()

    def _described(self, method: str, path: str, status: int) -> Any:
        for template, operations in self._document["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) and method.lower() in operations:
                self.covered.add((method, template))
                answers = operations[method.lower()]["responses"]
                found = answers.get(str(status), answers["default"])
                name = found.get("$ref", "").rpartition("/")[2]
                return self._document["components"]["responses"][name] if name else found
        raise AssertionError(f"{method} {path} is not described")
