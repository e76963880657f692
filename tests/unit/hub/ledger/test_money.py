"""Amounts: exact, and rounded once."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hub.ledger.meters import METERS, Meter, amount_of
from hub.ledger.money import MICRO, cents, decimal, micro, quotient

amounts = st.integers(-(2**53), 2**53)
meters = st.sampled_from(list(METERS.values()))
HALF = Fraction(1, 2)


@given(st.integers(0, 2**53))
def test_what_was_written_is_read(amount: int) -> None:
    assert micro(decimal(amount)) == amount
    assert micro(cents(amount)) == amount


@given(amounts)
def test_a_decimal_is_the_amount(amount: int) -> None:
    assert Fraction(decimal(amount)) * MICRO == amount
    assert "e" not in decimal(amount).lower()
    assert len(cents(amount).partition(".")[2]) >= 2


@given(st.integers(0, 2**70), st.integers(0, 10**12), meters)
def test_an_amount_is_the_nearest_one_and_halves_go_up(quantity: int, price: int, meter: Meter) -> None:
    exact = Fraction(quantity * price, meter.divisor)
    amount = amount_of(quantity, price, meter)
    assert exact - HALF < amount <= exact + HALF


@given(st.integers(0, 2**70), st.integers(0, 10**12), meters)
def test_more_never_costs_less(quantity: int, price: int, meter: Meter) -> None:
    assert amount_of(quantity, price, meter) <= amount_of(quantity + 1, price, meter)
    assert amount_of(quantity, price, meter) <= amount_of(quantity, price + 1, meter)


@given(st.integers(-(2**70), 2**70), meters)
def test_a_quotient_is_as_near_as_its_places(quantity: int, meter: Meter) -> None:
    text = quotient(quantity, meter.divisor, 12)
    assert abs(Fraction(text) - Fraction(quantity, meter.divisor)) <= Fraction(1, 2 * 10**12)
    assert quotient(-quantity, meter.divisor, 12) == (
        f"-{text}" if quantity > 0 and text != "0" else text.lstrip("-")
    )
