"""Whether the hub and this board have one history of the log, and what to do when the hub has more of it.

`agent.usage.sync` hands over what the hub answers and does what the verdict asks for.  Nothing the hub says
is believed that this board did not sign itself: a receipt shows checkpoints, and entries that come back are
held against one.
"""

from __future__ import annotations

from typing import Literal

from agent.identity import Identity
from agent.usage.bulk import Bulk
from agent.usage.ledger import Ledger
from agent.wire import note
from agent.wire.cosignature import CosignatureVerifier, open_cosigned
from agent.wire.errors import Corrupt, LinkDown, Refused
from agent.wire.note import Verifier
from agent.wire.package import Package, Receipt
from agent.wire.tlog import Checkpoint, Frontier, check_consistency

Verdict = Literal["same", "other", "beyond"]
"""What the hub holds is the begin of what is here; it is not, or there is more of it; or the hub has seen a
checkpoint of ours whose entries nobody has."""


class Agreement:
    """One board with its hub, whose receipt key is ``hub_key``, about the current log."""

    def __init__(self, ledger: Ledger, identity: Identity, hub_key: CosignatureVerifier) -> None:
        self._ledger = ledger
        self._log_key = identity.log_key
        self._hub_key = hub_key

    async def judge(self, receipt: Receipt) -> Verdict:
        """What follows from a receipt.  Raises Corrupt for one with a false signature, Refused."""
        ledger = self._ledger
        if receipt.origin != ledger.origin:
            raise Refused(f"the hub answered for the log {receipt.origin}, not for {ledger.origin}")
        shown, pending = self._cosigned(receipt.note), self._signed(receipt.pending)
        if receipt.state == "conflict" or not await self._is_ours(shown):
            return "other"
        if pending is not None:
            return "same" if await self._is_ours(pending) else "beyond"
        if receipt.size > ledger.size:
            return "other"
        if receipt.size > (shown.size if shown else 0):
            raise Refused(f"the hub holds {receipt.size} entries and shows no checkpoint of them")
        return "same"

    async def keep(self, receipt: Receipt) -> None:
        """Keep the hub's word for what it holds, if there is one.  Raises Corrupt."""
        if receipt.note:
            await self._ledger.keep_receipt(receipt.note, self._hub_key)

    async def fetch_back(self, bulk: Bulk, receipt: Receipt) -> int | None:
        """Take over what the hub has and we have not, by what it answered last.

        None when all of it is here then; else the index from which on ours are others, and signed.
        Raises Refused when the hub cannot be reached, or does not give them; Corrupt when they are not ours.
        """
        ledger, shown = self._ledger, self._cosigned(receipt.note)
        known = ledger.cosigned[0] if ledger.cosigned else 0
        if shown is None or known > shown.size or not await self._goes_on(bulk, known):
            known = 0  # it was set back itself, and may differ before what it once cosigned
        before = (ledger.origin, ledger.size, ledger.state.aside)
        fork = await self._take_over(bulk, known, shown.size if shown else 0)
        is_same = before == (ledger.origin, ledger.size, ledger.state.aside)
        if fork is None and is_same and receipt.state != "conflict":
            raise Refused(f"the hub does not give back the {receipt.size} entries of {ledger.origin}")
        return fork

    async def _take_over(self, bulk: Bulk, at: int, held: int) -> int | None:
        """`fetch_back` from entry ``at`` on, before which all is the same, up to at least ``held``."""
        ledger, tree = self._ledger, await self._tree(at)
        while (package := await self._fetch(bulk, at)).end > at:
            leaves = package.leaves()
            tree.extend(leaves)
            self._check(package, tree)
            differs = await self._first_other(at, leaves)
            if differs is not None and differs < ledger.signed:
                return differs
            if differs is not None:
                lost, skip = len(package.lost), differs - at
                entries = package.entries[max(skip - lost, 0) :]
                await ledger.adopt(differs, entries, package.checkpoint, package.lost[skip:])
            at = package.end
        if at < held:
            raise Refused(f"the hub holds {held} entries of {ledger.origin} and gives back {at}")
        return None

    async def _goes_on(self, bulk: Bulk, size: int) -> bool:
        """Whether the log of the hub begins with our first ``size`` entries, as it says that it does."""
        tree, package = await self._tree(size), await self._fetch(bulk, size)
        tree.extend(package.leaves())
        try:
            self._check(package, tree)
        except Corrupt:
            return False
        return True

    async def _fetch(self, bulk: Bulk, start: int) -> Package:
        origin = self._ledger.origin
        try:
            package = await bulk.fetch(self._ledger.epoch, start)
        except LinkDown as error:
            raise Refused(
                f"the hub's copy of the usage log cannot be fetched: {error}",
                code=error.code,
                hint=error.hint,
            ) from error
        if (package.origin, package.start) != (origin, start):
            raise Refused(f"the hub gave {package.origin} from {package.start} on, not {origin} from {start}")
        return package

    def _check(self, package: Package, tree: Frontier) -> None:
        """Raise Corrupt unless ``tree``, which ends with these entries, begins a log that both signed."""
        checkpoint = self._cosigned(package.checkpoint)
        if checkpoint is None or checkpoint.size < tree.size:
            raise Corrupt(f"the hub gave entries up to {tree.size} without a checkpoint that holds them")
        check_consistency(tree.size, checkpoint.size, package.proof, tree.root(), checkpoint.root)

    async def _first_other(self, start: int, leaves: list[bytes]) -> int | None:
        """The first index at which ours is another entry than ``leaves``, or there is none."""
        ledger = self._ledger
        ours = await ledger.leaf_hashes(start, max(min(len(leaves), ledger.size - start), 0))
        pairs = enumerate(zip(leaves, ours, strict=False), start)
        other = next((index for index, (theirs, own) in pairs if theirs != own), None)
        if other is None and len(ours) < len(leaves):
            return start + len(ours)
        return other

    async def _tree(self, size: int) -> Frontier:
        """The tree of our first ``size`` entries."""
        hashes, low = [], 0
        while low < size:
            level = (size - low).bit_length() - 1
            hashes.append(await self._ledger.read_hash(level, low >> level))
            low += 1 << level
        return Frontier.of(size, hashes)

    async def _is_ours(self, checkpoint: Checkpoint | None) -> bool:
        """Whether our log begins with that tree."""
        if checkpoint is None:
            return True
        ledger = self._ledger
        return checkpoint.size <= ledger.size and await ledger.root(checkpoint.size) == checkpoint.root

    def _cosigned(self, text: str) -> Checkpoint | None:
        """The checkpoint of a note that we signed and the hub cosigned; None for no note.  Raises Corrupt."""
        if text:
            open_cosigned(text, self._hub_key)
        return self._signed(text)

    def _signed(self, text: str) -> Checkpoint | None:
        """The checkpoint of a note that we signed; None for no note.  Raises Corrupt, Refused."""
        if not text:
            return None
        origin = self._ledger.origin
        checkpoint = Checkpoint.parse(note.open_note(text, Verifier(origin, self._log_key.public_key)))
        if checkpoint.origin != origin:
            raise Refused(f"the hub shows a checkpoint of {checkpoint.origin[:128]!r}, not of {origin}")
        return checkpoint
