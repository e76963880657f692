"""A hub's database as it is when it was just made, without making it again for each test.

    async with new_store(tmp_path / "hub.db") as store:
        ...

The migrations take a tenth of a second of processor time, and as much the hash of a password, so both
happen once in a process.  That they make the right tables is what integration/test_store.py is about.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hub.access.login import Access
from hub.store.database import Store

Admin = tuple[str, str]
"""A name and a password."""

_made: dict[Admin | None, bytes] = {}


@asynccontextmanager
async def new_store(path: Path, admin: Admin | None = None) -> AsyncIterator[Store]:
    """A store at ``path`` in which ``admin`` can log in.  A file that is there is opened as it is."""
    if not path.exists():
        await make_database(path, admin)
    async with Store.open(path) as store:
        yield store


async def make_database(path: Path, admin: Admin | None = None) -> None:
    """Write the file that `Store.open` would have made."""
    if admin not in _made:
        _made[admin] = await _make(admin)
    path.touch(mode=0o600)
    path.write_bytes(_made[admin])


async def _make(admin: Admin | None) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
        file = Path(folder) / "hub.db"
        async with Store.open(file) as store:
            if admin is not None:
                await Access(store, lambda: 0).create_admin(*admin)
        return file.read_bytes()
