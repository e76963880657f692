"""The hub's own connection to its broker, for as long as the hub runs.

Owns when to connect again and the tasks that live on a connection; `hub.app` runs it as one
task.  The broker is our own child and comes back within a second, so attempts begin at once
and stay close together.  What was lost with a connection is sent again by the boards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from agent.base.broker import Address, Connect, Session, backoff_s
from agent.wire.errors import LinkDown
from hub.fleet.alerts import Alerts
from hub.fleet.announcement import Announcement
from hub.fleet.commands import Commands
from hub.fleet.ingest import Ingest
from hub.fleet.mosquitto import HUB_USER, Mosquitto
from hub.fleet.revocation import Revocation
from hub.fleet.throttle import Throttle

log = logging.getLogger(__name__)

CLIENT = "hub-ingest"
BACKOFF_LOW_S = 0.2
BACKOFF_HIGH_S = 5.0


async def keep(
    connect: Connect,
    broker: Mosquitto,
    ingest: Ingest,
    commands: Commands,
    announcement: Announcement,
    revocation: Revocation,
    throttle: Throttle,
    alerts: Alerts,
    *,
    orders: Callable[[Session], Coroutine[Any, Any, NoReturn]],
    receipts: Callable[[Session], Coroutine[Any, Any, NoReturn]],
) -> NoReturn:
    """Stay connected, ingest what boards say, and tell them what the hub has to say.

    ``orders`` and ``receipts`` publish those on a session until its link ends (`hub.apps.orders`,
    `hub.ledger.witness`).
    """
    address = Address(client_id=CLIENT, unix=broker.settings.socket, username=HUB_USER)
    attempt = 0
    while True:
        alerts.broker_lost()
        await broker.wait_ready()
        try:
            async with connect(address) as session, asyncio.TaskGroup() as group:
                log.info("broker connected", extra={"broker": address})
                attempt = 0
                alerts.broker_found()
                group.create_task(ingest.run(session), name="ingest")
                group.create_task(commands.run(session), name="commands")
                group.create_task(announcement.run(session), name="announce")
                group.create_task(orders(session), name="orders")
                group.create_task(receipts(session), name="receipts")
                group.create_task(revocation.run(session, connect, address), name="revocation")
                group.create_task(throttle.run(connect, address), name="throttle")
        except* LinkDown as errors:
            # The first failure is a transition; those that follow say nothing new.
            if attempt == 0:
                log.warning("broker lost", extra={"reason": str(errors.exceptions[0])})
        await asyncio.sleep(backoff_s(attempt, low_s=BACKOFF_LOW_S, high_s=BACKOFF_HIGH_S))
        attempt += 1
