"""What a message has to pass before ingest takes it: limits, form, and how much waits already.

Owns the order of the checks, cheapest first: a board that sends too much is stopped before its
message is looked into.  Ingest asks for each message.  What is stopped is counted, and the board
named in a problem.  Replies to commands, lines of logs, and packages of usage logs go to whoever cares for
them, and end here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent.base.broker import Message
from agent.wire.errors import Refused
from agent.wire.package import Package
from hub.fleet.alerts import Alerts
from hub.fleet.arrivals import (
    Arrival,
    LinesCame,
    PresenceCame,
    ReadingsCame,
    ReplyCame,
    UsageCame,
    read_arrival,
    sender,
)
from hub.fleet.commands import Commands
from hub.fleet.latest import Latest
from hub.fleet.limits import Allowances
from hub.fleet.tally import Tally


class TakesUsage(Protocol):
    """Who cares for usage logs (`hub.ledger.witness`)."""

    def offer(self, board: str, package: Package) -> None:
        """A package came; the answer is not waited for."""


class Gate:
    """The gate of one ingest."""

    def __init__(
        self,
        latest: Latest,
        now_ms: Callable[[], int],
        *,
        alerts: Alerts,
        commands: Commands,
        allowances: Allowances,
        tally: Tally,
        usage: TakesUsage,
    ) -> None:
        self._latest = latest
        self._now_ms = now_ms
        self._alerts = alerts
        self._commands = commands
        self._allowances = allowances
        self._tally = tally
        self._usage = usage

    def take(self, message: Message, *, crowded: bool) -> Arrival | None:
        """What ``message`` says to ingest, or None; ``crowded``: too much waits to take readings."""
        board = sender(message.topic)
        if not self._allowances.admit(board, len(message.payload)):
            self._tally.limit(board)
            self._alerts.exceeded(board)
            return None
        if crowded and message.topic.endswith("/up/readings"):
            self._tally.shed()
            self._alerts.behind()
            return None
        try:
            arrival = read_arrival(message, self._now_ms())
            if isinstance(arrival, ReadingsCame):
                known = self._latest.boards.get(board)
                self._allowances.check_sensors(board, arrival.batch.blocks, known.values if known else ())
        except Refused as error:
            self.refuse(board, error)
            return None
        if isinstance(arrival, ReplyCame):
            self._commands.replied(arrival.board, arrival.reply)
            return None
        if isinstance(arrival, UsageCame):
            self._tally.messages["usage"] += 1
            self._usage.offer(arrival.board, arrival.package)
            return None
        if isinstance(arrival, LinesCame):
            self._commands.streamed(arrival.board, arrival.id, arrival.lines)
            return None
        return self._dated(arrival) if arrival is not None and message.retain else arrival

    def refuse(self, board: str, why: Refused) -> None:
        """Count something that ``board`` should not have sent, and name the board."""
        self._tally.refuse(board, why.code, str(why))
        self._alerts.refused(board, str(why))

    def _dated(self, arrival: Arrival) -> Arrival:
        """A message that the broker had kept, with a time at which it may have been said.

        It came while the hub was away, or is not even new.  Its board was heard at least then when
        it was heard last; a presence says more, as far as the board's clock can be believed.
        """
        known = self._latest.boards.get(arrival.board)
        if known is None or known.heard_ms is None:
            return arrival
        said_ms = arrival.presence.at_ms if isinstance(arrival, PresenceCame) else 0
        return replace(arrival, at_ms=min(max(said_ms, known.heard_ms), arrival.at_ms))
