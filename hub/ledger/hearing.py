"""What becomes of a package in the transaction that stores it: it is taken in, passed over, or held against
whoever sent it.

`hub.ledger.witness` makes a `Hearing` for each transaction and, when that has ended well, cosigns and
answers.  It decides from what the database says and never from memory, so a kill at any moment loses nothing:
what was stored is named by the next receipt, what was not is sent again.

A log only grows.  A package is taken when it goes on where the log ends, and when the tree with its entries
is the one that the board signed, or begins it.  A checkpoint of a size that the log has, with another root,
is a second history: then nothing of the package is stored, and both signed notes are kept as evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.wire.errors import Corrupt, Refused
from agent.wire.tlog import Checkpoint, check_consistency
from agent.wire.usage import EpochRecord, HoleRecord, Known
from hub.ledger.claims import Claim
from hub.ledger.lines import Line
from hub.ledger.pages import Page
from hub.ledger.trees import Growth, Tree
from hub.store import events, ledgers, usage
from hub.store.database import Tx
from hub.store.ledgers import ConflictRow, LogRow

State = Literal["ok", "behind", "conflict", "unknown"]

DAY_MS = 86_400_000
SAVED_DAYS = 60
"""Days of its allowance that a board may use at once: those of a long time without a network."""
EPOCH_BYTES = 65_536
"""What beginning a log costs of it; and what a hash in place of an entry costs."""
LEAF_BYTES = 64
MOST_CONFLICTS = 16
"""Notes kept as evidence in one log: two are proof, and more are a board that goes on and on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that people have to hear of; ``code`` is that of the problem, or empty for an event alone."""

    board: str
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a log stands after a package; ``log`` is None while nothing is held of it."""

    claim: Claim
    log: LogRow | None
    state: State
    reason: str = ""


