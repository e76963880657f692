"""Renewing a certificate: by the certificate, by the log key, and for whom not.

The rules run over a real store with a clock that the test turns; TLS is that of a running hub.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from agent.wire.errors import Refused
from agent.wire.joining import RenewRequest
from hub.access.keys import Keyring
from hub.fleet.authority import BOARD_MS, Authority
from hub.fleet.renewal import CHALLENGE_MS, Challenges, Renewal
from hub.store import boards, certificates, events
from hub.store.database import Store
from support.applicant import Applicant, address, ask, csr_pem, join, join_file, public_pem
from support.blank import new_store
from support.lab import Lab

START_MS = 1_780_000_000_000
YEAR_MS = 365 * 24 * 3_600_000


class Hub:
    """A hub's renewing with its store, one board, and a clock that stands until it is turned."""

    def __init__(self, store: Store, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.at_ms = START_MS
        self.store = store
        self.keys = Keyring.generate()
        self.board = Applicant()
        self.renewal = Renewal(
            store,
            Authority.create(directory, self.keys.hub, "127.0.0.1", START_MS),
            self.keys,
            lambda: self.at_ms,
            document=lambda: "the hub document",
            executor=executor,
        )

    async def admit(self) -> None:
        async with self.store.write() as tx:
            board = self.board
            await boards.add_board(
                tx, id=board.board, log_key=board.log_key.vkey, seal_key=board.seal_key.public, joined_ms=1
            )

    def request(self, **proven: str) -> RenewRequest:
        return self.board.renewal(self.keys.hub, self.renewal.challenge().challenge, proven=proven)

    async def says_no(
        self, request: RenewRequest, code: str = "forbidden", *, peer: str = "", remote: str = ""
    ) -> str:
        with pytest.raises(Refused) as caught:
            await self.renewal.renew(request, peer=peer, remote=remote)
        assert caught.value.code == code, str(caught.value)
        return str(caught.value)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with new_store(tmp_path / "hub.db") as store:
        with ThreadPoolExecutor(1) as executor:
            hub = Hub(store, tmp_path, executor)
            await hub.admit()
            yield hub


# --- the rules --------------------------------------------------------------------------------------------


async def test_who_guesses_at_an_address_does_not_keep_boards_with_certificates_there_out(hub: Hub) -> None:
    request = replace(hub.request(), board="b" * 16)
    for _ in range(11):
        await hub.says_no(request, remote="192.0.2.1")
    await hub.says_no(hub.request(), "too-many", remote="192.0.2.1")
    answer = await hub.renewal.renew(hub.request(), peer=hub.board.board, remote="192.0.2.1")
    assert "BEGIN CERTIFICATE" in answer.certificate_pem


async def test_a_board_that_was_away_for_a_year_renews_by_its_log_key(hub: Hub) -> None:
    hub.at_ms += YEAR_MS
    answer = await hub.renewal.renew(hub.request())
    found = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert found.subject.rfc4514_string() == f"CN={hub.board.board}"
    assert found.not_valid_after_utc.timestamp() * 1000 == hub.at_ms + BOARD_MS
    assert answer.hub_note == "the hub document"
    async with hub.store.write() as tx:
        [event] = await events.list_events(tx)
        await boards.revoke_board(tx, hub.board.board, hub.at_ms)
        serials = await certificates.revoked_serials(tx)
    assert (event.kind, event.board) == ("renewed", hub.board.board)
    assert serials == [f"{found.serial_number:x}"]  # a revocation will reach this one, too


async def test_with_its_certificate_a_board_needs_no_proof(hub: Hub) -> None:
    asked = RenewRequest(csr_pem(hub.board.tls_key))
    answer = await hub.renewal.renew(asked, peer=hub.board.board)
    found = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert found.public_key() == hub.board.tls_key.public_key()


async def test_a_proof_is_good_once_and_for_a_minute(hub: Hub) -> None:
    request = hub.request()
    await hub.renewal.renew(request)
    assert "used before" in await hub.says_no(request)
    late = hub.request()
    hub.at_ms += CHALLENGE_MS
    assert "minute" in await hub.says_no(late, "expired")


async def test_a_false_proof_gets_nothing(hub: Hub) -> None:
    other = Applicant()
    assert "another hub" in await hub.says_no(hub.request(hub="k" * 16))
    assert "TLS key" in await hub.says_no(hub.request(tls_key=public_pem(other.tls_key)))
    assert "none of this hub's" in await hub.says_no(hub.request(challenge="c" * 64))
    stolen = other.renewal(hub.keys.hub, hub.renewal.challenge().challenge)
    claimed = RenewRequest(stolen.csr_pem, hub.board.board, stolen.proof)
    assert "not signed by the log key" in await hub.says_no(claimed)
    assert "knows no board" in await hub.says_no(stolen)
    assert "no proof" in await hub.says_no(RenewRequest(csr_pem(other.tls_key), hub.board.board))


async def test_a_certificate_speaks_for_its_own_board_only(hub: Hub) -> None:
    request = RenewRequest(csr_pem(hub.board.tls_key), board="d" * 16)
    assert "not of" in await hub.says_no(request, peer=hub.board.board)


async def test_a_revoked_board_renews_by_neither(hub: Hub) -> None:
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, hub.board.board, hub.at_ms)
    await hub.says_no(hub.request(), "revoked")
    await hub.says_no(RenewRequest(csr_pem(hub.board.tls_key)), "revoked", peer=hub.board.board)
    # Whoever only names the board does not hear that.
    await hub.says_no(hub.request(challenge="c" * 64), "forbidden")


