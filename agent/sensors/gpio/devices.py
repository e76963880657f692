"""The devices of ``kind = "gpio"`` as drivers: what gpiozero makes of pins, read at the sampler's times.

Owns what counts as a change, a pulse, an echo.  `agent.sensors.gpio` opens them, each with a pin
factory of its own, and only then is this module imported, and gpiozero with it.  None of them
starts a thread: gpiozero's Button, LineSensor, MotionSensor and DistanceSensor do, and most of those
poll, so they are an `Input` and a `Distance` here, on the devices that only listen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import gpiozero

from agent.sensors.driver import Answer, Driver, Environment
from agent.sensors.gpio import INPUTS, MCP_CHANNELS, Measure, Options
from agent.wire.errors import LichenError, Refused

WAKES, WAKES_PER_S = 20, 1.0
"""A line that changes more often is read at its times only: an unconnected one picks up every hum."""
FRESH_S = 2.0
"""A rate is told at most this often, so that it is no guess from a moment."""
SPEED_OF_SOUND = 343.26
"""Metres per second in air of 20 degrees Celsius."""
PINGS, PING_S, REST_S, PULSE_S = 5, 0.1, 0.06, 1e-5
"""How often is asked for a distance, the wait for an echo, the pause after one, and the trigger's length."""
LONGEST_ECHO_S = 0.03
"""Five metres; a sensor that hears nothing lets its echo end after 38 ms or later."""

Connect = Callable[[], Any]
"""Makes the pin factory of a sensor.  Raises Refused."""


def opened(options: Options, env: Environment, connect: Connect) -> Driver:
    """The driver for the device, on the pins that ``connect`` makes."""
    if options.device in INPUTS:
        return Input(options, env, connect)
    if options.device == "distance":
        return Distance(options, env, connect)
    return Polled(options, env, connect, _cpu if options.device == "cpu" else _mcp)


