"""A browser without JavaScript, for tests of pages as HTML."""

from __future__ import annotations

import re

import aiohttp

from support.webhub import ADMIN, PASSWORD, WebHub

HTML = {"Accept": "text/html"}


class Visitor:
    """A browser without JavaScript: keeps cookies, says where its requests come from."""

    def __init__(self, hub: WebHub, http: aiohttp.ClientSession) -> None:
        self.hub, self.http = hub, http

    async def get(self, path: str, status: int = 200) -> str:
        async with self.http.get(self.hub.url + path, headers=HTML) as response:
            text = await response.text()
            assert response.status == status, text
            return text

    async def post(
        self,
        path: str,
        fields: dict[str, str] | aiohttp.FormData | None = None,
        *,
        status: int = 200,
        **headers: str,
    ) -> str:
        """Send a form as a page of ours does, and follow where it leads."""
        sent = {**HTML, "Origin": self.hub.url, **headers}
        async with self.http.post(self.hub.url + path, data=fields or {}, headers=sent) as response:
            text = await response.text()
            assert response.status == status, text
            return text

    async def log_in(self) -> None:
        await self.post("/login", {"name": ADMIN, "password": PASSWORD})


def texts(html: str) -> str:
    """What a reader sees, roughly."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ")
