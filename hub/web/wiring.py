"""What belongs to the running application itself, and where handlers find it.

Made by `hub.web.server.build`; beside `hub.web.parts`, which comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from hub.web.assets import Assets
from hub.web.census import Census
from hub.web.live import Streams

ASSETS = web.AppKey("assets", Assets)
CENSUS = web.AppKey("census", Census)
STREAMS = web.AppKey("streams", Streams)
DOCUMENT: web.AppKey[Callable[[], dict[str, Any]]] = web.AppKey("document")
"""Made when it is asked for first, which takes a tenth of a hub's start."""
