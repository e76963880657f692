"""From a driver's answer to a recorded reading: units, scale, plausibility, deadband."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.sensors import conditioning
from agent.sensors.conditioning import Sieve, condition
from agent.sensors.driver import Conditioning, Stale, channels_of, read_sensor
from agent.wire.errors import ConfigError, Refused
from agent.wire.messages import Reading

CODES = "UCUM codes, such as 'Cel', '%' or 'hPa'"
ROOM = {"name": "room", "kind": "file", "path": "/run/room"}
CPU = {"name": "cpu", "kind": "thermal", "type": "cpu-thermal"}
BOARD = {"name": "board", "kind": "capacity"}


def test_the_examples_hold() -> None:
    assert doctest.testmod(conditioning).failed == 0


# --- the keys ------------------------------------------------------------------------------------


def test_units_and_quantities_are_those_of_the_configuration_then_of_the_kind() -> None:
    (channel,) = channels_of(read_sensor(CPU, "sensors[0]"))
    assert (channel.unit, channel.quantity) == ("Cel", "temperature")
    american = {"unit": "[degF]", "scale": 1.8, "offset": 32, "quantity": "heat"}
    (channel,) = channels_of(read_sensor(CPU | american, "sensors[0]"))
    assert (channel.unit, channel.quantity) == ("[degF]", "heat")


def test_each_of_several_channels_has_keys_of_its_own() -> None:
    sensor = read_sensor(BOARD | {"channels": {"cpu": {"deadband": 5}, "load": {"unit": "1"}}}, "sensors[0]")
    assert sensor.conditioning("board.cpu").deadband == 5
    assert sensor.conditioning("board.disk").deadband is None
    units = {channel.name: channel.unit for channel in channels_of(sensor)}
    assert (units["board.cpu"], units["board.load"]) == ("%", "1")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (ROOM | {"unit": "°C"}, "unit: '°C' is not a unit that is known here; did you mean 'Cel'?"),
        (ROOM | {"unit": "hpa"}, "unit: 'hpa' is not a unit that is known here; did you mean 'hPa'?"),
        (
            ROOM | {"unit": "furlong"},
            f"unit: 'furlong' is not a unit that is known here; units are {CODES}",
        ),
        (ROOM | {"minimum": 5, "maximum": 4}, "minimum: 5 is above maximum (4)"),
        (ROOM | {"deadband": -1}, "deadband: -1.0 is not within 0 to 1000000000000.0"),
        (
            ROOM | {"tags": {"a b": "x"}},
            "tags['a b']: 'a b' is not a name of a-z, 0-9, '_', '.' or '-', at most 32",
        ),
        (ROOM | {"channels": {"a": {}}}, "channels: it has one channel, whose keys stand beside its name"),
        (CPU | {"unit": "[degF]"}, "unit: '[degF]' where 'Cel' is measured"),
        (BOARD | {"maximum": 5}, "maximum: it has several channels: say of which"),
        (BOARD | {"channels": {"cpuu": {}}}, "channels.cpuu: there is no such channel; did you mean 'cpu'?"),
        (
            BOARD | {"channels": {"cpu": {"unit": "By"}}},
            "channels.cpu.unit: 'By' where '%' is measured",
        ),
    ],
)
def test_a_mistake_is_named_with_its_way_out(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_sensor(table, "sensors[0]")
    assert str(raised.value) == f"sensors[0].{complaint}"


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "how", "expected"),
    [
        (100.0, Conditioning(), 100.0),
        (100.0, Conditioning(scale=1.8, offset=32), 212.0),
        (85.0, Conditioning(maximum=85), 85.0),
        (-40, Conditioning(minimum=-40), -40.0),
        (Stale(2.0), Conditioning(scale=2), Stale(4.0)),
    ],
)
def test_a_value_is_scaled_and_believed_up_to_its_bounds(
    value: float | Stale, how: Conditioning, expected: float | Stale
) -> None:
    assert condition(value, how, "Cel") == expected


@pytest.mark.parametrize(
    ("value", "how", "reason"),
    [
        (85.04, Conditioning(maximum=85), "it says 85.04 °C, and only up to 85 °C is plausible"),
        (-41.0, Conditioning(minimum=-40), "it says -41 °C, and only -40 and more °C is plausible"),
        (Stale(9.0), Conditioning(minimum=0, maximum=1), "it says 9 °C, and only 0 to 1 °C is plausible"),
        (50.0, Conditioning(scale=2, maximum=85), "it says 100 °C, and only up to 85 °C is plausible"),
    ],
)
def test_what_is_not_plausible_is_a_failure_with_value_and_bounds(
    value: float | Stale, how: Conditioning, reason: str
) -> None:
    answer = condition(value, how, "Cel")
    assert isinstance(answer, Refused)
    assert (str(answer), answer.code) == (reason, "implausible")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
def test_a_value_that_no_message_can_carry_is_a_failure(value: float) -> None:
    answer = condition(value, Conditioning(scale=10), "")
    assert isinstance(answer, Refused)
    assert answer.code == "invalid"


def test_an_error_stays_what_it_is() -> None:
    error = Refused("unplugged")
    assert condition(error, Conditioning(scale=2, maximum=1), "") is error


# --- deadband ------------------------------------------------------------------------------------


def sifted(values: list[float | None], *, deadband: float | None = 0.5) -> list[tuple[float | None, int]]:
    """What is kept of values that come every 10 s with a heartbeat of 60 s, and at which second."""
    sieve = Sieve(deadband, heartbeat_ms=60_000, interval_ms=10_000)
    readings = [Reading("room", value, number * 10_000, 0) for number, value in enumerate(values)]
    return [(kept.value, kept.mono_ms // 1000) for reading in readings for kept in sieve.sift(reading)]


def test_without_a_deadband_everything_is_kept() -> None:
    assert sifted([1.0, 1.0, None], deadband=None) == [(1.0, 0), (1.0, 10), (None, 20)]


def test_what_stays_near_is_left_out_and_what_leaves_comes_with_the_one_before() -> None:
    assert sifted([20.0, 20.4, 19.6, 20.6, 20.7]) == [(20.0, 0), (19.6, 20), (20.6, 30)]


def test_a_deadband_of_zero_keeps_each_change() -> None:
    assert sifted([0.0, 0.0, 1.0, 1.0, 0.0], deadband=0) == [
        (0.0, 0),
        (0.0, 10),
        (1.0, 20),
        (1.0, 30),
        (0.0, 40),
    ]


def test_a_value_that_never_changes_is_kept_no_later_than_the_heartbeat() -> None:
    assert [at_s for _, at_s in sifted([20.0] * 20)] == [0, 60, 120, 180]


def test_failures_and_recoveries_are_kept_and_a_lasting_one_beats_like_a_value() -> None:
    values = [20.0, 20.0, None, *[None] * 7, 20.0]
    assert sifted(values) == [(20.0, 0), (20.0, 10), (None, 20), (None, 80), (None, 90), (20.0, 100)]


def test_a_value_that_grows_old_is_kept_as_such() -> None:
    sieve = Sieve(0.5, heartbeat_ms=60_000, interval_ms=10_000)
    assert len(sieve.sift(Reading("room", 20.0, 0, 0))) == 1
    assert [kept.stale for kept in sieve.sift(Reading("room", 20.0, 10_000, 0, stale=True))] == [True]


@given(some.lists(some.one_of(some.none(), some.floats(-5, 5)), min_size=1), some.floats(0, 3))
def test_no_value_is_further_from_what_was_kept_than_the_deadband(
    values: list[float | None], deadband: float
) -> None:
    kept = {at_s: value for value, at_s in sifted(values, deadband=deadband)}
    last: float | None = None
    for number, value in enumerate(values):
        last = kept.get(number * 10, last)
        assert (value is None) == (last is None)
        assert value is None or last is None or abs(value - last) <= deadband
