"""The proof that one entry is in a log, as a file that is checked without asking anybody.

The format is the C2SP transparency log proof (https://c2sp.org/tlog-proof): a line that says so, the entry
itself as ``extra`` data (optional), its index, the hashes that lead from it to the root, and after an empty
line the checkpoint note with the signature of the log and the cosignatures of its witnesses.

>>> from agent.wire.note import Signer, sign
>>> from agent.wire.tlog import Checkpoint, Frontier, inclusion_proof, stored_index
>>> log, tree = Signer("example.com/log", bytes(32)), Frontier()
>>> stored = tree.extend(map(leaf_hash, [b"a", b"b", b"c"]))
>>> hashes = inclusion_proof(1, 3, lambda level, index: stored[stored_index(level, index)])
>>> note = sign(Checkpoint("example.com/log", 3, tree.root()).text(), log)
>>> proof = ProofFile(1, tuple(hashes), note, extra=b"b")
>>> print(proof.text().rpartition(" ")[0])
c2sp.org/tlog-proof@v1
extra Yg==
index 1
Aippeebat6pa5MPl5F9+l3ESp+Y1k4INvsHsc4ok+Tw=
WX/LMSgtNGVMIA00GPylcFxkjr8ybsc9jd7xGEH4dtg=
<BLANKLINE>
example.com/log
3
NmQuc8JUCrEh46a/lUWwokmCzYMOsT080Z3jzmwCHsE=
<BLANKLINE>
— example.com/log

>>> proven = ProofFile.parse(proof.text()).verify(None, log.verifier)
>>> proven.entry, proven.checkpoint.size
(b'b', 3)
>>> ProofFile(2, tuple(hashes), note).verify(b"b", log.verifier)
Traceback (most recent call last):
agent.wire.errors.Corrupt: a proof of 2 hashes cannot be that of entry 2 of 3

A file may only be believed once `ProofFile.verify` has returned.  Written by the hub, for whoever pays;
checked by strangers.  It reads no files and does not know what an entry says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent.wire.canonical import from_base64, to_base64
from agent.wire.cosignature import CosignatureVerifier, open_cosigned
from agent.wire.errors import Corrupt, Refused
from agent.wire.note import MAX_NOTE, Verifier, open_note
from agent.wire.tlog import HASH, Checkpoint, check_inclusion, leaf_hash

FIRST_LINE = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
MAX_HASHES = 63
"""As many as the tree has levels."""
MAX_EXTRA = 65_535
MAX_PROOF = MAX_NOTE + 128 * 1024
"""Most bytes of a file."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof proves: this entry is number ``index`` under this checkpoint.

    ``witnessed``: the names of the witnesses that were asked for, and when each saw it (seconds since 1970).
    """

    entry: bytes
    index: int
    checkpoint: Checkpoint
    witnessed: dict[str, int]


@dataclass(frozen=True, slots=True)
class ProofFile:
    """A proof as it is written.  ``hashes`` go from the sibling of the leaf up to the child of the root.

    ``extra`` is what goes along unsigned; here that is the entry, which the hashes then prove.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: str
    extra: bytes | None = None

    def text(self) -> str:
        """The file."""
        lines = [FIRST_LINE]
        # SPEC tlog-proof: If no extra data is present, this line is omitted.
        if self.extra:
            lines.append(f"extra {to_base64(self.extra)}")
        lines += (f"index {self.index}", *map(to_base64, self.hashes), "", self.note)
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str | bytes) -> ProofFile:
        """Read a file; nothing is verified yet.  Raises Refused."""
        if len(text) > MAX_PROOF:
            raise Refused(f"a proof of {len(text)} bytes is over the limit of {MAX_PROOF}", code="too-large")
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError as error:
                raise Refused(f"the proof is not UTF-8: {error.reason} at byte {error.start}") from error
        head, empty, note = text.partition("\n\n")
        first, *lines = head.split("\n")
        if first != FIRST_LINE or not empty:
            raise Refused(
                f"a proof begins with the line {FIRST_LINE} and has its checkpoint after an empty one"
            )
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0).removeprefix("extra "), "extra data")
        if extra == b"" or len(extra or b"") > MAX_EXTRA:
            raise Refused(f"the extra data of a proof has 1 to {MAX_EXTRA} bytes")
        if not lines or not lines[0].startswith("index ") or len(lines) > MAX_HASHES + 1:
            raise Refused(f"a proof is the index of its entry and up to {MAX_HASHES} hashes")
        # SPEC tlog-proof: represented as an ASCII decimal with no leading zeroes (unless it is 0).
        index = lines.pop(0).removeprefix("index ")
        if not _INDEX.fullmatch(index):
            raise Refused(f"{index[:64]!r} is not the index of an entry")
        hashes = (from_base64(line, f"hash {at} of the proof", HASH) for at, line in enumerate(lines))
        return cls(int(index), tuple(hashes), note, extra)

    def verify(
        self, entry: bytes | None, log: Verifier, witnesses: Sequence[CosignatureVerifier] = ()
    ) -> Proven:
        """Check ``entry`` (or the one that came along) against the checkpoint, that against all keys.

        The name of ``log`` must be the origin.  Raises Corrupt, or Refused for what is no checkpoint at all.
        """
        entry = self.extra if entry is None else entry
        if entry is None:
            raise Refused(
                "the proof has no entry with it", hint="name the file with the entry that it is about"
            )
        if self.extra is not None and self.extra != entry:
            raise Corrupt(f"the proof is about another entry {self.index} than the one it was asked for")
        checkpoint = Checkpoint.parse(open_note(self.note, log))
        if checkpoint.origin != log.name:
            raise Corrupt(f"the checkpoint is of the log {checkpoint.origin[:128]}, not of {log.name}")
        seen = {each.name: open_cosigned(self.note, each)[1] for each in witnesses}
        check_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return Proven(entry, self.index, checkpoint, seen)
