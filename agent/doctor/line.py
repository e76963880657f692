"""One line of what the doctor says, and how a check that fails, hangs or is broken becomes one.

Called by `agent.doctor`; the checks themselves are in `agent.doctor.board` and `agent.doctor.hub`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from agent.sensors.blocking import Threads
from agent.wire.errors import LichenError

T = TypeVar("T")

OTHERS = "see what the other lines say"

Level = Literal["ok", "notice", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, how it is, and what to do about it."""

    check: str
    level: Level
    sentence: str
    hint: str = ""

    @property
    def well(self) -> bool:
        """Whether nobody needs to do anything."""
        return self.level in ("ok", "notice")


Lines = list[Line]
Looking = Callable[[], Awaitable[Lines]]


async def looked(check: str, limit_s: float, look: Looking) -> Lines:
    """The lines of one check; one line that says why when it has none to give."""
    try:
        async with asyncio.timeout(limit_s):
            return await look()
    except TimeoutError:
        return [Line(check, "fail", f"no answer within {limit_s:g} s", OTHERS)]
    except LichenError as error:
        return [Line(check, "fail", str(error), error.hint or OTHERS)]
    except OSError as error:
        return [Line(check, "fail", f"{error.strerror or error}", OTHERS)]
    except Exception as error:  # noqa: BLE001  one check that is broken must not hide the others
        return [Line(check, "fail", f"this check is broken: {type(error).__name__}: {error}", "report it")]


async def apart(threads: Threads, function: Callable[[], T]) -> T:
    """Run what may hang in a thread of its own, which nothing waits for."""
    return await threads.lane()(function)
