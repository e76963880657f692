"""The hub document of now, and its way to boards: retained on each board's ``down/hub``.

Owns when it is published: once for each number, when a connection to the broker stands; the
hub's link to its broker runs it.  A board that joins or renews gets the document in the answer, so
there is nothing to publish until the next number; the broker keeps it for boards that are away.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from agent.base.broker import Message, Session
from agent.wire import topics
from hub.access.keys import SignedDocument
from hub.store import boards, facts
from hub.store.database import Store

log = logging.getLogger(__name__)

ANNOUNCED = "announced"
PAGE = 500


class Announcement:
    """The document that boards are given now.  Runs on one session at a time."""

    def __init__(self, store: Store, document: SignedDocument) -> None:
        self._store = store
        self._document = document
        self._bell = asyncio.Event()
        self._told = asyncio.Event()

    def text(self) -> str:
        """The signed hub document."""
        return self._document.text

    def replace(self, document: SignedDocument) -> None:
        """Give this one out from now on, and tell every board."""
        self._document = document
        self._told.clear()
        self._bell.set()

    async def announced(self) -> None:
        """Wait until every board was told the document of now: what its keys sign may follow."""
        await self._told.wait()

    async def run(self, session: Session) -> NoReturn:
        """Tell every board each document that it was not told yet.  Raises LinkDown."""
        while True:
            self._bell.clear()
            document = self._document
            await self._announce(session, document)
            if document is self._document:
                self._told.set()
            await self._bell.wait()

    async def _announce(self, session: Session, document: SignedDocument) -> None:
        """Publish it for every board unless that was done before.

        The number is remembered when the broker has all of them: a cut on the way repeats them.
        """
        async with self._store.read() as tx:
            if await facts.read_fact(tx, ANNOUNCED) >= document.number:
                return
        after, count = "", 0
        while True:
            async with self._store.read() as tx:
                page = await boards.list_boards(tx, limit=PAGE, after=after)
            if not page:
                break
            for board in page:
                topic = topics.down(board.id, "hub")
                await session.publish(Message(topic, document.text.encode(), retain=True))
            after, count = page[-1].name, count + len(page)
        async with self._store.write() as tx:
            await facts.write_fact(tx, ANNOUNCED, document.number)
        log.info("hub document announced", extra={"number": document.number, "boards": count})