@dataclass(slots=True)
class Hearing:
    """One transaction; `finish` it.

    ``vouched`` tells whether a note has this hub's own cosignature; ``doubted`` whether this package did not
    fit before, so that it was not damaged on its way.
    """

    tx: Tx
    at_ms: int
    bytes_per_day: int
    vouched: Callable[[str], bool]
    doubted: Callable[[LogRow, str], bool]
    findings: list[Finding] = field(default_factory=list)
    _pages: dict[tuple[str, str], Page] = field(default_factory=dict)
    _paid_ms: dict[str, int] = field(default_factory=dict)

    async def hear(self, board: str, claim: Claim) -> Outcome:
        """Take a package in, as far as it is new.  Raises Refused for what is beyond the allowance."""
        page = await self._page(board, claim)
        if page is None:
            return Outcome(claim, None, "unknown")
        log = page.log
        page.log = replace(log, heard_ms=self.at_ms, claimed=max(claim.package.end, log.size))
        return await self._judge(claim, page)

    async def finish(self) -> None:
        """Write what all of them came to."""
        for page in self._pages.values():
            await page.write()
        for board, until_ms in self._paid_ms.items():
            await ledgers.pay(self.tx, board, until_ms)

    async def _page(self, board: str, claim: Claim) -> Page | None:
        """The page of the log in question; None when that is not known, and does not begin here."""
        key = board, claim.epoch
        page = self._pages.get(key)
        if page is None:
            log = await ledgers.find_log(self.tx, board, claim.epoch)
            if log is None:
                if claim.is_question or claim.package.start > 0:
                    return None
                await self._pay(board, EPOCH_BYTES)
                log = await ledgers.add_log(self.tx, board, claim.epoch, self.at_ms)
            page = self._pages[key] = await Page.open(self.tx, log)
        return page

    async def _judge(self, claim: Claim, page: Page) -> Outcome:
        package, shown, log = claim.package, claim.checkpoint, page.log
        if shown is not None:
            # SPEC tlog-witness: the witness MUST check that the root hashes are also identical.
            if shown.size <= log.size and await self._root(page, shown.size) != shown.root:
                return await self._conflict(claim, page, shown.size)
            if shown.size == log.pending_size and shown.root != Checkpoint.parse(_text(log.pending)).root:
                return await self._conflict(claim, page, shown.size, kept=log.pending)
        if claim.is_question:
            return await self._question(claim, page)
        if package.start > log.size:
            return Outcome(claim, log, "behind", f"the log goes on at entry {log.size}")
        if package.end <= log.size:
            return Outcome(claim, log, "ok")  # a resend of what is held
        return await self._extend(claim, page)

    async def _root(self, page: Page, size: int) -> bytes:
        if size == page.log.size:
            return page.growth.frontier.root()
        await page.write()
        return await Tree(self.tx, page.log.id).root(size)

    # --- a package that goes on ---------------------------------------------------------------------

    async def _extend(self, claim: Claim, page: Page) -> Outcome:
        package, shown, log = claim.package, claim.checkpoint, page.log
        assert shown is not None, "read_claim asks for one"
        growth, at_pending = _grown(claim, page)
        try:
            root = growth.frontier.root()
            check_consistency(package.end, shown.size, package.proof, root, shown.root)
        except Corrupt as error:
            if not self.doubted(log, package.checkpoint):
                return Outcome(claim, log, "behind", f"send it again: {error}")
            return await self._conflict(claim, page, package.end)
        if at_pending is not None and at_pending != Checkpoint.parse(_text(log.pending)).root:
            return await self._conflict(claim, page, log.pending_size, kept=log.pending)
        await self._take_in(claim, page, growth)
        return Outcome(claim, page.log, "ok")

    async def _take_in(self, claim: Claim, page: Page, growth: Growth) -> None:
        package, shown, log = claim.package, claim.checkpoint, page.log
        assert shown is not None, "read_claim asks for one"
        skip = log.size - package.start
        lost = len(package.lost[skip:])
        skip = max(skip - len(package.lost), 0)
        entries, lines = package.entries[skip:], claim.lines[skip:]
        size = sum(map(len, entries))
        await self._pay(log.board, size + lost * LEAF_BYTES)
        pending_size, pending = log.pending_size, log.pending
        if pending_size <= package.end:
            # The smallest is kept, as it is the next one that can be held against what comes.
            is_ahead = shown.size > package.end
            pending_size, pending = (shown.size, package.checkpoint) if is_ahead else (0, "")
        after = replace(
            log,
            stored_ms=self.at_ms,
            size=package.end,
            entry_bytes=log.entry_bytes + size,
            frontier=b"".join(growth.frontier.hashes),
            pending_size=pending_size,
            pending=pending,
        )
        await page.add(after, growth, lost, entries, lines)
        if shown.size == package.end:
            page.sign(package.checkpoint)
        if lost:
            text = f"{lost} records of its usage log, from {log.size} on, are held by nobody any more"
            self._find(log.board, "usage-hole", text)
        await self._note_records(log, [line.record for line in lines if isinstance(line, Line)])

    async def _note_records(self, log: LogRow, records: Sequence[Known | None]) -> None:
        """Note what people should hear of."""
        if records and isinstance(records[0], EpochRecord) and records[0].seq == 0:
            await self._begun(log, records[0])
        # One event for a package: a board may declare as many holes as it likes.
        if hole := next((record for record in records if isinstance(record, HoleRecord)), None):
            text = f"declares that records {hole.first} to {hole.first + hole.count - 1} are lost"
            await self._note(log.board, "usage-hole", f"{text}: {hole.reason}")

    # --- a question -----------------------------------------------------------------------------------

    async def _question(self, claim: Claim, page: Page) -> Outcome:
        """What is held; and what the board shows that is beyond it is remembered, if it can be believed."""
        shown, text, log = claim.checkpoint, claim.package.checkpoint, page.log
        if shown is None or shown.size <= log.size:
            return Outcome(claim, log, "ok")
        if self.vouched(text):
            if log.pending_size <= log.size:
                page.log = replace(log, pending_size=shown.size, pending=text)
                what = f"this hub had witnessed {shown.size} records of its usage log and holds {log.size}"
                await self._note(log.board, "usage-behind", f"{what}: they are asked for again")
        elif claim.package.proof:
            try:
                root = page.growth.frontier.root()
                check_consistency(log.size, shown.size, claim.package.proof, root, shown.root)
            except Corrupt:
                return await self._conflict(claim, page, log.size)
        return Outcome(claim, page.log, "ok")

    # --- two histories ----------------------------------------------------------------------------------

    async def _conflict(self, claim: Claim, page: Page, size: int, *, kept: str = "") -> Outcome:
        """Keep both notes.  What is held stays as it is, and goes on with whoever goes on with it."""
        await page.write()
        log = page.log = replace(page.log, conflict_ms=self.at_ms)
        newest = await ledgers.newest_checkpoint(self.tx, log.id)
        kept = kept or (newest.note if newest else "")
        shown = claim.checkpoint.size if claim.checkpoint else 0
        reason = f"the checkpoint of {shown} entries and what this hub holds differ before entry {size}"
        evidence = ConflictRow(0, log.id, self.at_ms, size, kept, claim.package.checkpoint, reason)
        if await ledgers.add_conflict(self.tx, evidence, most=MOST_CONFLICTS):
            await self._note(log.board, "usage-conflict", f"signed two histories of its usage log: {reason}")
        self._find(
            log.board,
            "usage-conflict",
            f"The board has signed two histories of its usage log {log.epoch}: {reason}",
        )
        return Outcome(claim, log, "conflict", reason)

    # --- the rest -----------------------------------------------------------------------------------------

    async def _begun(self, log: LogRow, record: EpochRecord) -> None:
        """A log has begun: is it said what it goes on from?"""
        before = [each for each in await usage.list_logs(self.tx, of=[log.board]) if each.id < log.id]
        await self._note(log.board, "usage-epoch", f"began the usage log {log.epoch}: {record.reason}")
        if before and not any(_names(record.previous, each) for each in before):
            self._find(
                log.board,
                "usage-epoch",
                f"The board began the usage log {log.epoch} and does not say what it goes on from",
            )

    async def _pay(self, board: str, amount: int) -> None:
        """Take so many bytes from the allowance.  Raises Refused (code "usage-limit")."""
        paid_ms = self._paid_ms.get(board)
        if paid_ms is None:
            paid_ms = await ledgers.paid_until_ms(self.tx, board)
        paid_ms = max(paid_ms, self.at_ms - SAVED_DAYS * DAY_MS) + -(-amount * DAY_MS // self.bytes_per_day)
        if paid_ms > self.at_ms:
            raise Refused(
                f"its usage log grows by more than {self.bytes_per_day} bytes a day", code="usage-limit"
            )
        self._paid_ms[board] = paid_ms

    def _find(self, board: str, code: str, sentence: str) -> None:
        self.findings.append(Finding(board, code, sentence))

    async def _note(self, board: str, kind: str, text: str) -> None:
        await events.add_event(
            self.tx, at_ms=self.at_ms, kind=kind, text=text[:1000], board=board, actor="board"
        )


def _grown(claim: Claim, page: Page) -> tuple[Growth, bytes | None]:
    """The tree with the new entries, and the root that it had at the pending size, if it came by."""
    growth, log, at_pending = page.growth.copy(), page.log, None
    leaves = claim.package.leaves()[log.size - claim.package.start :]
    if log.size < log.pending_size <= claim.package.end:
        count = log.pending_size - log.size
        growth.add(leaves[:count])
        at_pending = growth.frontier.root()
        leaves = leaves[count:]
    growth.add(leaves)
    return growth, at_pending


def _text(note: str) -> str:
    """The text of a note that was verified when it came."""
    return note.rpartition("\n\n")[0] + "\n"


def _names(previous: str, log: LogRow) -> bool:
    """Whether an epoch names this log as the one before it."""
    return previous.startswith(f"{log.origin}\n")
