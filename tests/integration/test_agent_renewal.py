"""A board keeps its certificate good: in time, after a year away, and whoever answers.

The calendar runs over virtual time; a web server says what a test wants; and a hub and a board
run as processes with a certificate that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity, certificate_end_ms, open_identity
from agent.renewal import DAY_MS, LIFE_MS, Renewal, renew
from agent.wire import note
from agent.wire.decode import decode_json
from agent.wire.errors import Corrupt, LichenError, LinkDown, Refused
from agent.wire.joining import Challenge, RenewAnswer, RenewProof, RenewRequest
from agent.wire.messages import ClockState, read_text
from agent.wire.plain import dumps
from hub.fleet.authority import Authority
from hub.fleet.certificates import board_certificate
from support.homehub import HomeHub, Website, website
from support.lab import Board, Lab
from support.virtual import virtual, virtual_clock

CHALLENGE = "c" * 32


def certificate(authority: Authority, identity: Identity, until_ms: int) -> str:
    """One that ends when a test wants."""
    return board_certificate(
        authority._issuer(), identity.board, identity.certificate_request(), until_ms
    ).pem


# --- when ----------------------------------------------------------------------------------------------


class Calendar:
    """A board with a certificate, and a hub that gives another one unless it ``fails``."""

    def __init__(self, folder: Path, *, given_ms: int | None, until_ms: int) -> None:
        self.hub = HomeHub(folder / "hub")
        self.identity = open_identity(folder / "state")
        self.hub.admit(self.identity)
        self.identity.replace_certificate(certificate(self.hub.authority, self.identity, until_ms), given_ms)
        self.fails: list[LichenError] = []
        self.asked: list[tuple[float, bool]] = []

    def ask(self, identity: Identity, clock: Clock, by_proof: bool) -> int:
        self.asked.append((clock.mono_ms() / DAY_MS, by_proof))
        if self.fails:
            raise self.fails.pop(0)
        now_ms = clock.known_ms() or START_MS
        pem = certificate(self.hub.authority, identity, now_ms + LIFE_MS)
        identity.replace_certificate(pem, now_ms)
        return certificate_end_ms(pem)

    async def live(self, days: float, *, draw: float = 0.5, clock: Clock | None = None) -> Renewal:
        renewal = Renewal(self.identity, Config(), clock or virtual_clock(), ask=self.ask, draw=lambda: draw)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(renewal.run(), name="renewal")
            await asyncio.sleep(days * 86_400)
            task.cancel()
        return renewal


START_MS = 1_700_000_000_000


@virtual
async def test_it_is_renewed_at_two_thirds_of_its_life_and_again(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS, until_ms=START_MS + LIFE_MS)
    renewal = await calendar.live(130)
    first, second = (day for day, _ in calendar.asked)
    assert 60.5 <= first <= 60.5 + 0.25
    assert 60.5 <= second - first <= 60.5 + 0.25
    assert not any(by_proof for _, by_proof in calendar.asked)
    assert renewal.renewed.is_set()


@virtual
async def test_a_fleet_that_joined_together_does_not_come_together(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS, until_ms=START_MS + LIFE_MS)
    clock = virtual_clock(wall_ms=START_MS + 60 * DAY_MS)
    due = [Renewal(calendar.identity, Config(), clock, draw=(n / 24).__float__) for n in range(25)]
    counts = []
    for _ in range(25):
        counts.append(sum(renewal.is_due() for renewal in due))
        await asyncio.sleep(3600)
    assert counts == list(range(1, 26))


@pytest.mark.parametrize("given_ms", [None, 5, START_MS + 2 * LIFE_MS], ids=["unknown", "1970", "later"])
@virtual
async def test_without_a_good_date_it_is_taken_to_last_as_hubs_let_it(
    tmp_path: Path, given_ms: int | None
) -> None:
    calendar = Calendar(tmp_path, given_ms=given_ms, until_ms=START_MS + LIFE_MS)
    await calendar.live(60)
    assert calendar.asked == []
    await calendar.live(2)
    assert len(calendar.asked) == 1


@virtual
async def test_a_hub_that_does_not_answer_is_asked_until_it_does(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS - LIFE_MS * 3 // 4, until_ms=START_MS + LIFE_MS // 4)
    calendar.fails = [LinkDown("no answer")] * 30
    await calendar.live(2)
    assert len(calendar.asked) == 31
    (before, _), (last, _) = calendar.asked[-2:]
    assert round((last - before) * 24, 3) == 0.5  # the bound of the pause is an hour, of which half was drawn


@virtual
async def test_what_comes_of_it_ends_no_agent(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS - LIFE_MS * 3 // 4, until_ms=START_MS + LIFE_MS // 4)
    calendar.fails = [Corrupt("somebody else answers"), Refused("revoked", code="revoked")]
    await calendar.live(1)
    assert [by_proof for _, by_proof in calendar.asked] == [
        False,
        True,
        False,
    ]  # first one way, then the other


@virtual
async def test_after_a_year_away_the_log_key_is_asked_for_at_once(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS - 455 * DAY_MS, until_ms=START_MS - 365 * DAY_MS)
    await calendar.live(1)
    assert calendar.asked == [(0, True)]


@virtual
async def test_a_board_in_1970_asks_when_the_broker_does_not_let_it_in(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS - 455 * DAY_MS, until_ms=START_MS - 365 * DAY_MS)
    state: list[ClockState] = ["unsynced"]
    clock = virtual_clock(wall_ms=0, state=lambda: state[0])
    await calendar.live(30, clock=clock)
    assert calendar.asked == []
    renewal = Renewal(calendar.identity, Config(), clock, ask=calendar.ask)
    renewal.wanted.set()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(renewal.run(), name="renewal")
        await renewal.renewed.wait()
        task.cancel()
    assert [by_proof for _, by_proof in calendar.asked] == [True]


@virtual
async def test_a_broker_that_accepts_no_certificate_at_all_costs_the_hub_few(tmp_path: Path) -> None:
    calendar = Calendar(tmp_path, given_ms=START_MS, until_ms=START_MS + LIFE_MS)
    renewal = Renewal(calendar.identity, Config(), virtual_clock(), ask=calendar.ask, draw=lambda: 1.0)

    async def link() -> None:
        while True:
            renewal.wanted.set()
            await renewal.renewed.wait()
            renewal.renewed.clear()
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(), name=run.__name__) for run in (renewal.run, link)]
        await asyncio.sleep(86_400)
        for task in tasks:
            task.cancel()
    assert 24 < len(calendar.asked) < 24 + 14  # once an hour, when that has been reached


# --- whoever answers -------------------------------------------------------------------------------------


class Field:
    """A board that was away for a year, and a web server in place of its hub's."""

    def __init__(self, folder: Path) -> None:
        self.hub = HomeHub(folder / "hub")
        self.stranger = HomeHub(folder / "stranger")
        self.identity = open_identity(folder / "state")
        self.other = open_identity(folder / "other")
        self.site: Website | None = None
        self.ended = ""

    def begin(self, site: Website) -> None:
        self.site = site
        self.hub.admit(self.identity)
        note = self.hub.document(url=site.url)
        (self.identity.directory / "hub.note").write_text(note)
        self.ended = certificate(self.hub.authority, self.identity, START_MS)
        self.identity.replace_certificate(self.ended, None)
        site.pages["GET /renew"] = (200, dumps(Challenge(CHALLENGE)))
        site.pages["POST /renew"] = lambda body: (200, dumps(self.answer(body)))

    def answer(self, body: bytes, **lies: str) -> RenewAnswer:
        request = decode_json(RenewRequest, body, max_bytes=100_000)
        issued = self.hub.authority.issue(self.identity.board, request.csr_pem, 1_780_000_000_000)
        return replace(RenewAnswer(issued.pem, self.hub.document(2, url=self.url)), **lies)

    @property
    def url(self) -> str:
        assert self.site is not None
        return self.site.url

    def is_as_it_was(self) -> bool:
        kept = (self.identity.directory / "tls.pem").read_text()
        return kept == self.ended and self.identity.document().number == 1


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    field = Field(tmp_path)
    with website(field.hub.authority.server_context(), {}) as site:
        field.begin(site)
        yield field


