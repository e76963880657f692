"""What is counted, and in which units it has a price.

Owns the table of meters: for each the field of a record that it adds up, how many of those are one unit of
its price, and what FOCUS calls both.  Pure; a meter is known by its name everywhere: as the key of a rate
card, in a statement, as the SKU of FOCUS.

>>> METERS["cpu_hour"].field, METERS["cpu_hour"].divisor
('cpu_us', 3600000000)

Counts stay as the board wrote them, and nothing is converted before it is priced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

HOUR_MS = 3_600_000
GIB, GB = 2**30, 10**9


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that has a price.

    ``field``: of the record, whose integers are added up; ``divisor``: how many of them are one unit.
    ``consumed`` and ``priced``: both units as FOCUS writes them; ``unit``: the latter for people; ``said``:
    what it is, in words.
    """

    name: str
    field: str
    divisor: int
    consumed: str
    priced: str
    unit: str
    said: str


# SPEC FOCUS UnitFormat: base units of a compound unit are separated by a hyphen, and only the last is plural.
_ALL = (
    Meter("cpu_hour", "cpu_us", HOUR_MS * 1000, "Core-Microseconds", "Core-Hours", "h", "processor time"),
    Meter("memory_gib_hour", "mem_byte_ms", GIB * HOUR_MS, "B-Milliseconds", "GiB-Hours", "GiB h", "memory"),
    Meter("network_in_gb", "net_rx", GB, "B", "GB", "GB", "received over networks"),
    Meter("network_out_gb", "net_tx", GB, "B", "GB", "GB", "sent over networks"),
    Meter("io_read_gb", "io_r", GB, "B", "GB", "GB", "read from disks"),
    Meter("io_write_gb", "io_w", GB, "B", "GB", "GB", "written to disks"),
    Meter("reading", "readings", 1, "Readings", "Readings", "", "readings delivered"),
)
METERS: Mapping[str, Meter] = MappingProxyType({meter.name: meter for meter in _ALL})
"""By name, in the order in which statements list them."""


def amount_of(quantity: int, price: int, meter: Meter) -> int:
    """What a quantity costs, in micro-units: exact, and then rounded once, halves up.

    ``price`` is in micro-units for one unit of the meter.  There is no other rounding anywhere.

    >>> amount_of(90_000_000, 20_000, METERS["cpu_hour"])  # 90 s at 0.02 an hour
    500
    >>> amount_of(90_000, 20_000, METERS["cpu_hour"]), amount_of(89_999, 20_000, METERS["cpu_hour"])
    (1, 0)
    """
    return (2 * quantity * price + meter.divisor) // (2 * meter.divisor)
