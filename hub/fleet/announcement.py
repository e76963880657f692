"""The hub document on its way to boards: retained on each board's ``down/hub``.

Owns when it is published: once for each number, when a connection to the broker stands; the
hub's link to its broker calls it.  A board that joins gets the document in the answer, so there
is nothing to publish until the next number; the broker keeps it for boards that are away.
"""

from __future__ import annotations

import logging

from agent.base.broker import Message, Session
from agent.wire import topics
from hub.access.keys import SignedDocument
from hub.store import boards, facts
from hub.store.database import Store

log = logging.getLogger(__name__)

ANNOUNCED = "announced"
PAGE = 500


async def announce(store: Store, session: Session, document: SignedDocument) -> None:
    """Publish the document for every board unless that was done before.  Raises LinkDown.

    The number is remembered when the broker has all of them: a cut on the way repeats them.
    """
    async with store.read() as tx:
        if await facts.read_fact(tx, ANNOUNCED) >= document.number:
            return
    after, count = "", 0
    while True:
        async with store.read() as tx:
            page = await boards.list_boards(tx, limit=PAGE, after=after)
        if not page:
            break
        for board in page:
            topic = topics.down(board.id, "hub")
            await session.publish(Message(topic, document.text.encode(), retain=True))
        after, count = page[-1].name, count + len(page)
    async with store.write() as tx:
        await facts.write_fact(tx, ANNOUNCED, document.number)
    log.info("hub document announced", extra={"number": document.number, "boards": count})
