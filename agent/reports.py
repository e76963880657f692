"""Readings on their way: what the outbox holds, sent over one session as fast as the hub takes it.

`agent.link` makes one per session and hands it the hub's acknowledgements.  It deletes nothing
and remembers nothing beyond its session: after a new connection everything that is held is
sent again from the first reading on, and the hub passes over what it has.

A report is due when the outbox's bell rings, which is once per commit.  When commits are more
frequent than reports, it waits until a report's time has come, except for a backlog: that
goes on as acknowledgements make room in the window.  While somebody watches (`Reports.hurry`),
a report's time comes sooner.

The hub takes the readings of a stream in order, so behind the backlog of a long outage the newest
value would come last.  Streams do not wait for each other: with more than a window's worth to
send, what is committed from now on is of another stream (`Outbox.part`), and travels in a *lane*
of its own beside the backlog, with a quarter of the window.  Hence at most two lanes: when the
backlog is gone, its lane ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine

from agent.base.broker import Message
from agent.outbox import END, Cursor, Outbox, Parcel
from agent.window import Window
from agent.wire.envelope import pack
from agent.wire.errors import Busy, Refused
from agent.wire.messages import Ack

Publish = Callable[[Message], Awaitable[bool]]
"""Send a message; False when the broker refused it.  Raises LinkDown."""

PARCEL_BYTES = 16 * 1024
"""Bytes of a batch before it is compressed."""
AGAIN_S = 5.0
"""When to look again into an outbox that another process holds."""
TICK_S = 0.01
"""What is due within this time is due."""
LIVE_SHARE = 4
"""One part in so many of the window is kept for new readings while a backlog is sent."""
HEAD_START = 0.1
"""How long a backlog waits for the first new readings, which are asked for meanwhile: a part of the time to
a resend."""


class Reports:
    """The sending half of a session.

    ``hold_s`` is the least time between two reports, 0 for none.  ``parted`` is called when a
    backlog was found, and what is committed next will be sent before it.
    """

    def __init__(
        self,
        outbox: Outbox,
        window: Window,
        *,
        topic: str,
        publish: Publish,
        hold_s: float,
        parted: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbox = outbox
        self._size = window.size
        self._topic = topic
        self._publish = publish
        self._hold_s = hold_s
        self._parted = parted
        self._lanes = [_Lane(outbox, window, self._send, self._pause_s)]
        self._hurry_s = self._hurry_until_s = 0.0
        self._look = True  # whether the backlog may be long

    async def run(self) -> None:
        """Send until cancelled; each batch is a task of its own, so that they overlap."""
        self._outbox.bell.set()  # whatever is held has not been sent in this session
        with self._outbox.prompt() if not self._hold_s else contextlib.nullcontext():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drive(self._lanes[0], group), name="lane")
                while True:
                    await self._outbox.bell.wait()
                    self._outbox.bell.clear()
                    if self._look and len(self._lanes) == 1 and await self._divide():
                        backlog, live = self._lanes
                        group.create_task(self._drive_beside(live, backlog, group), name="head start")
                    self._lanes[-1].bell.set()

    def hurry(self, every_s: float, for_s: float) -> None:
        """Report every ``every_s``, if there is something, for the next ``for_s``."""
        self._hurry_s, self._hurry_until_s = every_s, _now_s() + for_s
        self._lanes[-1].hold_no_longer()

    async def acknowledge(self, ack: Ack, *, retained: bool) -> bool:
        """Take the hub's word for what it has.  True when that is more than before.

        A ``retained`` one is an old answer: that it moves nothing says nothing.  Raises Busy.
        """
        moved = await self._outbox.acknowledge(ack)
        if not moved and retained:
            return False
        for lane in self._lanes:
            # An answer to the other lane says nothing about this one.
            if not moved or len(self._lanes) == 1 or moved & lane.streams:
                self._look |= lane.acknowledged(ack, advanced=bool(moved))
        if self._look:
            self._outbox.bell.set()
        return bool(moved)

    async def _divide(self) -> bool:
        """Give what comes next a lane of its own if the backlog is long.  Whether it was."""
        self._look = False
        share = max(1, self._size // LIVE_SHARE)
        held = await self._outbox.state()
        if held.bytes <= self._size * PARCEL_BYTES or share == self._size:
            return False
        try:
            between = await self._outbox.part()
        except Busy:
            return False  # it goes in order, then
        backlog = self._lanes[0]
        backlog.until = between
        backlog.window.size = self._size - share
        live = _Lane(self._outbox, backlog.window.beside(share, between), self._send, self._pause_s)
        self._lanes.append(live)
        self._parted()
        return True

    async def _drive_beside(self, live: _Lane, backlog: _Lane, group: asyncio.TaskGroup) -> None:
        """Let the live lane go first: a thin line would carry the backlog's whole window before it."""
        group.create_task(self._drive(live, group), name="live lane")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START * backlog.window.resend_s):
                await live.began.wait()
        backlog.bell.set()

    async def _drive(self, lane: _Lane, group: asyncio.TaskGroup) -> None:
        await lane.run(group)
        self._lanes.remove(lane)
        self._lanes[0].window.size = self._size

    def _pause_s(self) -> float:
        """How long after a report the next one may come."""
        return min(self._hold_s, self._hurry_s) if _now_s() < self._hurry_until_s else self._hold_s

    async def _send(self, parcel: Parcel) -> None:
        # A refused batch stays under way: the deadline, which doubles, tries it again.
        payload, content_type = pack(parcel.payload)
        await self._publish(Message(self._topic, payload, content_type=content_type))