def test_the_log_key_signs_what_the_hub_asked(field: Field) -> None:
    until_ms = renew(field.identity, Clock.system(), True)
    assert until_ms == field.identity.certificate_until_ms() > START_MS
    assert field.identity.document().number == 2
    assert field.site is not None
    (asked, _), (posted, body) = field.site.requests
    assert (asked, posted) == ("GET /renew", "POST /renew")
    request = decode_json(RenewRequest, body, max_bytes=100_000)
    proof = read_text("renew", RenewProof, note.open_note(request.proof, field.identity.log_key.verifier))
    assert proof == RenewProof(field.hub.keys.hub, CHALLENGE, field.identity.tls_public_key())
    assert request.board == field.identity.board


def test_the_tls_key_stays(field: Field) -> None:
    before = (field.identity.directory / "tls.key").read_bytes()
    renew(field.identity, Clock.system(), True)
    assert (field.identity.directory / "tls.key").read_bytes() == before
    field.identity.tls(field.hub.authority.ca_pem, "synced")


LIES: dict[str, Callable[[Field], dict[str, str]]] = {
    "the document of another hub": lambda field: {"hub_note": field.stranger.document(2)},
    "a certificate for another key": lambda field: {
        "certificate_pem": certificate(field.hub.authority, field.other, 2 * START_MS)
    },
    "a certificate by another authority": lambda field: {
        "certificate_pem": certificate(field.stranger.authority, field.identity, 2 * START_MS)
    },
    "a certificate that ends no later": lambda field: {"certificate_pem": field.ended},
    "no certificate": lambda field: {"certificate_pem": "-----BEGIN"},
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_of_a_false_answer_is_kept(field: Field, lie: str) -> None:
    assert field.site is not None
    field.site.pages["POST /renew"] = lambda body: (200, dumps(field.answer(body, **LIES[lie](field))))
    with pytest.raises((Corrupt, Refused)):
        renew(field.identity, Clock.system(), True)
    assert field.is_as_it_was()


def test_a_stranger_with_another_certificate_hears_nothing(field: Field, tmp_path: Path) -> None:
    with website(field.stranger.authority.server_context(), {}) as site:
        (field.identity.directory / "hub.note").write_text(field.hub.document(url=site.url))
        with pytest.raises(Corrupt, match="does not hold"):
            renew(field.identity, Clock.system(), True)
        assert site.requests == []


def test_the_hubs_own_sentence_is_told(field: Field) -> None:
    assert field.site is not None
    refusal = b'{"type": "urn:lichen:problem:revoked", "detail": "the board was revoked on this hub"}'
    field.site.pages["POST /renew"] = (403, refusal)
    with pytest.raises(Refused, match="was revoked") as caught:
        renew(field.identity, Clock.system(), True)
    assert caught.value.code == "revoked"
    assert field.is_as_it_was()


# --- a hub and a board -----------------------------------------------------------------------------------

FAST = {
    "report": {"every_s": 0.2},
    "link": {"backoff_low_s": 0.05, "backoff_high_s": 0.5, "resend_s": 2},
    "sensors": [
        {"name": "load", "kind": "file", "path": "/proc/loadavg", "pattern": r"^(\S+)", "interval_s": 0.1}
    ],
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        yield lab


async def joined(lab: Lab) -> Board:
    board = await lab.add_board("pump", **FAST)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 0, "the first reading is stored")
    return board


def authority_of(lab: Lab) -> Authority:
    folder = lab.hub_dir / "ca"
    return Authority(folder, (folder / "ca.pem").read_text())


@pytest.mark.slow
async def test_the_hub_renews_by_the_certificate_that_is_shown(lab: Lab) -> None:
    board = await joined(lab)
    await board.stop()
    identity = open_identity(board.state)
    identity.replace_certificate(certificate(authority_of(lab), identity, now_ms() + DAY_MS), now_ms())
    until_ms = await asyncio.to_thread(renew, identity, Clock.system(), False)
    assert until_ms > now_ms() + LIFE_MS - DAY_MS
    before = board.stored()
    await board.start()
    await lab.until(lambda: board.stored() > before, "the new certificate is good")


@pytest.mark.slow
async def test_a_board_that_was_away_for_a_year_comes_back_by_itself(lab: Lab) -> None:
    board = await joined(lab)
    await board.stop()
    identity, before = open_identity(board.state), board.stored()
    ended = certificate(authority_of(lab), identity, now_ms() - 365 * DAY_MS)
    identity.replace_certificate(ended, now_ms() - 455 * DAY_MS)
    with pytest.raises((Refused, LinkDown)):  # showing it leads nowhere
        await asyncio.to_thread(renew, identity, Clock.system(), False)
    await board.start()
    await lab.until(lambda: identity.certificate_until_ms() > now_ms(), "the certificate is renewed")
    await lab.until(lambda: board.stored() > before, "readings arrive again")
    assert "certificate renewed" in board.tail()


def now_ms() -> int:
    return Clock.system().wall_ms()