class Input:
    """Something that is active or not."""

    def __init__(self, options: Options, env: Environment, connect: Connect) -> None:
        self._options, self._env, self._connect = options, env, connect
        self._preset = options.preset
        # gpiozero takes a pulled line as active at the other level; who wants the same one turns it round.
        natural = {"up": "low", "down": "high", "none": self._preset.active}[self._preset.pull]
        self._turned = natural != self._preset.active
        self._device: Any = None
        self._active = False
        self._told: bool | None = None
        self._moved = False
        self._count = 0
        self._wakes, self._wakes_at_s = float(WAKES), 0.0
        self._counted, self._counted_at_s = 0, 0.0

    async def read(self) -> Mapping[str, Answer]:
        try:
            if self._device is None:
                self._claim()
            # The kernel is asked, too: an edge may still be on its way here, or was slept through.
            self._note(bool(self._device.value) ^ self._turned)
        except LichenError:
            await self.close()
            raise
        answers: dict[Measure, float | None] = {
            "state": float(self._state()), "count": float(self._count), "rate": self._rate()
        }  # fmt: skip
        names = (channel.name for channel in self._options.list_channels())
        told = {name: answers[measure] for name, measure in zip(names, self._preset.tells, strict=True)}
        return {name: value for name, value in told.items() if value is not None}

    async def close(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None

    def _claim(self) -> None:
        preset = self._preset
        self._device = device = gpiozero.DigitalInputDevice(
            self._options.line,
            pull_up={"up": True, "down": False, "none": None}[preset.pull],
            active_state=preset.active == "high" if preset.pull == "none" else None,
            bounce_time=preset.debounce_s or None,
            pin_factory=self._connect(),
        )
        device.when_activated = lambda: self._note(not self._turned)
        device.when_deactivated = lambda: self._note(self._turned)
        self._active = bool(device.value) ^ self._turned
        self._told, self._moved = None, False
        self._counted, self._counted_at_s = self._count, asyncio.get_running_loop().time()

    def _note(self, active: bool) -> None:
        """The line became active, or ceased to be; called on the loop."""
        if active == self._active:
            return
        self._active, self._moved = active, True
        self._count += active
        self._wake()

    def _wake(self) -> None:
        if "state" not in self._preset.tells:
            return
        now_s = asyncio.get_running_loop().time()
        self._wakes = min(WAKES, self._wakes + (now_s - self._wakes_at_s) * WAKES_PER_S)
        self._wakes_at_s = now_s
        if self._wakes >= 1:
            self._wakes -= 1
            self._env.wake()

    def _state(self) -> bool:
        """What to tell: the state, or first the other one if it was that since the last telling."""
        state = self._active
        if self._moved and state == self._told:
            state = not state
            self._wake()
        self._told, self._moved = state, False
        return state

    def _rate(self) -> float | None:
        now_s = asyncio.get_running_loop().time()
        span_s = now_s - self._counted_at_s
        if span_s < 0.9 * min(self._options.interval_s, FRESH_S):
            return None
        count, self._counted, self._counted_at_s = self._count - self._counted, self._count, now_s
        return count / span_s * (60 if self._options.per == "min" else 1)


class Distance:
    """An ultrasonic sensor: a pulse on its trigger, and its echo is as long as the sound was under way.

    Not gpiozero's DistanceSensor, which asks 16 times a second from a thread of its own for as long as it
    is open, and goes on telling the last distance when no echo comes any more.
    """

    def __init__(self, options: Options, env: Environment, connect: Connect) -> None:
        self._options, self._env, self._connect = options, env, connect
        self._echo: Any = None
        self._trigger: Any = None
        self._rose_at_s: float | None = None
        self._echo_s = 0.0
        self._heard = asyncio.Event()

    async def read(self) -> Mapping[str, Answer]:
        try:
            if self._trigger is None:
                self._claim()
            # One at a time: a sensor takes the sound of another for its own.
            async with self._env.turns.of("ultrasound"):
                echoes_s = sorted(
                    [echo_s for _ in range(PINGS) if (echo_s := await self._ping()) is not None]
                )
        except LichenError:
            await self.close()
            raise
        if len(echoes_s) <= PINGS // 2:
            hint = (
                "beyond 4 m, or from cloth, none comes; else check its 5 V and the lines of trigger and echo"
            )
            raise Refused(f"line {self._options.echo}: no echo", code="no-echo", hint=hint)
        return {self._options.name: echoes_s[len(echoes_s) // 2] * SPEED_OF_SOUND / 2}

    async def close(self) -> None:
        for device in (self._trigger, self._echo):
            if device is not None:
                device.close()
        self._trigger = self._echo = None

    def _claim(self) -> None:
        factory = self._connect()
        self._echo = gpiozero.InputDevice(self._options.echo, pull_up=False, pin_factory=factory)
        self._echo.pin.edges = "both"
        self._echo.pin.when_changed = self._on_echo
        self._trigger = gpiozero.OutputDevice(self._options.trigger, pin_factory=factory)

    async def _ping(self) -> float | None:
        """How long the sound was under way; None when it did not come back."""
        self._rose_at_s = None
        self._heard.clear()
        self._fire()
        try:
            async with asyncio.timeout(PING_S):
                await self._heard.wait()
        except TimeoutError:
            return None
        await asyncio.sleep(REST_S)
        return self._echo_s if self._echo_s <= LONGEST_ECHO_S else None

    def _fire(self) -> None:
        self._trigger.on()
        time.sleep(PULSE_S)
        self._trigger.off()

    def _on_echo(self, at_s: float, level: bool) -> None:
        if level:
            self._rose_at_s = at_s
        elif self._rose_at_s is not None:
            self._echo_s = at_s - self._rose_at_s
            self._heard.set()


class Polled:
    """What has one value, asked for beside the loop: ``make`` opens it and says how."""

    def __init__(
        self,
        options: Options,
        env: Environment,
        connect: Connect,
        make: Callable[[Options, Environment, Any], tuple[Any, Callable[[], float]]],
    ) -> None:
        self._options, self._env, self._connect, self._make = options, env, connect, make
        self._device: Any = None
        self._ask: Callable[[], float] = float

    async def read(self) -> Mapping[str, Answer]:
        return {self._options.name: await self._env.run_blocking(self._value)}

    async def close(self) -> None:
        self._let_go()

    def _value(self) -> float:
        try:
            if self._device is None:
                self._device, self._ask = self._make(self._options, self._env, self._connect())
            return self._ask()
        except LichenError:
            # What went away may come back as another device.
            self._let_go()
            raise

    def _let_go(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None


def _mcp(options: Options, env: Environment, factory: Any) -> tuple[Any, Callable[[], float]]:
    keys: dict[str, Any] = {"max_voltage": options.reference_v or 3.3}
    if MCP_CHANNELS[options.device] > 1:
        keys |= {"channel": options.channel or 0, "differential": bool(options.differential)}
    port, device = (options.spi or "0.0").split(".")
    chip = getattr(gpiozero, options.device.upper())(
        port=int(port), device=int(device), pin_factory=factory, **keys
    )
    return chip, lambda: float(chip.voltage)


def _cpu(options: Options, env: Environment, factory: Any) -> tuple[Any, Callable[[], float]]:
    path = env.sysfs / "class/thermal/thermal_zone0/temp"
    try:
        cpu = gpiozero.CPUTemperature(str(path), pin_factory=factory)
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {error}") from error

    def celsius() -> float:
        try:
            return float(cpu.temperature)
        except (OSError, ValueError) as error:
            raise Refused(f"{path}: {error}") from error

    return cpu, celsius
