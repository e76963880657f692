"""GPIO sensors on a fake of the kernel's chips: finding lines, bouncing, missed edges, distances."""

from __future__ import annotations

import asyncio
import ctypes
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.sensors.driver import Driver, Environment, SensorConfig, Turns, read_sensor
from agent.sensors.gpio import Options
from agent.sensors.gpio.chips import BUFFERED, Chips
from agent.sensors.gpio.devices import PINGS, SPEED_OF_SOUND, opened
from agent.sensors.gpio.pins import LineFactory
from agent.sensors.gpio.spi import MESSAGE, TRANSFER, Spi
from agent.sensors.sampler import Sampler
from agent.wire.errors import Refused
from agent.wire.messages import ClockState, Reading
from fakes.gpiod import FakeGpiod, FakeHardware
from support.virtual import virtual, virtual_clock

HEADER = "pinctrl-bcm2711"


async def run_here(function: Any) -> Any:
    return function()


class Board:
    """A Raspberry Pi 4's chips, and sensors on them."""

    def __init__(self, dev: Path) -> None:
        self.gpiod = FakeGpiod(dev)
        self.expander = self.gpiod.add("raspberrypi-exp-gpio", 8)
        self.header = self.gpiod.add(HEADER, 58, {4: "GPIO_GCLK", 17: "GPIO17"})
        self.chips = Chips(self.gpiod.Chip, dev)
        self.turns = Turns()
        self.woken = 0

    def sensor(self, **keys: Any) -> Driver:
        options = read_sensor({"name": "x", "kind": "gpio"} | keys, "sensors[0]")
        assert isinstance(options, Options)
        env = Environment(Path("/sys"), Path("/state"), run_here, wake=self._wake, turns=self.turns)
        return opened(options, env, lambda: LineFactory(f"lichen {options.name}", chips=self.chips))

    def _wake(self) -> None:
        self.woken += 1


class Sink:
    """Keeps what the sampler commits."""

    def __init__(self) -> None:
        self.kept: list[Reading] = []

    async def append(self, readings: Sequence[Reading], clock: ClockState, /) -> None:
        self.kept += readings


# --- which chip, which line ----------------------------------------------------------------------