async def test_failed_attempts_are_slowed_down_by_address(hub: Hub) -> None:
    for _ in range(11):
        await hub.says_no(hub.request(hub="k" * 16), remote="10.0.0.9")
    await hub.says_no(hub.request(), "too-many", remote="10.0.0.9")
    await hub.renewal.renew(hub.request(), remote="10.0.0.8")


async def test_a_board_that_renews_in_a_loop_is_slowed_down(hub: Hub) -> None:
    for _ in range(6):
        await hub.renewal.renew(hub.request())
    await hub.says_no(hub.request(), "too-many")
    hub.at_ms += 60_000
    await hub.renewal.renew(hub.request())


def test_challenges_that_are_only_asked_for_cost_no_memory() -> None:
    at_ms = 0
    challenges = Challenges(lambda: at_ms, most=2)
    texts = {challenges.draw() for _ in range(100)}
    assert len(texts) == 100
    first, second, third = list(texts)[:3]
    challenges.use(first)
    challenges.use(second)
    with pytest.raises(Refused, match="too many boards"):
        challenges.use(third)
    at_ms = CHALLENGE_MS
    challenges.use(challenges.draw())  # those that were used have ended, and their places are free


# --- over TLS ---------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_over_tls_a_certificate_an_ended_one_and_none(short_path: Path) -> None:
    async with Lab(short_path) as lab:
        await lab.start_hub()
        board = Applicant()
        _, joined = await join(lab, board.request(await join_file(lab)))
        context = address(lab, board, joined["certificate_pem"]).tls
        request = RenewRequest(csr_pem(board.tls_key))
        status, answer = await ask(lab, "POST", "/renew", request, shows=context)
        assert status == 200
        assert answer["hub_note"] == joined["hub_note"]
        # The new one is good for the broker and for the next time.
        context = address(lab, board, answer["certificate_pem"]).tls
        assert (await ask(lab, "POST", "/renew", request, shows=context))[0] == 200

        ended = Authority.load(lab.hub_dir / "ca").issue(
            board.board, csr_pem(board.tls_key), START_MS - 4 * YEAR_MS
        )
        with pytest.raises((aiohttp.ClientConnectionError, aiohttp.ClientOSError)):
            await ask(lab, "POST", "/renew", request, shows=address(lab, board, ended.pem).tls)

        hub = (await lab.api("GET", "/hub"))["id"]
        _, drawn = await ask(lab, "GET", "/renew")
        proven = board.renewal(hub, drawn["challenge"])
        assert (await ask(lab, "POST", "/renew", proven))[0] == 200
        status, problem = await ask(lab, "POST", "/renew", proven)
        assert (status, problem["type"]) == (403, "urn:lichen:problem:forbidden")