class _Lane:
    """One range of the outbox on its way, in order; ``until`` is its end, if it has one.

    ``bell`` rings when there may be more in it; ``began``: it has sent something; ``streams`` are those
    that it has sent of.
    """

    def __init__(
        self,
        outbox: Outbox,
        window: Window,
        send: Callable[[Parcel], Coroutine[None, None, None]],
        pause_s: Callable[[], float],
    ) -> None:
        self.window = window
        self.bell = asyncio.Event()
        self.began = asyncio.Event()
        self.until: Cursor = END
        self.streams: set[str] = set()
        self._outbox = outbox
        self._send = send
        self._pause_s = pause_s
        self._not_before_s = 0.0
        self._sooner = asyncio.Event()
        self._behind = False  # more is held than the window let through
        self._wait: asyncio.Timeout | None = None

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Send until cancelled, or until all up to ``until`` is acknowledged."""
        while self._behind or self.until == END or self.window.under_way:
            await self._until_due()
            self.bell.clear()
            await self._fill(group)

    def hold_no_longer(self) -> None:
        """Let the next report come at once."""
        self._not_before_s = 0.0
        self._sooner.set()

    def acknowledged(self, ack: Ack, *, advanced: bool) -> bool:
        """Move on, or back.  True when the hub moves again after it was silent for long."""
        was_late = self.window.is_late
        self.window.acknowledged(ack, advanced=advanced, now_s=_now_s())
        if self._behind or self.until != END:
            self.bell.set()
        # One that has just expired takes no other time, and looks at the window anyway.
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(_now_s() if self.window.is_back else self.window.deadline_s)
        return was_late and not self.window.is_late

    async def _until_due(self) -> None:
        """Wait for the bell and for a report's time; or until the window goes back."""
        try:
            async with asyncio.timeout_at(self.window.deadline_s) as self._wait:
                await self.bell.wait()
                while not self._behind and (left_s := self._not_before_s - _now_s()) > TICK_S:
                    self._sooner.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left_s):
                            await self._sooner.wait()
        except TimeoutError:
            self.window.go_back_if_late(_now_s())
        finally:
            self._wait = None

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Send until the window is full or nothing is left."""
        is_report = self._behind
        while self.window.is_open:
            cursor = self.window.cursor
            try:
                parcel = await self._outbox.take(cursor, until=self.until, max_bytes=PARCEL_BYTES)
            except (Busy, Refused):
                self._behind = True
                asyncio.get_running_loop().call_later(AGAIN_S, self.bell.set)
                return
            if cursor != self.window.cursor:
                continue  # the window went back meanwhile, and this parcel is from further on
            if parcel is None:
                self._behind = False
                if is_report:  # to find nothing is none
                    self._not_before_s = _now_s() + self._pause_s()
                return
            is_report = True
            self.streams.add(parcel.stream)
            self.window.sent(parcel, _now_s())
            group.create_task(self._send(parcel), name=f"publish {parcel.stream}/{parcel.last_seq}")
            self.began.set()
        self._behind = True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