@pytest.mark.parametrize("label", ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"])
def test_a_number_is_one_of_the_header_whatever_the_kernel_numbered_first(label: str, tmp_path: Path) -> None:
    world = FakeGpiod(tmp_path)
    world.add("gpio-brcmstb@107d508500", 32)
    header = world.add(label, 54)
    (tmp_path / "gpiochip4").symlink_to(header.path)  # as on a Pi 5, for programs that knew its first kernel
    chips = Chips(world.Chip, tmp_path)
    assert chips.find(17).path == header.path
    assert chips.find(17, "gpiochip4").path == header.path
    assert chips.find(17, f"{tmp_path}/gpiochip4").path == header.path


@pytest.mark.parametrize(("line", "offset"), [("GPIO17", 17), ("GPIO_GCLK", 4), ("GPIO4", 4), ("22", 22)])
def test_a_line_of_the_header_by_name(line: str, offset: int, tmp_path: Path) -> None:
    assert Board(tmp_path).chips.find(line).offset == offset


def test_another_board_has_to_say_which_chip(tmp_path: Path) -> None:
    world = FakeGpiod(tmp_path)
    chips = Chips(world.Chip, tmp_path)
    first = world.add("gpio-a", 32)
    assert chips.find(5).path == first.path, "there is only one"
    second = world.add("gpio-b", 32, {7: "DOOR"})
    with pytest.raises(Refused, match="there is a line 5 on several chips") as refused:
        chips.find(5)
    assert refused.value.hint == (
        f"set chip to one of {first.path} (gpio-a, 32 lines), {second.path} (gpio-b, 32 lines)"
    )
    assert chips.find(5, "gpio-a").path == first.path
    assert chips.find("DOOR").path == second.path, "only one has a line of that name"


def test_a_machine_without_gpio_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no gpiochip") as refused:
        Chips(FakeGpiod(tmp_path).Chip, tmp_path).find(17)
    assert "this machine has no GPIO" in refused.value.hint


def test_an_agent_without_the_right_is_told_which_group(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.gpiod.forbidden = {board.expander.path}
    assert board.chips.find(17).path == board.header.path, "the other one is not its business"
    board.gpiod.forbidden.add(board.header.path)
    with pytest.raises(Refused, match=f"{board.header.path}: Permission denied") as refused:
        board.chips.find(17)
    assert "usermod -aG gpio" in refused.value.hint


# --- inputs --------------------------------------------------------------------------------------


@virtual
async def test_a_line_of_another_program_is_tried_again(tmp_path: Path) -> None:
    board = Board(tmp_path)
    other = LineFactory("blinkd", chips=board.chips).pin(17)
    assert not other.state
    sensor = board.sensor(device="button", line=17)
    for _ in range(2):
        with pytest.raises(Refused, match=r"line 17 of .* is used by 'blinkd'"):
            await sensor.read()
    other.close()
    assert await sensor.read() == {"x.state": 0.0, "x.count": 0.0}
    await sensor.close()
    await sensor.close()
    assert not board.header.claims


@virtual
async def test_a_chip_that_is_unplugged_wakes_nobody_again_and_the_count_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path)
    sensor = board.sensor(device="button", line=17)
    await sensor.read()
    await press(board.header, 17, times=3)
    assert (await sensor.read())["x.count"] == 3.0
    board.header.unplug()
    await asyncio.sleep(1)  # would never end if the loop were called again and again
    with pytest.raises(Refused, match=r"line 17 of .* \(pinctrl-bcm2711\): No such device"):
        await sensor.read()
    with pytest.raises(Refused, match="there is no line 17"):
        await sensor.read()
    board.header = board.gpiod.add(HEADER, 58)
    assert (await sensor.read())["x.count"] == 3.0
    await press(board.header, 17)
    assert (await sensor.read())["x.count"] == 4.0
    await sensor.close()


async def press(chip: FakeHardware, line: int, *, times: int = 1, bounces: int = 0) -> None:
    """Pull the line down for a second and let it go for another, and let it bounce at either edge."""
    for _ in range(times):
        for level in (False, True):
            for _ in range(bounces):
                chip.drive(line, level)
                await asyncio.sleep(0.001)
                chip.drive(line, not level)
                await asyncio.sleep(0.001)
            chip.drive(line, level)
            await asyncio.sleep(1)


@pytest.mark.parametrize("by_kernel", [True, False])
def test_bouncing_is_one_press_whoever_debounces(by_kernel: bool, tmp_path: Path) -> None:
    @virtual
    async def run() -> None:
        board = Board(tmp_path)
        board.header.debounces = by_kernel
        sensor = board.sensor(device="button", line=17, debounce_s=0.02)
        await sensor.read()
        await press(board.header, 17, times=3, bounces=5)
        assert await sensor.read() == {"x.state": 1.0, "x.count": 3.0}, "the last release was not told yet"
        assert (await sensor.read())["x.state"] == 0.0
        board.header.drive(17, False)
        board.header.drive(17, True)
        await asyncio.sleep(1)
        assert await sensor.read() == {"x.state": 0.0, "x.count": 3.0}, "a spike is no press"
        await sensor.close()

    run()


@virtual
async def test_a_late_loop_tells_a_press_from_bouncing_by_the_time_of_the_edges(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.header.debounces = False
    sensor = board.sensor(device="button", line=17, debounce_s=0.02)
    await sensor.read()
    for at_s, level in ((1.0, False), (1.5, True), (2.0, False), (2.001, True), (2.002, False)):
        board.header.drive(17, level, at_s)
    await asyncio.sleep(0.001)  # all five are read together
    assert (await sensor.read())["x.count"] == 1.0, "one has held; the last may still bounce"
    await asyncio.sleep(0.02)
    assert (await sensor.read())["x.count"] == 2.0
    await sensor.close()


@virtual
async def test_edges_that_found_no_room_are_counted(tmp_path: Path) -> None:
    board = Board(tmp_path)
    sensor = board.sensor(device="input", line=27, tells=["count"])
    await sensor.read()
    pulses = 5 * BUFFERED
    for _ in range(pulses):
        board.header.drive(27, True)
        board.header.drive(27, False)
    await asyncio.sleep(0.001)
    assert await sensor.read() == {"x": pulses}
    await sensor.close()


@virtual
async def test_a_press_is_stored_at_once(tmp_path: Path) -> None:
    board, sink = Board(tmp_path), Sink()

    class Kind:
        Options: type[SensorConfig] = Options

        async def open(self, options: Any, env: Environment) -> Driver:
            return opened(options, env, lambda: LineFactory("lichen door", chips=board.chips))

        def scan(self, sysfs: Path) -> list[dict[str, Any]]:
            return []

    options = read_sensor({"name": "door", "kind": "gpio", "device": "button", "line": 17}, "sensors[0]")
    sampler = Sampler(
        [options], clock=virtual_clock(), sink=sink, sysfs=tmp_path, state_dir=tmp_path, commit_every_s=60,
        load=lambda kind: Kind(),
    )  # fmt: skip

    async def life() -> None:
        async with asyncio.TaskGroup() as group:
            sampler.start(group)

    async with asyncio.TaskGroup() as group:
        tasks = group.create_task(life(), name="sampler")
        await asyncio.sleep(12.3)
        board.header.drive(17, False)
        await asyncio.sleep(0.05)
        assert sampler.latest()["door.state"].value == 1.0
        assert sampler.latest()["door.state"].mono_ms == 12_320, "as soon as it has held for 20 ms"
        tasks.cancel()
    first = next(reading for reading in sink.kept if (reading.sensor, reading.value) == ("door.state", 1.0))
    assert first.mono_ms == 12_320
    assert not board.header.claims, "the sampler closed it"


# --- distance ------------------------------------------------------------------------------------


class Ultrasound:
    """An HC-SR04: after each pulse on its trigger its echo is high while the sound is under way."""

    def __init__(self, board: Board, trigger: int, echo: int) -> None:
        self.board, self.trigger, self.echo = board, trigger, echo
        self.level = False
        self.metres: list[float | None] = []
        self.fired_at_s: list[float] = []

    def on_output(self, offset: int, level: bool) -> None:
        if offset != self.trigger:
            return
        fell, self.level = self.level and not level, level
        if not fell:
            return
        now_s = asyncio.get_running_loop().time()
        self.fired_at_s.append(now_s)
        metres = self.metres[len(self.fired_at_s) % len(self.metres)]
        if metres is not None:
            self.board.header.drive(self.echo, True, now_s + 0.0005)
            self.board.header.drive(self.echo, False, now_s + 0.0005 + 2 * metres / SPEED_OF_SOUND)


@pytest.mark.parametrize(
    ("metres", "told"),
    [([0.5], 0.5), ([3.9], 3.9), ([1.0, 1.0, 2.7, 1.01, 0.2], 1.0), ([1.0, 1.0, None, 1.0, None], 1.0)],
)
def test_a_distance_is_the_middle_one_of_some(
    metres: list[float | None], told: float, tmp_path: Path
) -> None:
    @virtual
    async def run() -> None:
        board = Board(tmp_path)
        sensor, far = board.sensor(device="distance", trigger=23, echo=24), Ultrasound(board, 23, 24)
        board.header.on_output = far.on_output
        far.metres = metres
        assert await sensor.read() == {"x": pytest.approx(told)}
        await sensor.close()
        assert not board.header.claims

    run()


@pytest.mark.parametrize("metres", [[None], [1.0, None, None], [6.5]])
def test_without_an_echo_there_is_no_distance(metres: list[float | None], tmp_path: Path) -> None:
    @virtual
    async def run() -> None:
        board = Board(tmp_path)
        sensor, far = board.sensor(device="distance", trigger=23, echo=24), Ultrasound(board, 23, 24)
        board.header.on_output = far.on_output
        far.metres = [1.5]
        assert await sensor.read() == {"x": pytest.approx(1.5)}
        far.metres = metres
        with pytest.raises(Refused, match="line 24: no echo"):
            await sensor.read()
        far.metres = [1.2]
        assert await sensor.read() == {"x": pytest.approx(1.2)}, "the old one is forgotten"
        await sensor.close()

    run()


@virtual
async def test_one_sensor_does_not_take_the_sound_of_another_for_its_own(tmp_path: Path) -> None:
    board = Board(tmp_path)
    pairs = [(23, 24), (5, 6)]
    sensors = [board.sensor(device="distance", trigger=trigger, echo=echo) for trigger, echo in pairs]
    fars = [Ultrasound(board, trigger, echo) for trigger, echo in pairs]

    def on_output(offset: int, level: bool) -> None:
        for far in fars:
            far.on_output(offset, level)

    board.header.on_output = on_output
    fars[0].metres, fars[1].metres = [1.0], [2.0]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(sensor.read(), name=f"read {index}") for index, sensor in enumerate(sensors)
        ]
    assert [task.result() for task in tasks] == [{"x": pytest.approx(1.0)}, {"x": pytest.approx(2.0)}]
    assert len(fars[0].fired_at_s) == PINGS
    assert fars[0].fired_at_s[-1] < fars[1].fired_at_s[0]
    for sensor in sensors:
        await sensor.close()


# --- voltages ------------------------------------------------------------------------------------


class AdcFactory(LineFactory):
    """Pins with an ADC on their SPI bus; ``answer`` gives what it sends back for what it is sent."""

    def __init__(self, path: Path, answer: Callable[[bytes], bytes]) -> None:
        super().__init__("lichen adc", chips=Chips(dev=path.parent))
        self._path = path
        self._answer = answer
        self.devices: list[tuple[int, int]] = []
        self.gone = False

    def spi(self, *, port: int = 0, device: int = 0, shared: bool = True) -> Spi:
        self.devices.append((port, device))
        return Spi(self._path, ioctl=self._ioctl)

    def _ioctl(self, descriptor: int, request: int, argument: bytes) -> None:
        if self.gone:
            raise OSError(errno.ENODEV, "No such device")
        if request != MESSAGE:
            return
        there, back, size, speed_hz, *_ = TRANSFER.unpack(argument)
        assert speed_hz == 500_000
        answer = self._answer(ctypes.string_at(there, size))
        assert len(answer) == size
        ctypes.memmove(back, answer, size)


def adc(factory: AdcFactory, **keys: Any) -> Driver:
    options = read_sensor({"name": "x", "kind": "gpio"} | keys, "sensors[0]")
    assert isinstance(options, Options)
    return opened(options, Environment(Path("/sys"), Path("/state"), run_here), lambda: factory)


# By the timing diagrams of the data sheets DS21295 (MCP3008), DS21298 (MCP3208), DS21700 (MCP3301).
FRAMES = [
    ("mcp3008", {"channel": 5}, b"\x01\xd0\x00", b"\xff\xfa\x00", 512 / 1023 * 3.3),
    ("mcp3008", {"channel": 0, "differential": True}, b"\x01\x00\x00", b"\x00\x03\xff", 3.3),
    ("mcp3208", {"channel": 7, "reference_v": 5.0}, b"\x07\xc0\x00", b"\xff\xe8\x00", 2048 / 4095 * 5),
    ("mcp3301", {}, b"\x00\x00", b"\x1f\xff", -1 / 4096 * 3.3),
]


@pytest.mark.parametrize(("device", "keys", "sent", "back", "volts"), FRAMES)
async def test_a_voltage(
    device: str, keys: dict[str, Any], sent: bytes, back: bytes, volts: float, tmp_path: Path
) -> None:
    seen: list[bytes] = []

    def answer(words: bytes) -> bytes:
        seen.append(words)
        return back

    (tmp_path / "spidev").touch()
    factory = AdcFactory(tmp_path / "spidev", answer)
    sensor = adc(factory, device=device, spi="0.1", **keys)
    assert await sensor.read() == {"x": pytest.approx(volts, abs=0.001)}
    assert await sensor.read() == {"x": pytest.approx(volts, abs=0.001)}
    assert seen == [sent, sent]
    assert factory.devices == [(0, 1)]
    await sensor.close()
    await sensor.close()


async def test_a_bus_that_was_away_is_opened_again(tmp_path: Path) -> None:
    (tmp_path / "spidev").touch()
    factory = AdcFactory(tmp_path / "spidev", lambda words: b"\xff\xfa\x00")
    sensor = adc(factory, device="mcp3008")
    first = await sensor.read()
    factory.gone = True
    with pytest.raises(Refused, match="spidev: No such device"):
        await sensor.read()
    factory.gone = False
    assert await sensor.read() == first
    assert factory.devices == [(0, 0), (0, 0)]
    await sensor.close()


def test_a_missing_bus_is_told_with_the_way_out() -> None:
    with pytest.raises(Refused, match=r"/dev/spidev250\.1: No such file") as refused:
        LineFactory("lichen adc").spi(port=250, device=1)
    assert "dtparam=spi=on" in refused.value.hint


def test_what_is_no_bus_is_refused_and_let_go(tmp_path: Path) -> None:
    (tmp_path / "spidev0.0").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(Refused, match=r"spidev0\.0: Inappropriate ioctl"):
        Spi(tmp_path / "spidev0.0")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
