"""What a package of a usage log claims, as far as that can be judged without the log itself.  Pure.

The witness reads each package so before it opens a transaction: the form of every entry, that each stands
where it says, whose log it is, and that the board signed the checkpoint.  Whether the entries belong behind
those that are held is decided by `hub.ledger.witness`, as it takes the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.wire import note
from agent.wire.cosignature import CosignatureVerifier, Cosigner, open_cosigned
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import Signer, Verifier
from agent.wire.package import Package
from agent.wire.tlog import Checkpoint
from agent.wire.usage import Other, split_origin
from hub.ledger.lines import Line, read_line


@dataclass(frozen=True, slots=True)
class Claim:
    """A package that was read: its entries line by line, and its checkpoint, which a question may lack."""

    package: Package
    epoch: str
    lines: tuple[Line | Other, ...]
    checkpoint: Checkpoint | None

    @property
    def is_question(self) -> bool:
        """Whether it brings nothing, and asks what is held."""
        return self.package.end == self.package.start


def read_claim(package: Package, board: str, log_key: str) -> Claim:
    """Judge a package that ``board`` sent, whose log key is ``log_key``.

    Raises Refused (code "forbidden" for the log of somebody else) and Corrupt for a false signature.
    """
    owner, epoch = split_origin(package.origin)
    if owner != board:
        raise Refused(f"board {board} sent a package of the log {package.origin}", code="forbidden")
    checkpoint = read_checkpoint(package.checkpoint, package.origin, log_key) if package.checkpoint else None
    if package.end > package.start:
        if checkpoint is None:
            raise Refused(f"entries from {package.start} on came without a checkpoint that holds them")
        if checkpoint.size < package.end:
            raise Refused(
                f"the checkpoint of {checkpoint.size} entries does not hold those up to {package.end}"
            )
    return Claim(package, epoch, _lines(package), checkpoint)


def read_checkpoint(text: str, origin: str, log_key: str) -> Checkpoint:
    """The checkpoint in a note that the board signed.  Raises Corrupt, Refused."""
    checkpoint = Checkpoint.parse(note.open_note(text, key_of(origin, log_key)))
    if checkpoint.origin != origin:
        raise Refused(f"the checkpoint is of the log {checkpoint.origin[:128]!r}, not of {origin}")
    return checkpoint


def key_of(origin: str, log_key: str) -> Verifier:
    """A board's log key under the name by which it signs checkpoints of a log: that log's origin."""
    return Verifier(origin, Verifier.parse(log_key).public_key)


def _lines(package: Package) -> tuple[Line | Other, ...]:
    lines = []
    for seq, entry in enumerate(package.entries, package.start + len(package.lost)):
        line = read_line(entry)
        if line.seq != seq:
            raise Refused(f"entry {seq} says that it is number {line.seq}: entries out of order")
        lines.append(line)
    return tuple(lines)


# --- receipts --------------------------------------------------------------------------------------


def cosigner_of(receipt: Signer) -> Cosigner:
    """The hub's receipt key as it cosigns."""
    return Cosigner(receipt.name, receipt.seed)


def is_cosigned(text: str, verifier: CosignatureVerifier) -> bool:
    """Whether a note has the cosignature of this very key."""
    try:
        open_cosigned(text, verifier)
    except (Corrupt, Refused):
        return False
    return True


def without_cosignatures(text: str, origin: str) -> str:
    """The note with the board's own signature alone."""
    body, _, lines = text.rpartition("\n\n")
    own = [line for line in lines.splitlines() if line.startswith(f"— {origin} ")]
    return "\n".join((body, "", *own, ""))
