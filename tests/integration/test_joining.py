"""Joining, rule by rule: what a stranger sends, and what the hub says and writes.

The store, the keys and the authority are real; the clock is turned by the test.  The same over
HTTPS with a running hub is in test_hub_process.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire import note, seal
from agent.wire.errors import Refused
from agent.wire.joining import JoinFile
from hub.access.keys import Keyring
from hub.config import Config
from hub.fleet.authority import Authority
from hub.fleet.joining import Joining
from hub.store import boards, certificates, events, tokens
from hub.store.database import Store
from support.applicant import Applicant, csr_pem, public_pem
from support.blank import new_store

START_MS = 1_780_000_000_000
HOUR_MS = 3_600_000


class Hub:
    """A hub's joining with its store, and a clock that stands until it is turned."""

    def __init__(self, store: Store, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.at_ms = START_MS
        self.put_out = 0
        self.store = store
        self.keys = Keyring.generate()
        self.authority = Authority.create(directory, self.keys.hub, "127.0.0.1", START_MS)
        self.joining = Joining(
            store,
            self.authority,
            self.keys,
            Config(name="north"),
            lambda: self.at_ms,
            document=lambda: "the hub document",
            put_out=self._put_out,
            renew_orders=lambda: None,
            executor=executor,
        )

    async def _put_out(self) -> None:
        self.put_out += 1

    async def token(
        self, name: str = "", uses: int = 1, replaces: str | None = None, **labels: str
    ) -> JoinFile:
        """A join file with a new token, good for an hour."""
        async with self.store.write() as tx:
            _, secret = await tokens.new_token(
                tx,
                name=name,
                labels=labels,
                uses=uses,
                expires_ms=self.at_ms + HOUR_MS,
                now_ms=self.at_ms,
                replaces=replaces,
            )
        return self.joining.join_file(secret)

    async def says_no(self, request: object, code: str = "forbidden", remote: str = "") -> str:
        """Join in vain; returns what the hub says."""
        with pytest.raises(Refused) as caught:
            await self.joining.join(request, remote)  # type: ignore[arg-type]
        assert caught.value.code == code, str(caught.value)
        return str(caught.value)

    async def boards(self) -> list[boards.BoardRow]:
        async with self.store.read() as tx:
            return await boards.list_boards(tx)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with new_store(tmp_path / "hub.db") as store:
        with ThreadPoolExecutor(1) as executor:
            yield Hub(store, tmp_path, executor)


# --- the way it should be ------------------------------------------------------------------------------


async def test_a_board_joins(hub: Hub) -> None:
    file = await hub.token("pump", site="north")
    board = Applicant()
    answer = await hub.joining.join(board.request(file))
    assert (answer.board, answer.name, answer.hub_note) == (board.board, "pump", "the hub document")
    found = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert found.subject.rfc4514_string() == f"CN={board.board}"
    assert found.public_key() == board.tls_key.public_key()
    [row] = await hub.boards()
    assert (row.id, row.name, row.labels, row.joined_ms) == (board.board, "pump", {"site": "north"}, START_MS)
    assert (row.log_key, row.seal_key) == (board.log_key.vkey, board.seal_key.public)
    async with hub.store.read() as tx:
        [event] = await events.list_events(tx)
        [token] = await tokens.list_tokens(tx)
    assert (event.kind, event.board, token.used, token.boards) == ("joined", board.board, 1, (board.board,))


async def test_the_join_file_names_hub_key_and_authority(hub: Hub) -> None:
    file = await hub.token()
    assert file.hub_url == "https://127.0.0.1:8421"
    assert note.Verifier.parse(file.hub_key) == hub.keys.root.verifier
    assert file.ca_sha256 == hub.authority.ca_sha256
    assert len(file.token) == 26


async def test_without_a_name_the_board_is_called_by_its_id(hub: Hub) -> None:
    board = Applicant()
    answer = await hub.joining.join(board.request(await hub.token()))
    assert answer.name == f"board-{board.board[:4]}"


async def test_one_token_lets_several_boards_in_under_different_names(hub: Hub) -> None:
    file = await hub.token("pump", uses=3)
    names = [(await hub.joining.join(Applicant().request(file))).name for _ in range(3)]
    assert names == ["pump", "pump-2", "pump-3"]
    assert "used" in await hub.says_no(Applicant().request(file))


async def test_a_lost_answer_is_given_again_to_the_same_key(hub: Hub) -> None:
    file = await hub.token("pump")
    board = Applicant()
    first = await hub.joining.join(board.request(file))
    board.tls_key = ec.generate_private_key(ec.SECP256R1())
    hub.at_ms += 2 * HOUR_MS  # the token has expired by now; that is no reason to strand the board
    second = await hub.joining.join(board.request(file))
    assert (second.board, second.name) == (first.board, first.name)
    assert second.certificate_pem != first.certificate_pem
    async with hub.store.read() as tx:
        assert [token.used for token in await tokens.list_tokens(tx)] == [1]
        assert len(await events.list_events(tx)) == 1


async def test_a_known_board_joins_again_with_a_new_token_and_keeps_its_name(hub: Hub) -> None:
    board = Applicant()
    await hub.joining.join(board.request(await hub.token("pump")))
    async with hub.store.write() as tx:
        await boards.rename_board(tx, board.board, "pump at the well")
    board.seal_key = seal.generate()
    answer = await hub.joining.join(board.request(await hub.token("other")))
    assert answer.name == "pump at the well"
    [row] = await hub.boards()
    assert row.seal_key == board.seal_key.public


# --- tokens ----------------------------------------------------------------------------------------------


async def test_a_wrong_token_hears_one_sentence_whatever_else_is_wrong(hub: Hub) -> None:
    file = await hub.token()
    wrong = JoinFile(file.hub_url, file.hub_key, file.ca_sha256, "a" * 26)
    said = {
        await hub.says_no(Applicant().request(wrong)),
        await hub.says_no(Applicant().request(wrong, log_key="garbage")),
        await hub.says_no(Applicant().request(wrong, csr_pem="garbage", proof="garbage")),
    }
    assert said == {"this hub knows no such join token"}


async def test_an_expired_token(hub: Hub) -> None:
    file = await hub.token()
    hub.at_ms += HOUR_MS + 3 * HOUR_MS
    assert "expired 3 h ago" in await hub.says_no(Applicant().request(file), "expired")
    assert await hub.boards() == []


async def test_a_used_token_is_worth_nothing_to_another_key(hub: Hub) -> None:
    file = await hub.token()
    await hub.joining.join(Applicant().request(file))
    assert "used by another board" in await hub.says_no(Applicant().request(file))
    assert len(await hub.boards()) == 1


async def test_a_revoked_token_ends_even_for_the_board_that_used_it(hub: Hub) -> None:
    file = await hub.token()
    board = Applicant()
    await hub.joining.join(board.request(file))
    async with hub.store.write() as tx:
        [token] = await tokens.list_tokens(tx)
        await tokens.revoke_token(tx, token.id, hub.at_ms)
    assert "revoked" in await hub.says_no(board.request(file))


async def test_who_guesses_tokens_has_to_wait_and_others_have_not(hub: Hub) -> None:
    file = await hub.token(uses=9)
    wrong = JoinFile(file.hub_url, file.hub_key, file.ca_sha256, "a" * 26)
    for _ in range(11):
        await hub.says_no(Applicant().request(wrong), remote="10.0.0.66")
    await hub.says_no(Applicant().request(file), "too-many", remote="10.0.0.66")
    await hub.joining.join(Applicant().request(file), "10.0.0.7")
    hub.at_ms += 1000
    await hub.joining.join(Applicant().request(file), "10.0.0.66")


# --- proofs ----------------------------------------------------------------------------------------------


async def test_an_id_claimed_without_its_key(hub: Hub) -> None:
    victim, thief = Applicant(), Applicant()
    await hub.joining.join(victim.request(await hub.token("victim")))
    file = await hub.token()
    # Its name on another key; its key with another's signature; its key and a proof that it made before.
    named = note.Verifier(victim.board, thief.log_key.public_key).vkey
    assert "a board with this key is" in await hub.says_no(thief.request(file, log_key=named))
    assert "not signed by the log key" in await hub.says_no(thief.request(file, log_key=victim.log_key.vkey))
    old = victim.request(await hub.token("another")).proof
    assert "another token" in await hub.says_no(thief.request(file, log_key=victim.log_key.vkey, proof=old))
    assert [row.name for row in await hub.boards()] == ["victim"]


async def test_a_proof_is_bound_to_hub_token_and_both_keys(hub: Hub) -> None:
    file = await hub.token()
    board, other = Applicant(), Applicant()
    for proven, what in [
        ({"hub": other.board}, "another hub"),
        ({"token_sha256": "0" * 64}, "another token"),
        ({"tls_key": public_pem(other.tls_key)}, "another TLS key"),
        ({"seal_key": other.seal_key.public}, "another sealing key"),
    ]:
        assert what in await hub.says_no(board.request(file, proven=proven))
    swapped = board.request(file, csr_pem=csr_pem(other.tls_key), seal_key=other.seal_key.public)
    assert "another TLS key and sealing key" in await hub.says_no(swapped)
    assert await hub.boards() == []
    await hub.joining.join(board.request(file))


async def test_weak_keys_are_refused(hub: Hub) -> None:
    file = await hub.token()
    board = Applicant()
    # The neutral point: one signature under it fits every text.
    neutral = bytes([1]) + bytes(31)
    name = note.party_id(neutral)
    hashed = _key_id(name, neutral).hex()
    vkey = f"{name}+{hashed}+{base64.b64encode(bytes([1]) + neutral).decode()}"
    assert "prime order" in await hub.says_no(board.request(file, log_key=vkey), "invalid")
    zero = base64.b64encode(bytes(32)).decode()
    assert "low order" in await hub.says_no(
        board.request(file, seal_key=zero, proven={"seal_key": zero}), "invalid"
    )


def _key_id(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]


@pytest.mark.parametrize("garbage", ["x", "\x00", "—", "lichen/join/v1\n{}\n", "a" * 8000])
async def test_garbage_is_refused_in_words(hub: Hub, garbage: str) -> None:
    file = await hub.token()
    for part in ("log_key", "seal_key", "csr_pem", "proof"):
        await hub.says_no(Applicant().request(file, **{part: garbage}), "invalid")
    await hub.says_no(Applicant().request(file, proven={"tls_key": garbage}), "invalid")
    assert await hub.boards() == []
    await hub.joining.join(Applicant().request(file))


# --- revocation ------------------------------------------------------------------------------------------


async def test_a_revoked_board_stays_out_and_its_certificates_are_on_the_list(hub: Hub) -> None:
    board = Applicant()
    file = await hub.token()
    answer = await hub.joining.join(board.request(file))
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, board.board, hub.at_ms)
    assert "was revoked" in await hub.says_no(board.request(file), "revoked")
    assert "was revoked" in await hub.says_no(board.request(await hub.token()), "revoked")
    async with hub.store.read() as tx:
        serials = await certificates.revoked_serials(tx)
    found = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert serials == [f"{found.serial_number:x}"]


