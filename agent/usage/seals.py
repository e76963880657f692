"""Seals: what a board signs of its own log after each batch.

Two kinds, and the difference matters.  A *checkpoint* binds the log: whoever saw two of them with different
roots for one size holds the proof that this board lied.  So it is signed only once the hub has said, since
this start of the agent, how far its copy goes; a card that was set back to an old copy would otherwise
sign a second history without knowing.  Until then the seal is a *local* one, which is not of the log and
binds it to nothing: it lets the next start find out whether the disk has kept what was written.

Called by `agent.usage.volume` and `agent.usage.recovery`; signs whatever it is told, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import Clock
from agent.wire.canonical import from_base64, to_base64
from agent.wire.decode import decode, loads
from agent.wire.errors import Refused
from agent.wire.messages import compose
from agent.wire.note import Signer, Verifier, open_note, sign
from agent.wire.package import LocalSeal
from agent.wire.tlog import HASH, Checkpoint

_LOCAL = "lichen/seal/v1\n"


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal as it was read: up to which entry, their root, and whether it is a checkpoint."""

    size: int
    root: bytes
    is_checkpoint: bool
    note: str


class Sealer:
    """Signs for one log of a board: ``log_key`` is the board's, named by its id."""

    def __init__(self, origin: str, log_key: Signer, clock: Clock) -> None:
        self.origin = origin
        self._log_key = log_key
        self._key = Signer(origin, log_key.seed)
        self._clock = clock

    def now_ms(self) -> int:
        """What the board takes the time to be."""
        return self._clock.wall_ms()

    @property
    def verifier(self) -> Verifier:
        """What checkpoints are verified with."""
        return self._key.verifier

    def checkpoint(self, size: int, root: bytes) -> str:
        """The note of a checkpoint."""
        return sign(Checkpoint(self.origin, size, root).text(), self._key)

    def local(self, size: int, root: bytes) -> str:
        """The note of a local seal."""
        seal = LocalSeal(self.origin, size, to_base64(root), self._clock.boot, self._clock.wall_ms())
        return sign(compose("seal", seal), self._log_key)

    def open_checkpoint(self, note: str) -> Checkpoint:
        """The checkpoint in a note that this key signed.  Raises Corrupt, Refused."""
        checkpoint = Checkpoint.parse(open_note(note, self.verifier))
        if checkpoint.origin != self.origin:
            raise Refused(f"a checkpoint of {checkpoint.origin[:128]} is not one of {self.origin}")
        return checkpoint

    def verify(self, seal: Seal) -> None:
        """Raise Corrupt unless this board signed ``seal``."""
        open_note(seal.note, self.verifier if seal.is_checkpoint else self._log_key.verifier)


def read_seal(note: bytes, origin: str) -> Seal:
    """What a seal says; whether it is signed is not looked at.  Raises Refused."""
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"the seal is not UTF-8: {error.reason}") from error
    text, _, signatures = whole.partition("\n\n")
    if not signatures:
        raise Refused("the seal is not signed")
    if text.startswith(_LOCAL):
        local = decode(LocalSeal, loads(text[len(_LOCAL) :].encode(), max_bytes=len(note)))
        seal = Seal(local.size, from_base64(local.root, "root of the seal", HASH), False, whole)
        named = local.origin
    else:
        checkpoint = Checkpoint.parse(text + "\n")
        seal, named = Seal(checkpoint.size, checkpoint.root, True, whole), checkpoint.origin
    if named != origin:
        raise Refused(f"the seal is of {named[:128]!r}, not of {origin}")
    return seal
