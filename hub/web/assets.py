"""Static files: read once, compressed once, served under an address that changes with them.

Owns /static/<version>/<path>, where <version> is the hash of all files together, so that
browsers keep them for a year and ES modules find each other by relative paths.  Nothing is
read from the disk after the start.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agent.wire.errors import ConfigError, Refused

FOLDER = Path(__file__).parent / "static"
NEEDED = ("vendor/htmx.min.js", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css")
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is sent: ``body`` for those who do not take gzip."""

    content_type: str
    body: bytes
    gzipped: bytes


class Assets:
    """All static files in memory (about 300 kB)."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self._files = dict(files)
        digest = hashlib.sha256()
        for path, file in sorted(self._files.items()):
            digest.update(path.encode() + b"\0" + file.body + b"\0")
        self.version = digest.hexdigest()[:12]

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Assets:
        """Read ``folder``.  Raises ConfigError when the files from npm were never fetched."""
        for name in NEEDED:
            if not (folder / name).is_file():
                raise ConfigError(
                    f"{folder / name} is missing", hint="install the project again: pip install -e ."
                )
        paths = (path for path in sorted(folder.rglob("*")) if path.suffix in TYPES)
        return cls({path.relative_to(folder).as_posix(): _read(path) for path in paths})

    def url(self, path: str) -> str:
        """The address of a file.  KeyError for one that is not there: a template's mistake."""
        self._files[path]
        return f"/static/{self.version}/{path}"

    async def serve(self, request: web.Request) -> web.Response:
        """Answer with a file; one of another version is answered too, but not to be kept."""
        file = self._files.get(request.match_info["path"])
        if file is None:
            raise Refused(f"there is nothing at {request.path[:200]}", code="not-found")
        current = request.match_info["version"] == self.version
        headers = {"Cache-Control": FOR_EVER if current else "no-store", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(
                body=file.gzipped, content_type=file.content_type, charset="utf-8", headers=headers
            )
        return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(TYPES[path.suffix], body, gzip.compress(body, 9, mtime=0))
