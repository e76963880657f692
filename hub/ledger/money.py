"""Amounts of money as text, and as integers of micro-units: millionths of a currency's unit.

Owns how both are written.  Pure; no floating point number comes near an amount.

>>> micro("0.02"), micro("12"), decimal(20_000), decimal(-1), decimal(12_000_000)
(20000, 12000000, '0.02', '-0.000001', '12')
"""

from __future__ import annotations

MICRO = 1_000_000
PLACES = 6


def micro(text: str) -> int:
    """The micro-units of a decimal number of at most six places, which its type has checked."""
    whole, _, fraction = text.partition(".")
    return int(whole) * MICRO + int(fraction.ljust(PLACES, "0"))


def decimal(amount: int) -> str:
    """Micro-units as a decimal number: without an exponent, and without zeros at its end."""
    whole, fraction = divmod(abs(amount), MICRO)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{fraction:06}".rstrip("0").rstrip(".")


def cents(amount: int) -> str:
    """Micro-units for people: at least two places, and all six when they are needed.

    >>> cents(1_500_000), cents(500), cents(-20_000), cents(0)
    ('1.50', '0.0005', '-0.02', '0.00')
    """
    text = decimal(amount)
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}"


def quotient(quantity: int, divisor: int, places: int) -> str:
    """``quantity / divisor`` as a decimal number, rounded to ``places``, halves away from zero.

    >>> quotient(1, 3, 12), quotient(-2, 3, 4), quotient(5, 1, 12), quotient(-1, 4, 1)
    ('0.333333333333', '-0.6667', '5', '-0.3')
    """
    scaled = (2 * abs(quantity) * 10**places + divisor) // (2 * divisor)
    whole, fraction = divmod(scaled, 10**places)
    text = f"{whole}.{fraction:0{places}}".rstrip("0").rstrip(".")
    return f"-{text}" if quantity < 0 and scaled else text


def rough(quantity: int, divisor: int) -> str:
    """``quantity / divisor`` for people: three decimals, and more where three digits would not be seen.

    >>> rough(5_400_000_000, 3_600_000_000), rough(138_040, 3_600_000_000), rough(0, 5), rough(1440, 1)
    ('1.5', '0.0000383', '0', '1440')
    """
    places = 3
    while quantity and abs(quantity) * 10**places < 100 * divisor and places < 12:
        places += 1
    return quotient(quantity, divisor, places)
