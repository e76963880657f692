"""The usage log on its way to the hub, and back from it.

One `Sync` for as long as the agent runs; the link runs `keep` in each session and hands it the hub's receipts
(`heard`).  It writes nothing of its own: what the hub holds is asked anew in each session, and what the hub
has said for good is in the ledger.

    question -> what the hub holds -> agree -> packages from there on, one after the other -> wait for more

1.  Before the hub has answered in this session, nothing is signed: the card may be an old copy.
2.  *Agree* (`agent.usage.agreement`): if the hub has entries that are not here, where ours were never signed,
    the card was set back.  Those are fetched back and verified, and what was written since follows them.
3.  If ours were signed, there are two of us with one key, or somebody lies.  The hub is shown what we signed,
    and a new epoch begins; what the hub does not have goes on in it.
4.  A package has the checkpoint of exactly its last entry, so each one is cosigned, and a cut costs one.  The
    tail goes over the broker, more than `BULK` entries over HTTPS (`agent.usage.bulk`).

Nothing is ever removed because of what is said here: the one word that lets entries be pruned is the hub's
cosignature, which the ledger verifies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from agent.base.broker import Message, backoff_s
from agent.clock import Clock
from agent.identity import Identity
from agent.usage.agreement import Agreement
from agent.usage.bulk import Bulk
from agent.usage.ledger import Ledger
from agent.usage.parcels import Parcels
from agent.wire import topics
from agent.wire.cosignature import CosignatureVerifier
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED, pack
from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, LinkDown, Refused
from agent.wire.note import Verifier
from agent.wire.package import Package, Receipt, encode_package

log = logging.getLogger(__name__)

Publish = Callable[[Message], Awaitable[bool]]
"""Send a message; False when the broker refused it.  Raises LinkDown."""
Ask = Callable[[Package], Awaitable[Receipt]]

BULK = 1024
"""More entries than this go over HTTPS."""
SERIES = 4
"""Packages in one request: more would save the hub little, and take this board's memory."""
REASONS = frozenset({"disk-full", "forbidden", "invalid", "revoked", "too-many", "usage-limit"})
"""Why a hub takes nothing, whichever way it comes; after any other failure the broker is tried."""
LOW_S, HIGH_S = 5.0, 900.0
"""The pause after a failure, and the longest one."""
IN_VAIN = 3
"""How often the same package may fail to be taken before there is a pause."""