# --- in place of another -------------------------------------------------------------------------------


async def test_a_new_card_takes_name_and_labels_of_the_old_one(hub: Hub) -> None:
    old, new = Applicant(), Applicant()
    await hub.joining.join(old.request(await hub.token("pump", site="north")))
    file = await hub.token(replaces=old.board)
    hub.at_ms += 5
    answer = await hub.joining.join(new.request(file))
    assert (answer.board, answer.name, hub.put_out) == (new.board, "pump", 1)
    [row] = await hub.boards()
    assert (row.id, row.name, row.labels) == (new.board, "pump", {"site": "north"})
    async with hub.store.read() as tx:
        gone = await boards.get_board(tx, old.board)
        events_of = {board: await events.list_events(tx, board=board) for board in (old.board, new.board)}
        serials = await certificates.revoked_serials(tx)
    assert (gone.name, gone.revoked_ms, gone.replaced_by) == ("pump-replaced", hub.at_ms, new.board)
    assert len(serials) == 1
    assert events_of[old.board][0].kind == "replaced"
    assert f"in place of {old.board}" in events_of[new.board][0].text
    # A lost answer is given again, and replaces nobody twice; the old one is out.
    assert (await hub.joining.join(new.request(file))).name == "pump"
    assert "was revoked" in await hub.says_no(old.request(await hub.token()), "revoked")
    assert len(await hub.boards()) == 1


