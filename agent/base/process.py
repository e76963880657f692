"""The life of a process: run, signals, exit codes, and what systemd is told.

Called by each ``__main__``: ``sys.exit(run(main))``.  It knows nothing of what runs inside.

SIGTERM or SIGINT cancels the main task, which closes what it holds in reverse order; a second
signal ends the process at once.  An understood error is told in one line with its hint and
becomes its exit code (`agent.wire.errors.EXIT_CODES`); anything else is a crash: a traceback
and 1, and systemd starts the process again.

systemd learns through its socket (sd_notify(3)) that the process is ready, what it is doing,
and, when a watchdog is set, that it lives: only after ``watch`` came back, so that a process
whose loop turns while its database hangs is restarted too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agent.wire.errors import ConfigError, LichenError, exit_code

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LINGER_S = 0.5
"""How long tasks and threads that nobody waits for may outlive the main task."""

Work = Callable[[], Awaitable[None]]


def run(main: Work, *, watch: Work | None = None) -> int:
    """Run ``main()`` until it returns or is told to stop; returns the exit status.

    ``watch`` is awaited before each sign of life to systemd's watchdog; it should do what only
    a healthy process can, such as a database transaction.
    """
    loop = asyncio.new_event_loop()
    code = 0
    try:
        loop.run_until_complete(_live(main, watch))
    except (Exception, BaseExceptionGroup, asyncio.CancelledError) as error:  # noqa: BLE001 - told, and 1
        code = _tell(error)
    finally:
        loop.run_until_complete(_end_strays())
        loop.run_until_complete(loop.shutdown_asyncgens())
        # Not shutdown_default_executor: it waits for a hanging thread for ever.
        loop.close()
    _leave_threads(code)
    return code


def ready(status: str) -> None:
    """Tell systemd that the process has started, and in one line what it does."""
    _notify("READY=1", f"STATUS={' '.join(status.split())}")


def status(text: str) -> None:
    """Tell systemd in one line what the process does (``systemctl status`` shows it)."""
    _notify(f"STATUS={' '.join(text.split())}")


async def _live(main: Work, watch: Work | None) -> None:
    asked = _cancel_on_signal()
    try:
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(_keep_alive(watch), name="watchdog")
            await main()
            watchdog.cancel()
    except asyncio.CancelledError:
        if not asked.is_set():
            raise


def _cancel_on_signal() -> asyncio.Event:
    """Let the first signal cancel the current task and set the event, and the second end the process."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    asked = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        _notify("STOPPING=1")
        log.info("stopping", extra={"signal": number.name})
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return asked


async def _keep_alive(watch: Work | None) -> None:
    """Feed systemd's watchdog, if it set one, at twice the rate that it asks for."""
    period_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    # A child of a watched process inherits the variables, but they are not meant for it.
    if not period_us or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if watch is not None:
            await watch()
        _notify("WATCHDOG=1")
        await asyncio.sleep(period_us / 2e6)


def _notify(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # A service manager that does not listen is no reason to stop working.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier, contextlib.suppress(OSError):
        notifier.settimeout(1)
        notifier.sendto("\n".join(lines).encode(), address)


def _tell(error: BaseException) -> int:
    """Write to stderr what ended the process; returns its exit status."""
    leaves = list(_leaves(error))
    understood = [leaf for leaf in leaves if isinstance(leaf, LichenError)]
    if len(understood) < len(leaves):
        traceback.print_exception(error)
        return 1
    program = Path(sys.argv[0]).name
    lines = [f"{program}: {leaf}" + (f"\n  hint: {leaf.hint}" if leaf.hint else "") for leaf in understood]
    print("\n".join(dict.fromkeys(lines)), file=sys.stderr, flush=True)
    # Of several, the one that a restart does not help decides.
    return exit_code(min(understood, key=lambda leaf: not isinstance(leaf, ConfigError)))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _end_strays() -> None:
    """Cancel what libraries left running, and give it a moment to close its things."""
    strays = asyncio.all_tasks() - {asyncio.current_task()}
    for stray in strays:
        stray.cancel()
    if strays:
        await asyncio.wait(strays, timeout=LINGER_S)


def _leave_threads(code: int) -> None:
    """End the process now if a thread hangs, in a driver say: Python would wait for it for ever."""
    until = time.monotonic() + LINGER_S
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
    hanging = [thread.name for thread in others if thread.is_alive() and not thread.daemon]
    if hanging:
        log.warning("ending without waiting for threads", extra={"threads": ", ".join(hanging)})
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
