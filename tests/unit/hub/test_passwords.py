"""Passwords: what is stored, what is refused, and that unknown names cost the same."""

from __future__ import annotations

import time

import pytest

from agent.wire.errors import ConfigError, Refused
from hub.access import passwords
from hub.access.throttle import Throttle

GOOD = "correct horse battery"


@pytest.fixture(scope="module")
def stored() -> str:
    return passwords.hash_password(GOOD)


def test_the_right_password_and_no_other(stored: str) -> None:
    assert passwords.verify(stored, GOOD)
    assert not passwords.verify(stored, GOOD + " ")
    assert not passwords.verify(stored, "")
    assert not passwords.verify(stored, "\ud800")
    assert not passwords.verify(stored, "x" * 2000)


def test_a_name_that_nobody_has_takes_as_long_as_one_that_somebody_has(stored: str) -> None:
    known, unknown = _cost(stored), _cost(None)
    # 64 MiB and three passes: both are tens of milliseconds, where a short cut would be micro.
    assert 0.5 < known / unknown < 2


def _cost(stored: str | None) -> float:
    costs = []
    for _ in range(2):
        start = time.thread_time()
        passwords.verify(stored, "wrong password")
        costs.append(time.thread_time() - start)
    return min(costs)


@pytest.mark.parametrize("poor", ["", "short", "x" * 9, "x" * 1025, "ü" * 600])
def test_poor_passwords(poor: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        passwords.check_password(poor)


def test_made_ones_are_good_and_different() -> None:
    made = {passwords.generate() for _ in range(20)}
    assert len(made) == 20
    assert {passwords.check_password(one) for one in made} == made


class Wait:
    """A throttle on a clock that the test turns."""

    def __init__(self, **options: int) -> None:
        self.at_ms = 0
        self.throttle = Throttle(
            lambda: self.at_ms, **{"free": 1, "base_ms": 100, "high_ms": 1000, **options}
        )


def test_waits_double_up_to_a_bound_and_end_with_a_success() -> None:
    wait = Wait()
    seen = []
    for _ in range(7):
        wait.throttle.charge("ada")
        seen.append(wait.throttle.wait_ms("ada"))
        wait.at_ms += seen[-1]
    assert seen == [0, 100, 200, 400, 800, 1000, 1000]
    wait.throttle.clear("ada")
    wait.throttle.charge("ada")
    assert wait.throttle.wait_ms("ada") == 0


def test_who_comes_early_is_refused_and_pays_nothing_more() -> None:
    wait = Wait(free=0)
    wait.throttle.charge("ada")
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            wait.throttle.charge("ada")
        assert caught.value.code == "too-many"
    assert wait.throttle.wait_ms("ada") == 100
    wait.throttle.check("bob")


def test_the_table_is_bounded() -> None:
    wait = Wait(free=0, size=3)
    for name in ("a", "b", "c", "d"):
        wait.throttle.charge(name)
    assert [wait.throttle.wait_ms(name) for name in ("a", "b", "c", "d")] == [0, 100, 100, 100]
