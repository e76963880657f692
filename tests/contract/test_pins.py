"""What the agent relies on of gpiod and of the kernel behind it: run against the fake, and where there
is a simulator also against the real module.

The real one needs the kernel's gpio-sim, which not every machine has.  LICHEN_GPIO_SIM names its
configfs folder; without it the real one does not take part, and says so in the names of the tests:

    modprobe gpio-sim
    LICHEN_GPIO_SIM=/sys/kernel/config/gpio-sim pytest tests/contract/test_pins.py
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import gpiod
import pytest
from gpiozero import DigitalInputDevice, OutputDevice

from agent.sensors.gpio.chips import Chips
from agent.sensors.gpio.pins import LineFactory, LinePin
from agent.wire.errors import Refused
from fakes.gpiod import FakeGpiod, FakeHardware
from support.gpiosim import GpioSim

LABEL, LINES, NAMES = "lichen-test", 8, {3: "DOOR"}


class World(Protocol):
    """A machine with one chip that tests can move."""

    chips: Chips

    @property
    def path(self) -> str: ...
    def open_chip(self, path: str) -> Any: ...

    def drive(self, offset: int, level: bool) -> None: ...
    def level(self, offset: int) -> bool: ...
    def unplug(self) -> None: ...
    def plug(self) -> None: ...


class Fake:
    def __init__(self, dev: Path) -> None:
        self._gpiod = FakeGpiod(dev)
        self.chips = Chips(self._gpiod.Chip, dev)
        self.plug()

    def plug(self) -> None:
        self._chip: FakeHardware = self._gpiod.add(LABEL, LINES, NAMES)
        self.path = self._chip.path
        self.drive, self.level, self.unplug = self._chip.drive, self._chip.level, self._chip.unplug

    def open_chip(self, path: str) -> Any:
        return self._gpiod.Chip(path)


class Real:
    def __init__(self, sim: GpioSim) -> None:
        self._sim = sim
        self.chips = Chips()
        self.drive, self.level, self.unplug, self.plug = sim.drive, sim.level, sim.unplug, sim.plug

    @property
    def path(self) -> str:
        return self._sim.path

    def open_chip(self, path: str) -> Any:
        return gpiod.Chip(path)


CONFIGFS = os.environ.get("LICHEN_GPIO_SIM")
WORLDS = ["fake", "gpio-sim"] if CONFIGFS else ["fake"]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        yield Fake(tmp_path)
    else:
        with GpioSim(Path(CONFIGFS or ""), LABEL, LINES, NAMES) as sim:
            yield Real(sim)


class Watch:
    """An input pin of ours, and the edges that it was told of."""

    def __init__(self, world: World, offset: int = 3, *, bounce_s: float | None = None) -> None:
        self.pin: LinePin = LineFactory("lichen watch", LABEL, chips=world.chips).pin(offset)
        self.edges: asyncio.Queue[tuple[float, bool]] = asyncio.Queue()
        self.pin.pull = "down"
        self.pin.bounce = bounce_s
        self.pin.when_changed = lambda at_s, level: self.edges.put_nowait((at_s, level))

    def level(self) -> bool:
        return bool(self.pin.state)

    async def next(self) -> tuple[float, bool]:
        async with asyncio.timeout(5):
            return await self.edges.get()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pin.close()


def factory(world: World, consumer: str = "lichen test") -> LineFactory:
    return LineFactory(consumer, LABEL, chips=world.chips)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_line_is_found_by_number_and_by_name(world: World) -> None:
    for chip in (world.path, Path(world.path).name, LABEL):
        for line in (3, "3", "DOOR"):
            found = world.chips.find(line, chip)
            assert (found.path, found.label, found.offset) == (world.path, LABEL, 3)


@pytest.mark.parametrize("line", [LINES, "WINDOW", "GPIO3"])
async def test_a_line_that_is_not_there_is_refused(world: World, line: int | str) -> None:
    with pytest.raises(Refused, match=f"there is no line {line!r} on {world.path}"):
        world.chips.find(line, LABEL)


async def test_a_chip_that_is_not_there_is_refused_and_the_others_are_named(world: World) -> None:
    with pytest.raises(Refused, match=f"there is no GPIO chip 'gpiochip77': .*{LABEL}, {LINES} lines"):
        world.chips.find(3, "gpiochip77")


async def test_an_input_tells_its_level(world: World) -> None:
    with Watch(world) as watch:
        assert watch.level() is False
        world.drive(3, True)
        assert watch.level() is True
        world.drive(3, False)
        assert watch.level() is False


@pytest.mark.parametrize(("pull", "level"), [("up", True), ("down", False)])
async def test_an_open_line_has_the_level_of_its_pull(world: World, pull: str, level: bool) -> None:
    world.drive(2, not level)
    pin = factory(world).pin(2)
    pin.pull = pull
    assert pin.state is level
    assert pin.pull == pull
    pin.close()


async def test_edges_arrive_on_the_loop_with_their_time_and_without_a_thread(world: World) -> None:
    before = threading.active_count()
    loop = asyncio.get_running_loop()
    with Watch(world) as watch:
        for level in (True, False, True):
            earliest_s = loop.time()
            world.drive(3, level)
            at_s, told = await watch.next()
            assert told is level
            assert earliest_s - 0.001 <= at_s <= loop.time() + 0.001
        assert threading.active_count() == before


async def test_a_device_of_gpiozero_is_told_of_edges(world: World) -> None:
    told: asyncio.Queue[bool] = asyncio.Queue()
    with DigitalInputDevice("DOOR", pull_up=True, pin_factory=factory(world)) as door:
        door.when_activated = lambda: told.put_nowait(True)
        door.when_deactivated = lambda: told.put_nowait(False)
        assert not door.is_active, "an open line that is pulled up is inactive"
        async with asyncio.timeout(5):
            world.drive(3, False)
            assert await told.get()
            assert door.is_active
            world.drive(3, True)
            assert not await told.get()


async def test_no_edge_is_told_after_the_close(world: World) -> None:
    with Watch(world) as closed:
        pass
    with Watch(world) as watch:
        world.drive(3, True)
        await watch.next()
    assert closed.edges.empty()


async def test_a_level_counts_once_it_has_held(world: World) -> None:
    loop = asyncio.get_running_loop()
    with Watch(world, bounce_s=0.05) as watch:
        begun_s = loop.time()
        for level in (True, False, True, False, True):
            world.drive(3, level)
        at_s, level = await watch.next()
        assert level is True
        # The kernel stamps what has held when it has; it counts in ticks, of which one may be a hundredth.
        assert at_s - begun_s >= 0.035
        assert watch.level() is True
        world.drive(3, False)
        assert (await watch.next())[1] is False
        assert watch.edges.empty()


async def test_an_output_drives_its_line(world: World) -> None:
    with OutputDevice(5, initial_value=True, pin_factory=factory(world)) as lamp:
        assert world.level(5) is True
        lamp.off()
        assert world.level(5) is False
        lamp.on()
        assert (world.level(5), lamp.value) == (True, 1)


async def test_a_line_of_another_program_is_refused_with_its_name(world: World) -> None:
    settings = gpiod.LineSettings(direction=gpiod.line.Direction.INPUT)
    with world.open_chip(world.path) as chip:
        other = chip.request_lines({3: settings}, "blinkd", 16)
    with pytest.raises(Refused, match=rf"line 3 of {world.path} \({LABEL}\) is used by 'blinkd'") as refused:
        Watch(world)
    assert refused.value.code == "taken"
    assert "end that program" in refused.value.hint
    other.release()
    with Watch(world) as watch:
        assert watch.level() is False


async def test_two_sensors_on_one_line_are_told_of_each_other(world: World) -> None:
    with Watch(world), pytest.raises(Refused, match="is used by 'lichen watch'") as refused:
        factory(world, "lichen second").pin(3).state  # noqa: B018  asking claims the line
    assert "another sensor of this board" in refused.value.hint


async def test_a_closed_pin_gives_everything_back(world: World) -> None:
    before = open_descriptors()
    for _ in range(3):
        with Watch(world) as watch:
            assert watch.level() is False
        watch.pin.close()
    assert open_descriptors() == before


async def test_a_chip_that_was_unplugged_is_told_and_found_again(world: World) -> None:
    with Watch(world) as watch:
        world.drive(3, True)
        assert (await watch.next())[1] is True
        world.unplug()
        for _ in range(3):
            with pytest.raises(Refused, match=f"line 3 of .* \\({LABEL}\\): No such device"):
                watch.level()
    world.plug()
    with Watch(world) as watch:
        world.drive(3, True)
        assert (await watch.next())[1] is True
