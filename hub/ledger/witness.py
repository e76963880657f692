"""The witness of the boards' usage logs: it stores what they signed, and then says so.

Owns the way from a package to a receipt.  Over MQTT ingest's gate hands packages over (`offer`) and receipts
go out retained (`speak`); over HTTPS, and from files that are imported, `take` returns the receipt.

    package -> read (claims) -> waiting -> one transaction (hearing) -> cosign -> receipt

1.  A transaction takes what waits, of all boards, and begins when the one before has ended.
2.  A checkpoint is cosigned when every entry of it is on the disk, never before: the receipt says "I hold
    every record up to N", and lets the board delete them.  A kill in between costs nothing, for whoever asks
    next is told the size, and gets the cosignature then.
3.  A cosignature is only ever added to the newest checkpoint of which all is held, and what is held only
    grows.  So two cosigned roots of this hub for one log always have a proof between them.  A hub that was
    restored from a backup is shown by the boards what it cosigned since, and cosigns nothing before it holds
    that again.
4.  Nothing is published before it is stored, and all of it can be asked for again: what waits in memory is
    only what its board still has.

It signs with the receipt key alone.  Signed orders, commands and time are others' business.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NoReturn, Protocol

from agent.base.broker import Message, Session
from agent.wire import topics
from agent.wire.cosignature import CosignatureVerifier, add_signature, cosign
from agent.wire.envelope import pack
from agent.wire.errors import Busy, Corrupt, LichenError, Refused
from agent.wire.package import Package, Receipt
from agent.wire.plain import dumps
from hub.access.keys import Keyring
from hub.ledger.claims import Claim, cosigner_of, is_cosigned, read_claim, without_cosignatures
from hub.ledger.hearing import Finding, Hearing, Outcome
from hub.store import boards, ledgers, usage
from hub.store.boards import BoardRow
from hub.store.database import Store
from hub.store.ledgers import CheckpointRow, LogRow
from hub.store.problems import Severity

MOST_WAITING = 512
"""Packages read but not stored.  What comes by MQTT beyond them is dropped; its board sends it again."""
MOST_OF_ONE = 16
"""And of one board, so that it takes nobody else's turn."""
MOST_AT_ONCE = 64
"""Packages in one transaction, so that other writers get their turn."""
RETRY_S = 0.5
MOST_DOUBTED = 1024
LOOK_S = 600.0
LATE_MS = 3 * 3_600_000
"""A board writes a record of itself each hour: online for so long without one, its log is late."""

HINTS = {
    "usage-conflict": "both signed notes are kept: a copied card looks like this, and so does fraud",
    "usage-hole": "this hub was restored from a backup that is older than what the board keeps",
    "usage-epoch": "its state was lost or removed; what it used between the two logs cannot be proven",
    "usage-limit": "[limits] usage_bytes_per_day in hub.toml says how much a board may write",
    "usage-late": "see `lichen-agent status` on it: its ledger may have stopped, or it cannot reach this hub",
}
SEVERITIES: dict[str, Severity] = {"usage-conflict": "fail", "usage-epoch": "notice"}


class Tells(Protocol):
    """Who is told what is wrong with boards, and with this hub (`hub.fleet.alerts`)."""

    def found(
        self,
        owner: str | None,
        code: str,
        sentence: str,
        hint: str,
        severity: Severity = ...,
        *,
        times: int = ...,
    ) -> None:
        """A problem is there, or goes on."""

    def over(self, owner: str | None, code: str) -> None:
        """It is over."""

    def refused(self, board: str, sentence: str) -> None:
        """A message of a board was not believed."""

    def failed(self, error: LichenError) -> None:
        """Something could not be written to the store."""


@dataclass(slots=True)
class _Asked:
    """A package that waits; ``answer`` is for who waits, None for the broker."""

    board: str
    package: Package
    answer: asyncio.Future[Receipt] | None


