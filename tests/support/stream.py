"""A board's stream of readings, cut into batches as the test likes.

stream = Stream()
stream.sample(20)                # readings 1 to 20
stream.batch(1, 10)              # a Batch with the first ten, in one block
stream.message(11, 20, low=11)   # a Message with the rest; the board holds from 11 on

Its wall clock may be wrong: by ``skew_ms``, and in the state ``clock``, from when they are set.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.base.broker import Message
from agent.wire import topics
from agent.wire.envelope import pack
from agent.wire.messages import Batch, Block, ClockState, Gap, Held, Reading, block_of, frame, read_batch
from agent.wire.plain import dumps

BOARD = "a" * 16
BOOT = "b" * 32
WALL_MS = 1_700_000_100_000


class Stream:
    """Numbers readings from 1, one a second, of as many ``sensors`` in turn."""

    def __init__(
        self,
        name: str = "s" * 16,
        *,
        board: str = BOARD,
        sensors: Sequence[str] = ("room",),
        wall_ms: int = WALL_MS,
        clock: ClockState = "synced",
        boot: str = BOOT,
        skew_ms: int = 0,
    ) -> None:
        self.name, self.board, self.boot = name, board, boot
        self.clock, self.skew_ms = clock, skew_ms
        self.readings: list[Reading] = []
        self._sensors, self._wall_ms = sensors, wall_ms
        self._clocks: list[ClockState] = []

    def sample(self, count: int) -> None:
        """Make ``count`` more readings, each with its own value."""
        for _ in range(count):
            number = len(self.readings)
            sensor = self._sensors[number % len(self._sensors)]
            at_ms = number * 1000
            wall_ms = self._wall_ms + self.skew_ms + at_ms
            self.readings.append(Reading(sensor, float(number + 1), at_ms, wall_ms))
            self._clocks.append(self.clock)

    def true_ms(self, seq: int) -> int:
        """When a reading was made."""
        return self._wall_ms + self.readings[seq - 1].mono_ms

    def block(self, first: int, last: int) -> Block:
        """The block of readings ``first`` to ``last``, committed with the last of them."""
        some, clock = self.readings[first - 1 : last], self._clocks[last - 1]
        return block_of(some, boot=self.boot, stream=self.name, seq0=first, clock=clock)

    def payload(
        self,
        *spans: tuple[int, int],
        low: int = 1,
        held: dict[str, Held] | None = None,
        gaps: Sequence[Gap] = (),
    ) -> bytes:
        """A batch with one block for each span."""
        own = {self.name: Held(low, max(len(self.readings) + 1, low))}
        blocks = [dumps(self.block(first, last)) for first, last in spans]
        return frame(own | (held or {}), gaps, blocks)

    def batch(self, *spans: tuple[int, int], low: int = 1, gaps: Sequence[Gap] = ()) -> Batch:
        """The same, decoded."""
        return read_batch(self.payload(*spans, low=low, gaps=gaps))

    def message(
        self,
        *spans: tuple[int, int],
        low: int = 1,
        held: dict[str, Held] | None = None,
        gaps: Sequence[Gap] = (),
    ) -> Message:
        """The same, as it travels."""
        payload, content_type = pack(self.payload(*spans, low=low, held=held, gaps=gaps))
        return Message(topics.up(self.board, "readings"), payload, content_type=content_type)

    def gap(self, first: int, last: int) -> Gap:
        """What the board says when it had to drop readings ``first`` to ``last``."""
        return Gap(
            self.name,
            first,
            last - first + 1,
            self.readings[first - 1].wall_ms,
            self.readings[last - 1].wall_ms,
        )
