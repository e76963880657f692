"""A store for tests in virtual time: the clock stands still while the database works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.database import Store
from support.virtual import VirtualLoop


@contextmanager
def _no_time() -> Iterator[None]:
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    loop.working += 1
    try:
        yield
    finally:
        loop.working -= 1


class StillStore(Store):
    """The real store, whose threads the virtual loop waits for."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with _no_time():
            async with super().read() as tx:
                yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        with _no_time():
            async with super().write() as tx:
                yield tx


@asynccontextmanager
async def still_store(path: Path) -> AsyncIterator[Store]:
    """A store at ``path``."""
    opening = StillStore.open(path)
    with _no_time():
        store = await opening.__aenter__()
    try:
        yield store
    finally:
        with _no_time():
            await opening.__aexit__(None, None, None)