class Witness:
    """The witness that is one hub.  Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        keys: Keyring,
        now_ms: Callable[[], int],
        *,
        alerts: Tells,
        bytes_per_day: int,
        executor: Executor | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._now_ms = now_ms
        self._alerts = alerts
        self._bytes_per_day = bytes_per_day
        self._executor = executor
        self._waiting: list[_Asked] = []
        self._bell = asyncio.Event()
        self._receipts: dict[str, Receipt] = {}  # by board, for the broker
        self._mail = asyncio.Event()
        self._doubted: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        self._late: set[str] = set()

    @property
    def verifier(self) -> CosignatureVerifier:
        """The public key of receipts."""
        return cosigner_of(self._keys.receipt).verifier

    # --- who asks ----------------------------------------------------------------------------------

    def offer(self, board: str, package: Package) -> None:
        """A package came from the broker; its answer goes there, too."""
        if not self._crowded(board):
            self._waiting.append(_Asked(board, package, None))
            self._bell.set()

    async def take(self, board: str, *packages: Package) -> Receipt:
        """Take packages of a board in, in order; the receipt of the last is true when this returns.

        Raises Refused ("forbidden", "revoked", "usage-limit", "disk-full"), Corrupt for a false signature,
        and Busy.
        """
        if self._crowded(board):
            raise Refused("too many packages wait for this hub", code="too-many", hint="try again soon")
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Receipt]] = [loop.create_future() for _ in packages]
        self._waiting += [_Asked(board, *each) for each in zip(packages, answers, strict=True)]
        self._bell.set()
        try:
            await asyncio.wait(answers)
            errors = [answer.exception() for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()
        if error := next(filter(None, errors), None):
            raise error
        return answers[-1].result()

    async def renew(self, log: LogRow) -> None:
        """Cosign the newest checkpoint of a log again, if that was done with a key that was replaced."""
        await self._cosign({log.id: log})

    def _crowded(self, board: str) -> bool:
        mine = sum(asked.board == board for asked in self._waiting)
        return mine >= MOST_OF_ONE or len(self._waiting) >= MOST_WAITING

    # --- the tasks -----------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Store what waits and answer it, until cancelled."""
        while True:
            await self._bell.wait()
            some, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            if not self._waiting:
                self._bell.clear()
            try:
                await self._serve(some)
            except (Refused, Busy) as error:  # there is no room, or a backup holds the database
                self._alerts.failed(error)
                _fail(some, error)
                await asyncio.sleep(RETRY_S)
            finally:
                _fail(some, Busy("the hub is stopping"))

    async def speak(self, session: Session) -> NoReturn:
        """Publish receipts on a connection to the broker.  Raises LinkDown."""
        while True:
            await self._mail.wait()
            self._mail.clear()
            while self._receipts:
                board, receipt = next(iter(self._receipts.items()))
                payload, content_type = pack(dumps(receipt))
                topic = topics.down(board, "receipt")
                await session.publish(Message(topic, payload, retain=True, content_type=content_type))
                if self._receipts.get(board) is receipt:
                    del self._receipts[board]

    async def watch(self) -> NoReturn:
        """Look from time to time for boards that are there and whose logs do not grow, until cancelled."""
        while True:
            try:
                async with self._store.read() as tx:
                    late = await usage.late_boards(tx, self._now_ms() - LATE_MS)
            except (Refused, Busy) as error:
                self._alerts.failed(error)
                late = self._late
            for board in self._late - late:
                self._alerts.over(board, "usage-late")
            for board in sorted(late):
                sentence = "The board is online, and nothing new of its usage log has come for three hours"
                self._alerts.found(board, "usage-late", sentence, HINTS["usage-late"], times=0)
            self._late = set(late)
            await asyncio.sleep(LOOK_S)

    # --- one round -------------------------------------------------------------------------------------

    async def _serve(self, some: Sequence[_Asked]) -> None:
        """Read, store, cosign and answer.  Raises Refused ("disk-full"), Busy when nothing can be stored."""
        async with self._store.read() as tx:
            known = {board: await boards.find_board(tx, board) for board in {each.board for each in some}}
        claims = await self._read(some, known)
        hearing, outcomes = await self._hear(claims)
        notes = await self._cosign({each.log.id: each.log for _, each in outcomes if each.log is not None})
        for finding in hearing:
            self._tell(finding)
        for asked, outcome in outcomes:
            receipt = _receipt(outcome, notes)
            if asked.answer is None:
                self._receipts[asked.board] = receipt
                self._mail.set()
            elif not asked.answer.done():
                asked.answer.set_result(receipt)

    async def _read(
        self, some: Sequence[_Asked], known: dict[str, BoardRow | None]
    ) -> list[tuple[_Asked, Claim]]:
        """The claims of those that can be believed so far; the others are answered."""
        loop = asyncio.get_running_loop()
        claims = []
        for asked in some:
            try:
                row = _member(known[asked.board], asked.board)
                claim = await loop.run_in_executor(
                    self._executor, read_claim, asked.package, asked.board, row.log_key
                )
            except (Refused, Corrupt) as error:
                self._refuse(asked, error)
            else:
                claims.append((asked, claim))
        return claims

    async def _hear(
        self, claims: Sequence[tuple[_Asked, Claim]]
    ) -> tuple[list[Finding], list[tuple[_Asked, Outcome]]]:
        """The transaction.  What it found is told when it has ended well."""
        outcomes = []
        if not claims:
            return [], []
        verifier = cosigner_of(self._keys.receipt).verifier
        async with self._store.write() as tx:
            hearing = Hearing(
                tx,
                self._now_ms(),
                self._bytes_per_day,
                vouched=lambda note: is_cosigned(note, verifier),
                doubted=self._doubt,
            )
            refused: list[tuple[_Asked, Refused | Corrupt]] = []
            for asked, claim in claims:
                try:
                    outcomes.append((asked, await hearing.hear(asked.board, claim)))
                except (Refused, Corrupt) as error:  # Corrupt: what is stored of this one log is damaged
                    refused.append((asked, error))
            await hearing.finish()
        for asked, why in refused:
            self._refuse(asked, why)
        return hearing.findings, outcomes

    async def _cosign(self, logs: dict[int, LogRow]) -> dict[int, CheckpointRow]:
        """The newest cosigned checkpoint of each log: one that is newer is cosigned now, and stored so."""
        async with self._store.read() as tx:
            found = {id: await ledgers.newest_checkpoint(tx, id) for id in logs}
            cosigned = await usage.newest_checkpoints(tx, logs)
        cosigner, at_s = cosigner_of(self._keys.receipt), self._now_ms() // 1000
        fresh = {}
        for id, row in found.items():
            # SPEC tlog-cosignature: the consistent tree head with the largest size the cosigner has observed.
            if row is None or logs[id].pending_size > logs[id].size:
                continue
            # A cosignature of a key that was replaced since is made again.
            if row.cosigned_ms is None or not is_cosigned(row.note, cosigner.verifier):
                bare = without_cosignatures(row.note, logs[id].origin)
                signed = add_signature(bare, cosign(bare, cosigner, at_s))
                fresh[id] = CheckpointRow(id, row.size, signed, at_s * 1000)
        # SPEC tlog-witness: The witness MUST persist the new checkpoint before responding.
        if fresh:
            async with self._store.write() as tx:
                for row in fresh.values():
                    await ledgers.save_cosignature(tx, row)
        return cosigned | fresh

    def _doubt(self, row: LogRow, note: str) -> bool:
        """Whether this note did not fit before; remembers that it did not."""
        key = row.id, hashlib.sha256(note.encode()).digest()
        known = key in self._doubted
        self._doubted[key] = None
        while len(self._doubted) > MOST_DOUBTED:
            self._doubted.popitem(last=False)
        return known

    # --- what is told ------------------------------------------------------------------------------------

    def _refuse(self, asked: _Asked, error: Refused | Corrupt) -> None:
        if error.code == "usage-limit":
            self._tell(Finding(asked.board, "usage-limit", f"The board writes too much: {error}"))
        else:
            self._alerts.refused(asked.board, str(error))
        if asked.answer is not None and not asked.answer.done():
            asked.answer.set_exception(error)

    def _tell(self, finding: Finding) -> None:
        code = finding.code
        hint, severity = HINTS[code], SEVERITIES.get(code, "warn")
        self._alerts.found(finding.board, code, finding.sentence, hint, severity)


def _member(row: BoardRow | None, board: str) -> BoardRow:
    if row is None:
        raise Refused(f"board {board} has not joined this hub", code="unknown-board")
    if row.revoked_ms is not None:
        raise Refused(f"board {board} is revoked", code="revoked")
    return row


def _receipt(outcome: Outcome, notes: dict[int, CheckpointRow]) -> Receipt:
    package, row = outcome.claim.package, outcome.log
    if row is None:
        return Receipt(package.origin, package.nonce, 0, state="unknown")
    newest = notes.get(row.id)
    return Receipt(
        package.origin,
        package.nonce,
        row.size,
        newest.note if newest else "",
        outcome.state,
        outcome.reason,
        row.pending if row.pending_size > row.size else "",
    )


def _fail(some: Collection[_Asked], error: LichenError) -> None:
    """Tell those who still wait."""
    for asked in some:
        if asked.answer is not None and not asked.answer.done():
            asked.answer.set_exception(error)
