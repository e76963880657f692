"""Readings on their way: what the outbox holds, sent over one session as fast as the hub takes it.

`agent.link` makes one per session and hands it the hub's acknowledgements.  It deletes nothing
and remembers nothing beyond its session: after a new connection everything that is held is
sent again from the first reading on, and the hub passes over what it has.

A report is due when the outbox's bell rings, which is once per commit.  When commits are more
frequent than reports, it waits until a report's time has come, except for a backlog: that
goes on as acknowledgements make room in the window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent.base.broker import Message
from agent.outbox import Outbox, Parcel
from agent.window import Window
from agent.wire.envelope import pack
from agent.wire.messages import Ack

Publish = Callable[[Message], Awaitable[bool]]
"""Send a message; False when the broker refused it.  Raises LinkDown."""


class Reports:
    """The sending half of a session.  ``hold_s`` is the least time between two reports, 0 for none."""

    def __init__(
        self, outbox: Outbox, window: Window, *, topic: str, publish: Publish, hold_s: float
    ) -> None:
        self._outbox = outbox
        self._window = window
        self._topic = topic
        self._publish = publish
        self._hold_s = hold_s
        self._not_before_s = 0.0
        self._behind = False  # more is held than the window let through
        self._wait: asyncio.Timeout | None = None

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Send until cancelled; each batch is a task of ``group``, so that they overlap."""
        self._outbox.bell.set()  # whatever is held has not been sent in this session
        while True:
            await self._until_due()
            self._outbox.bell.clear()
            await self._fill(group)

    async def acknowledge(self, ack: Ack, *, retained: bool) -> bool:
        """Take the hub's word for what it has.  True when the outbox could delete something.

        A ``retained`` one is an old answer: that it moves nothing says nothing.
        """
        advanced = await self._outbox.acknowledge(ack)
        if advanced or not retained:
            self._window.acknowledged(ack, advanced=advanced, now_s=_now_s())
            if self._behind:
                self._outbox.bell.set()
            # One that has just expired takes no other time, and looks at the window anyway.
            if self._wait is not None and not self._wait.expired():
                self._wait.reschedule(_now_s() if self._window.is_back else self._window.deadline_s)
        return advanced

    async def _until_due(self) -> None:
        """Wait for the bell and for a report's time; or until the window goes back."""
        try:
            async with asyncio.timeout_at(self._window.deadline_s) as self._wait:
                await self._outbox.bell.wait()
                if not self._behind:
                    await asyncio.sleep(max(0.0, self._not_before_s - _now_s()))
        except TimeoutError:
            self._window.go_back_if_late(_now_s())
        finally:
            self._wait = None

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Send until the window is full or nothing is left."""
        while self._window.is_open:
            cursor = self._window.cursor
            parcel = await self._outbox.take(cursor)
            if cursor != self._window.cursor:
                continue  # the window went back meanwhile, and this parcel is from further on
            if parcel is None:
                self._behind = False
                self._not_before_s = _now_s() + self._hold_s
                return
            self._window.sent(parcel, _now_s())
            group.create_task(self._send(parcel), name=f"publish {parcel.stream}/{parcel.last_seq}")
        self._behind = True

    async def _send(self, parcel: Parcel) -> None:
        # A refused batch stays under way: the deadline, which doubles, tries it again.
        payload, content_type = pack(parcel.payload)
        await self._publish(Message(self._topic, payload, content_type=content_type))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
