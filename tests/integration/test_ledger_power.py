"""The power fails at any moment, cards are set back to old copies, and the log is held against a list."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.usage.ledger import Ledger
from agent.wire.usage import read
from support.ledgers import DAY_MS, Bench, Cut, PowerCut, numbers, root_of, whole

T = TypeVar("T")
CHUNK = 3
"""Entries that come back from the hub at once."""


@dataclass
class Card:
    """What must be in the log: ``sure`` are the numbers of its records, ``doubtful`` those that were cut off.

    ``other``: what must be in it where the power failed while a new epoch began, and the old one's origin.
    """

    sure: list[int] = field(default_factory=list)
    doubtful: set[int] = field(default_factory=set)
    held_from: int | None = 0  # None: the power failed while it was pruned
    other: tuple[str, list[int]] | None = None

    def copy(self) -> Card:
        return Card(list(self.sure), set(self.doubtful), self.held_from, self.other)


@dataclass
class Held:
    """What the hub holds of one log."""

    entries: list[bytes]
    note: str


class Power(RuleBasedStateMachine):
    """A board and its hub, which holds what it gave a receipt for."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="lichen-", dir="/dev/shm"))
        self.bench = Bench(self.folder / "usage")
        self.card = Card()
        self.old_copy: Card | None = None
        self.hub: dict[str, Held] = {}
        self.signed: dict[tuple[str, int], bytes] = {}
        self.ledger: Ledger | None = None
        self.opening: Any = None

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.disk = PowerCut(self.dice)

    def teardown(self) -> None:
        if self.ledger is not None:
            self.run(self.opening.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def tried(self, work: Callable[[Ledger], Coroutine[Any, Any, T]]) -> tuple[T] | None:
        """What came of it; None when the power failed in between."""
        assert self.ledger is not None
        self.may_fail()
        try:
            done = self.run(work(self.ledger))
            self.disk.left = None
            return (done,)
        except Cut:
            self.ledger = None
            with contextlib.suppress(Cut):
                self.run(self.opening.__aexit__(None, None, None))
            self.disk.fail()
        return None

    def may_fail(self) -> None:
        """Let the power fail within the next changes of the disk, or not."""
        self.disk.left = self.dice.randrange(16) if self.dice.random() < 0.3 else None

    # --- the board

    def on(self) -> bool:
        """Whether the board runs, after it was started if need be."""
        if self.ledger is None:
            opening = self.bench.open(self.disk)
            self.may_fail()
            try:
                self.ledger, self.opening = self.run(opening.__aenter__()), opening
                self.learn_the_epoch()
                self.disk.left = None
            except Cut:
                self.disk.fail()
        return self.ledger is not None

    def learn_the_epoch(self) -> None:
        """Which one counts, after the power may have failed while one began."""
        card = self.card
        if card.other is not None and self.ledger is not None and card.other[0] != self.ledger.origin:
            card.sure, card.doubtful, card.held_from = list(card.other[1]), set(), 0
        card.other = None

    def off(self) -> None:
        if self.ledger is not None:
            self.ledger = None
            self.run(self.opening.__aexit__(None, None, None))

    @rule(reboot=st.booleans())
    def stop(self, reboot: bool) -> None:
        self.off()
        if reboot:
            self.bench.boot = f"{self.dice.getrandbits(128):032x}"

    @rule(days=st.integers(-3, 9))
    def wait(self, days: int) -> None:
        self.bench.wall_ms += days * DAY_MS

    @rule(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3))
    def append(self, counts: list[int]) -> None:
        for count in counts:
            if not self.on():
                return
            records = self.bench.records(count)
            made = [record.cpu_us or 0 for record in records]
            if self.tried(lambda ledger, records=records: ledger.append(records)):  # type: ignore[misc]
                self.card.sure += made
            else:
                self.card.doubtful |= set(made)

    @rule()
    def copy_the_card(self) -> None:
        self.off()
        if self.bench.folder.exists():
            shutil.rmtree(self.folder / "copy", ignore_errors=True)
            shutil.copytree(self.bench.folder, self.folder / "copy")
            self.old_copy = self.card.copy()

    @rule()
    def set_the_card_back(self) -> None:
        if self.old_copy is None:
            return
        self.off()
        shutil.rmtree(self.bench.folder)
        shutil.copytree(self.folder / "copy", self.bench.folder)
        self.disk.replaced()
        self.card = self.old_copy.copy()
        # What the hub never got nobody has seen; were it otherwise, the sync would begin a new epoch.
        self.signed = {
            (origin, size): root
            for (origin, size), root in self.signed.items()
            if origin in self.hub and size <= len(self.hub[origin].entries)
        }

    # --- the board and its hub

    async def agree(self, ledger: Ledger) -> None:
        """What a sync does at the begin of a session."""
        held = self.hub.get(ledger.origin, Held([], ""))
        size = len(held.entries)
        if ledger.size < size or await ledger.root(size) != root_of(held.entries):
            start = min(ledger.signed, size)
            while start < size:
                await ledger.adopt(start, held.entries[start : start + CHUNK], held.note)
                start += CHUNK
        if held.note:
            await ledger.keep_receipt(held.note, self.bench.cosigner.verifier)
        await ledger.hub_size_known(size)
        await ledger.settle()

    def agreed(self) -> bool:
        if not self.on():
            return False
        assert self.ledger is not None
        fetched = numbers(self.hub[self.ledger.origin].entries) if self.ledger.origin in self.hub else []
        if self.tried(self.agree):
            self.card.sure = sorted({*self.card.sure, *fetched})
            return True
        self.card.doubtful |= set(fetched)
        return False

    @rule(number=st.integers(0, 999))
    def sign(self, number: int) -> None:
        if self.agreed() and self.ledger is not None:
            size = 1 + number % self.ledger.size
            if done := self.tried(lambda ledger: ledger.checkpoint(size)):
                self.notice(*done)

    @rule()
    def deliver(self) -> None:
        async def deliver(ledger: Ledger) -> str:
            entries = await whole(ledger)
            note = self.bench.cosigned(await ledger.checkpoint())
            held = self.hub.get(ledger.origin, Held([], "")).entries
            self.hub[ledger.origin] = Held([*held[: ledger.held_from], *entries], note)
            await ledger.keep_receipt(note, self.bench.cosigner.verifier)
            return note

        if self.agreed() and (done := self.tried(deliver)):
            self.notice(*done)

    def notice(self, note: str) -> None:
        checkpoint = self.bench.opened(note, note.partition("\n")[0])
        root = self.signed.setdefault((checkpoint.origin, checkpoint.size), checkpoint.root)
        assert root == checkpoint.root, "two roots for one size"

    @rule()
    def prune(self) -> None:
        if not self.on():
            return
        later_ms = self.bench.wall_ms + 36 * DAY_MS
        self.card.held_from = None
        if self.tried(lambda ledger: ledger.prune(later_ms)):
            self.card.held_from = self.ledger.held_from

    @rule()
    def begin_anew(self) -> None:
        if not self.on() or self.ledger is None or self.ledger.state.aside:
            return
        origin, size = self.ledger.origin, self.ledger.size
        carry = len(self.hub[origin].entries) if origin in self.hub else 0
        if carry <= size:
            carried = numbers(self.run(whole(self.ledger))[max(carry - self.ledger.held_from, 0) :])
            self.card.other = (origin, carried)
            if self.tried(lambda ledger: ledger.new_epoch("another history", "", carry)):
                self.learn_the_epoch()

    @rule(lives=st.lists(st.lists(st.integers(1, 4), max_size=2), min_size=3, max_size=3))
    def live_twice(self, lives: list[list[int]]) -> None:
        """A card is copied, goes on, is set back, and goes on in another way before it hears from the hub."""
        before, first, second = lives
        self.append(before)
        self.copy_the_card()
        self.append(first)
        self.deliver()
        self.set_the_card_back()
        self.append(second)
        self.deliver()

    # --- what holds

    @invariant()
    def the_log_has_what_it_said(self) -> None:
        if self.ledger is None:
            return
        card, ledger = self.card, self.ledger
        entries = self.run(whole(ledger))
        assert card.held_from in (None, ledger.held_from)
        card.held_from = ledger.held_from
        assert [read(entry).seq for entry in entries] == list(range(ledger.held_from, ledger.size))
        found = numbers(entries)
        assert found == sorted(set(found))
        if not ledger.state.aside:
            lowest = found[0] if found else self.bench.made + 1
            sure = {number for number in card.sure if not ledger.held_from or number >= lowest}
            assert sure <= set(found) <= sure | card.doubtful
            card.sure, card.doubtful = found, set()
        for (origin, size), root in self.signed.items():
            if origin == ledger.origin and size <= ledger.size:
                assert size > ledger.signed or self.run(ledger.root(size)) == root
        if not ledger.held_from:
            assert self.run(ledger.root()) == root_of(entries)


Power.TestCase.settings = settings(stateful_step_count=25)
TestPower = pytest.mark.soak(pytest.mark.slow(Power.TestCase))