class Sync:
    """The log of one board.  Runs on one session at a time.

    ``resend_s``: how long an answer is waited for, doubled up to ``high_s``; ``pace_s``: the least time
    between two reports of what is new, where each byte is paid.  ``held`` is what the hub holds by its word
    in this session, None before they agree; ``trouble`` is why it does not get on.
    """

    def __init__(
        self,
        ledger: Ledger,
        identity: Identity,
        clock: Clock,
        *,
        resend_s: float = 30.0,
        high_s: float = 300.0,
        pace_s: float = 0.0,
        open_bulk: Callable[[Identity, Clock], Bulk] = Bulk,
    ) -> None:
        self.held: int | None = None
        self.trouble: LichenError | None = None
        self._ledger = ledger
        self._identity = identity
        self._clock = clock
        self._resend_s = resend_s
        self._high_s = high_s
        self._pace_s = pace_s
        self._open_bulk = open_bulk
        self._parcels = Parcels(ledger, clock)
        self._asked = ""  # the nonce of the package that is to be answered
        self._answer: asyncio.Future[Receipt] | None = None
        self._takes_bulk = True

    # --- the link's ----------------------------------------------------------------------------------

    def heard(self, payload: bytes) -> None:
        """A receipt came.  One that nobody waits for is of an earlier session.  Raises Refused."""
        receipt = decode_json(Receipt, payload, max_bytes=MAX_INFLATED)
        if self._answer is not None and not self._answer.done() and receipt.nonce == self._asked:
            self._answer.set_result(receipt)

    async def keep(self, publish: Publish) -> NoReturn:
        """Bring to the hub what it does not have, until the session ends.  Raises LinkDown."""

        async def ask(package: Package) -> Receipt:
            return await self._ask(publish, package)

        attempts, self._takes_bulk, self.held = 0, True, None
        while True:
            began_s = _now_s()
            try:
                async with self._open_bulk(self._identity, self._clock) as bulk:
                    await self._converse(ask, bulk)
            except (Refused, Corrupt, Busy, ConfigError) as error:
                self._fail(error)
            attempts = attempts + 1 if _now_s() - began_s < HIGH_S else 0
            await asyncio.sleep(backoff_s(attempts, low_s=min(LOW_S, self._resend_s), high_s=HIGH_S))

    # --- a conversation ------------------------------------------------------------------------------

    async def _converse(self, ask: Ask, bulk: Bulk) -> NoReturn:
        """Agree and send, again and again.  Raises Refused and Corrupt when that does not get on."""
        agreement = Agreement(self._ledger, self._identity, await self._hub_key())
        answer: Receipt | None = None
        best = in_vain = 0
        while True:
            size = await self._agree(agreement, ask, bulk, answer)
            answer = None
            while answer is None:
                size, answer = await self._send(agreement, ask, bulk, size)
                if answer is None:
                    self._get_on()
                    await self._more(size)
            in_vain = in_vain + 1 if size <= best else 0
            best = size
            if in_vain >= IN_VAIN:
                raise Refused(
                    f"the hub does not take entry {size} of {self._ledger.origin}: {answer.reason}",
                    code="not-taken",
                )

    async def _agree(self, agreement: Agreement, ask: Ask, bulk: Bulk, receipt: Receipt | None) -> int:
        """Until what the hub holds is the begin of what is here; how much that is.

        ``receipt`` is what it said last, if that was a conflict.
        """
        while True:
            if receipt is None or receipt.state != "conflict":
                receipt = await ask(self._parcels.question(await self._ledger.receipt()))
            match await agreement.judge(receipt):
                case "same":
                    await self._ledger.hub_size_known(receipt.size)
                    await agreement.keep(receipt)
                    if count := await self._ledger.settle():
                        log.info("usage records that lay aside follow", extra={"records": count})
                    self.held = receipt.size
                    return receipt.size
                case "other":
                    fork = await agreement.fetch_back(bulk, receipt)
                    if fork is not None or receipt.state == "conflict":
                        await self._part(ask, receipt, receipt.size if fork is None else fork)
                case "beyond":
                    reason = "the hub has seen a checkpoint of entries that this board does not have any more"
                    await self._begin_anew(reason, receipt.pending, receipt.size)
            receipt = None

    async def _part(self, ask: Ask, receipt: Receipt, fork: int) -> None:
        """Show what we signed, and begin a new epoch with what is ours alone, from index ``fork`` on."""
        ledger, previous = self._ledger, receipt.note
        if ledger.signed:
            note = await ledger.checkpoint(ledger.signed)
            previous = previous or note
            proof: list[bytes] = []
            if receipt.size < ledger.signed:
                proof = await ledger.consistency_proof(receipt.size, ledger.signed)
            await ask(self._parcels.question(note, proof))
        reason = f"the hub holds another history from entry {fork} on: this log was written by two"
        await self._begin_anew(reason, previous, fork)

    async def _begin_anew(self, reason: str, previous: str, carry: int) -> None:
        self.held = None
        log.error("usage log begins anew", extra={"origin": self._ledger.origin, "reason": reason})
        await self._ledger.new_epoch(reason, previous, carry)

    async def _send(
        self, agreement: Agreement, ask: Ask, bulk: Bulk, size: int
    ) -> tuple[int, Receipt | None]:
        """Send from ``size`` on.  Up to where the hub has it then, and what it said if it took no more."""
        while size < self._ledger.size:
            if self._takes_bulk and self._ledger.size - size > BULK:
                receipt, end = await self._send_much(agreement, bulk, size)
            else:
                package = await self._parcels.next(size)
                receipt, end = await ask(package), package.end
            if receipt is None:
                continue
            if receipt.state != "ok" or receipt.size < end:
                log.info("usage package not taken", extra={"state": receipt.state, "reason": receipt.reason})
                return max(size, self.held or 0), receipt
            await agreement.keep(receipt)
            self.held = size = receipt.size
        return size, None

    async def _send_much(self, agreement: Agreement, bulk: Bulk, size: int) -> tuple[Receipt | None, int]:
        """Send over HTTPS, until no more than `BULK` is left; the last answer, and how far it should reach.

        None when the hub cannot be reached so.
        """
        series = await self._series(size)
        while True:
            end, answer = series[-1].end, bulk.send(series)
            try:  # what comes next is made ready meanwhile
                series = await self._series(end) if self._ledger.size - end > BULK else []
                receipt = await answer
            except (LinkDown, Refused) as error:
                if error.code in REASONS:
                    raise Refused(str(error), code=error.code, hint=error.hint) from error
                self._takes_bulk = False
                log.warning("usage log goes over the broker", extra={"error": str(error)})
                return None, size
            finally:
                answer.cancel()
            if not series or receipt.state != "ok" or receipt.size < end:
                return receipt, end
            await agreement.keep(receipt)
            self.held = receipt.size

    async def _series(self, start: int) -> list[Package]:
        """The packages of one request."""
        packages: list[Package] = []
        while len(packages) < SERIES and start < self._ledger.size:
            packages.append(await self._parcels.next(start))
            start = packages[-1].end
        return packages

    async def _more(self, size: int) -> None:
        """Wait until there is more than ``size``, and until it may be told."""
        not_before_s = _now_s() + self._pace_s
        while self._ledger.size <= size:
            self._ledger.committed.clear()
            await self._ledger.committed.wait()
        await asyncio.sleep(max(not_before_s - _now_s(), 0))

    async def _ask(self, publish: Publish, package: Package) -> Receipt:
        """Send a package over the broker until the hub answers it.  Raises LinkDown."""
        payload, content_type = pack(encode_package(package))
        topic = topics.up(self._identity.board, "usage")
        message = Message(topic, payload, content_type=content_type)
        self._asked, pause_s = package.nonce, self._resend_s
        self._answer = asyncio.get_running_loop().create_future()
        while True:
            await publish(message)  # what the broker refuses now it may take when it is sent again
            done, _ = await asyncio.wait([self._answer], timeout=pause_s)
            if done:
                return self._answer.result()
            pause_s = min(2 * pause_s, self._high_s)

    async def _hub_key(self) -> CosignatureVerifier:
        document = await asyncio.to_thread(self._identity.document)
        return CosignatureVerifier.of(Verifier.parse(document.keys.receipt))

    # --- how it is -----------------------------------------------------------------------------------

    def _get_on(self) -> None:
        """The hub has everything."""
        if self.trouble is not None:
            log.info("usage log gets on again", extra={"size": self._ledger.size})
        self.trouble = None

    def _fail(self, error: LichenError) -> None:
        if self.trouble is None or str(self.trouble) != str(error):
            log.warning("usage log does not get on", extra={"error": str(error)})
        self.trouble = error


def _now_s() -> float:
    return asyncio.get_running_loop().time()
