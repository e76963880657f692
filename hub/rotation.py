"""New signing keys for a hub, while it runs or not.

Owns `lichen-hub keys rotate`: it writes new keys into ``keys/`` and lets a running hub know by
SIGUSR1 (not SIGHUP, which a terminal sends when it closes).  The hub, or its next start, sees that
the keys differ from those of its hub document, signs one with a higher number, and announces it
to every board.  So a rotation that was cut short anywhere is taken up by the next start.

The root key is never touched: a hub's id follows from it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn

from agent.base.lock import holder
from agent.wire.errors import LichenError, LinkDown
from hub.access.keys import Keyring, current_document, describe, read_document
from hub.config import Config, Directory
from hub.fleet.announcement import Announcement
from hub.store.database import Store

log = logging.getLogger(__name__)

SIGNAL = signal.SIGUSR1
TAKEN_WITHIN_S = 10.0


async def rotate(directory: Directory, roles: Collection[str]) -> int | None:
    """Replace the keys of these roles; returns the number of the document that names them.

    None when no hub runs: its next start signs that document.  Raises LinkDown when the hub that
    runs does not take the keys up.
    """
    keys = Keyring.load(directory.keys).renewed(roles)
    keys.save(directory.keys, roles)
    pid = holder(directory.lock)
    if pid is None:
        return None
    with suppress(ProcessLookupError):  # it has ended since
        os.kill(pid, SIGNAL)
    with suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_WITHIN_S):
            while True:
                document = read_document(directory.keys, keys)
                if document is not None and document.keys == keys.public:
                    return document.number
                await asyncio.sleep(0.05)
    raise LinkDown(
        f"the new keys are written, but the hub (process {pid}) has not taken them up",
        hint="look at its log; a restart takes them up, too",
    )


class Rotation:
    """The running hub's side: takes new keys up when the signal comes.  `listen` before the lock is held."""

    def __init__(self) -> None:
        self._bell = asyncio.Event()

    def listen(self) -> None:
        """Take the signal from now on; without this it ends the process."""
        asyncio.get_running_loop().add_signal_handler(SIGNAL, self._bell.set)

    async def run(
        self,
        directory: Directory,
        store: Store,
        keys: Keyring,
        config: Config,
        announcement: Announcement,
        *,
        ca_pem: str,
        now_ms: Callable[[], int],
        renew_orders: Callable[[], None],
    ) -> NoReturn:
        """Read the keys again at each signal, and announce them.  Whoever holds ``keys`` has the new ones.

        ``renew_orders`` rings for orders that an old key has signed.
        """
        while True:
            await self._bell.wait()
            self._bell.clear()
            try:
                fresh = Keyring.load(directory.keys)
                content = describe(fresh, config, ca_pem)
                document = await current_document(store, directory.keys, fresh, content, now_ms())
            except LichenError as error:
                log.error("new keys not taken", extra={"error": str(error)})
                continue
            keys.adopt(fresh)
            announcement.replace(document)
            renew_orders()
            log.info("keys taken", extra={"document": document.number})
