"""The loop of virtual time keeps its promises; other tests stand on it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from support.virtual import virtual


@virtual
async def test_time_jumps_when_everybody_waits() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(86_400)
    assert loop.time() == 86_400


@virtual
async def test_a_timeout_strikes_in_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(30):
            await asyncio.Event().wait()
    except TimeoutError:
        assert loop.time() == 30


@virtual
async def test_the_clock_stands_still_while_an_executor_works() -> None:
    loop = asyncio.get_running_loop()
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        async with asyncio.timeout(1):
            # The gate opens after 50 real ms; a clock that jumped would have struck long before.
            timer = threading.Timer(0.05, gate.set)
            timer.start()
            assert await loop.run_in_executor(executor, gate.wait, 5)
    assert loop.time() == 0