async def test_one_place_is_taken_once(hub: Hub) -> None:
    old = Applicant()
    await hub.joining.join(old.request(await hub.token("pump")))
    first, second = await hub.token(replaces=old.board), await hub.token(replaces=old.board)
    await hub.joining.join(Applicant().request(first))
    assert "has been replaced" in await hub.says_no(Applicant().request(second), "conflict")
    assert [row.name for row in await hub.boards()] == ["pump"]


async def test_a_board_that_kept_its_keys_replaces_nobody(hub: Hub) -> None:
    pump, other = Applicant(), Applicant()
    await hub.joining.join(pump.request(await hub.token("pump")))
    await hub.joining.join(other.request(await hub.token("valve")))
    file = await hub.token(replaces=pump.board)
    assert "has joined as" in await hub.says_no(other.request(file), "conflict")
    assert (await hub.joining.join(pump.request(file))).name == "pump"
    assert [row.name for row in await hub.boards()] == ["pump", "valve"]


async def test_a_board_that_was_revoked_before_can_be_replaced(hub: Hub) -> None:
    old, new = Applicant(), Applicant()
    await hub.joining.join(old.request(await hub.token("pump")))
    async with hub.store.write() as tx:
        await boards.revoke_board(tx, old.board, 7)
    await hub.joining.join(new.request(await hub.token(replaces=old.board)))
    async with hub.store.read() as tx:
        gone = await boards.get_board(tx, old.board)
    assert (gone.revoked_ms, gone.replaced_by) == (7, new.board)
