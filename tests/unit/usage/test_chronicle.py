"""What the usage log says besides what containers used: once each, and by whatever clock there is."""

from __future__ import annotations

from pathlib import Path

from agent.clock import Clock
from agent.usage.chronicle import MOST_ORDERS, MOST_STEPS, Chronicle
from agent.wire.messages import ClockState, Sensor
from agent.wire.usage import (
    BoardRecord,
    ClockRecord,
    Known,
    OrderRecord,
    Record,
    SensorRecord,
    encode,
    numbered,
    read,
)

BOOT = "b" * 32
WALL_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY = 20_000


class Deliveries:
    """What was delivered, as a test says it."""

    def __init__(self) -> None:
        self.days: dict[int, dict[str, int]] = {}

    def over(self) -> dict[int, dict[str, int]]:
        return dict(self.days)

    def forget(self, days: object) -> None:
        self.days.clear()


class Board:
    """A board whose log is a list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mono_ms, self.wall_ms, self.boot = 60_000, WALL_MS, BOOT
        self.state: ClockState = "synced"
        self.deliveries = Deliveries()
        self.log: list[Record] = []
        self.start()

    def start(self) -> None:
        """An agent begins, with what the log says last of each kind."""
        latest = {record.type: record for record in self.log}
        self.chronicle = Chronicle(
            Clock(self.boot, lambda: self.mono_ms, lambda: self.wall_ms, lambda: self.state),
            disk=self.folder,
            deliveries=self.deliveries,
            sensors=lambda: (Sensor("room", "iio", "Cel"), Sensor("attic", "iio")),
            latest=latest,
        )

    def passes(self, ms: int) -> None:
        self.mono_ms += ms
        self.wall_ms += ms

    def write(self, *, hour: bool = False) -> list[Known]:
        self.chronicle.look()
        records, written = self.chronicle.draft(hour=hour)
        found = [numbered(record, len(self.log) + at) for at, record in enumerate(records)]  # type: ignore[type-var]
        assert [read(encode(record)) for record in found] == found
        self.log += found
        written()
        return found


def test_each_hour_says_what_the_board_offered(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.passes(HOUR_MS - 60_000)
    [first] = board.write(hour=True)
    assert isinstance(first, BoardRecord)
    assert (first.mono0_ms, first.mono1_ms, first.wall1_ms - first.wall0_ms) == (60_000, HOUR_MS, 3_540_000)
    assert first.cpus >= 1
    assert min(first.memory_bytes, first.disk_bytes) > 2**20
    board.passes(HOUR_MS)
    assert board.write() == []
    [second] = board.write(hour=True)
    assert (second.mono0_ms, second.mono1_ms) == (HOUR_MS, 2 * HOUR_MS)


def test_a_clock_that_was_set_is_told_once(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.passes(60_000)
    assert board.write() == []
    year_ms = 365 * 86_400_000
    board.wall_ms += year_ms
    board.passes(60_000)
    [ahead] = board.write()
    assert isinstance(ahead, ClockRecord)
    assert (ahead.from_state, ahead.to_state, ahead.step_ms) == ("synced", "synced", year_ms)
    assert (ahead.mono0_ms, ahead.mono1_ms) == (120_000, 180_000)
    assert (ahead.wall0_ms, ahead.wall1_ms) == (WALL_MS + 60_000, WALL_MS + year_ms + 120_000)
    board.passes(60_000)
    assert board.write() == []
    board.wall_ms -= year_ms
    [back] = board.write()
    assert isinstance(back, ClockRecord)
    assert back.step_ms == -year_ms


def test_a_board_that_believes_in_1970_and_is_told_better(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.state, board.wall_ms = "unsynced", 1_000
    board.start()
    assert board.write() == []
    board.passes(60_000)
    board.state, board.wall_ms = "synced", WALL_MS
    [told] = board.write()
    assert isinstance(told, ClockRecord)
    assert (told.from_state, told.to_state, told.clock) == ("unsynced", "synced", "synced")
    assert told.step_ms == WALL_MS - 61_000
    board.state = "unsynced"  # it has not heard from its server for too long
    [doubted] = board.write()
    assert isinstance(doubted, ClockRecord)
    assert (doubted.from_state, doubted.to_state) == ("synced", "hub")  # it was right once in this boot


def test_a_clock_that_is_corrected_slowly_is_none_that_was_set(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for _ in range(5):
        board.passes(60_000)
        board.wall_ms += 30
        assert board.write() == []


def test_a_clock_that_finds_no_rest_does_not_fill_the_card(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for _ in range(100):
        board.passes(60_000)
        board.wall_ms += 2_000
        board.chronicle.look()
    steps = [each for each in board.write() if isinstance(each, ClockRecord)]
    assert len(steps) == MOST_STEPS
    board.passes(60_000)
    [rest] = board.write()
    assert isinstance(rest, ClockRecord)
    assert rest.step_ms + sum(each.step_ms for each in steps) == 200_000


def test_what_happened_to_the_clock_while_no_agent_looked(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.passes(60_000)
    board.write(hour=True)
    board.passes(60_000)
    board.wall_ms += 5_000
    board.start()
    [told] = board.write()
    assert isinstance(told, ClockRecord)
    assert (told.mono0_ms, told.step_ms) == (120_000, 5_000)
    board.boot, board.mono_ms = "c" * 32, 9_000
    board.start()
    assert board.write() == []  # of another boot nobody can tell


def test_an_order_is_told_once(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.chronicle.note_order(3, "a" * 64, accepted=True)
    assert not board.chronicle.note_order(3, "a" * 64, accepted=True)
    assert board.chronicle.note_order(2, "b" * 64, accepted=False, reason="it is older than 3")
    taken, refused = board.write()
    assert isinstance(taken, OrderRecord)
    assert isinstance(refused, OrderRecord)
    assert (taken.generation, taken.sha256, taken.accepted, taken.reason) == (3, "a" * 64, True, "")
    assert (refused.accepted, refused.reason) == (False, "it is older than 3")
    assert not board.chronicle.note_order(2, "b" * 64, accepted=False)
    board.log.remove(refused)
    board.start()
    assert not board.chronicle.note_order(3, "a" * 64, accepted=True)  # it is in force, and known


def test_a_hub_cannot_fill_the_card_with_orders_that_are_refused(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for number in range(100):
        board.chronicle.note_order(number, f"{number:064}", accepted=False, reason="r" * 9999)
    assert board.chronicle.note_order(200, "a" * 64, accepted=True)
    records = board.write()
    assert len(records) == MOST_ORDERS + 1


def test_what_was_delivered_is_told_when_the_day_is_over(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.deliveries.days = {DAY: {"room": 1440, "attic": 2, "gone": 1}}
    records = board.write()
    assert board.deliveries.days == {}
    told = [
        (each.sensor, each.unit, each.readings, each.day)
        for each in records
        if isinstance(each, SensorRecord)
    ]
    assert told == [("attic", "", 2, DAY), ("gone", "", 1, DAY), ("room", "Cel", 1440, DAY)]


def test_a_day_that_is_written_down_is_not_told_again(tmp_path: Path) -> None:
    """The agent died after it was written, and before it was forgotten."""
    board = Board(tmp_path)
    board.deliveries.days = {DAY: {"room": 5}}
    board.write()
    board.deliveries.days = {DAY: {"room": 5}, DAY + 1: {"room": 6}}
    board.start()
    [record] = board.write()
    assert isinstance(record, SensorRecord)
    assert (record.day, record.readings) == (DAY + 1, 6)
