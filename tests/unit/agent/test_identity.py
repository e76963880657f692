"""An identity is made once, survives a cut between any two writes, and is never mixed up."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from agent.identity import Identity, Membership, certificate_end_ms, open_identity, recognise, trusting
from agent.wire import note
from agent.wire.errors import Busy, ConfigError, Corrupt, Refused
from support.homehub import HomeHub

KEYS = ("log.key", "seal.key", "tls.key")
JOINED = ("hub.key", "hub.note", "tls.pem", "board.toml")


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return open_identity(tmp_path / "state")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HomeHub:
    return HomeHub(tmp_path_factory.mktemp("home") / "hub")


def test_the_board_is_named_by_its_log_key(identity: Identity) -> None:
    assert identity.board == note.party_id(identity.log_key.public_key)
    assert open_identity(identity.directory) == identity


def test_every_file_is_for_its_owner_only(identity: Identity, hub: HomeHub) -> None:
    hub.admit(identity)
    assert stat.S_IMODE(identity.directory.stat().st_mode) == 0o700
    for name in (*KEYS, *JOINED):
        assert stat.S_IMODE((identity.directory / name).stat().st_mode) == 0o600, name


@pytest.mark.parametrize("there", range(len(KEYS) + 1))
def test_a_cut_between_two_keys_leaves_something_to_continue_from(identity: Identity, there: int) -> None:
    for name in KEYS[there:]:
        (identity.directory / name).unlink()
    again = open_identity(identity.directory)
    assert (again.log_key == identity.log_key) is (there > 0)
    assert (again.seal_key == identity.seal_key) is (there > 1)
    assert "BEGIN CERTIFICATE REQUEST" in again.certificate_request()


@pytest.mark.parametrize("there", range(len(JOINED)))
def test_a_board_has_joined_only_once_all_is_there(identity: Identity, hub: HomeHub, there: int) -> None:
    hub.admit(identity)
    for name in JOINED[there:]:
        (identity.directory / name).unlink()
    assert identity.membership() is None
    assert recognise(identity.directory) is None
    assert open_identity(identity.directory) == identity


def test_what_joining_gave_is_read_back(identity: Identity, hub: HomeHub) -> None:
    hub.admit(identity)
    assert identity.membership() == Membership(identity.board, "pump")
    document = identity.document()
    assert (document.hub, document.name, document.number) == (hub.keys.hub, "north", 1)
    assert recognise(identity.directory) == (Membership(identity.board, "pump"), document)
    context = identity.tls(document.ca_pem, "synced")
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_only_by_a_synced_clock_of_the_kernel_dates_are_looked_at(identity: Identity, hub: HomeHub) -> None:
    no_check_time = 0x200000
    assert not trusting(hub.authority.ca_pem, "synced").verify_flags & no_check_time
    for clock in ("unsynced", "hub"):
        assert trusting(hub.authority.ca_pem, clock).verify_flags & no_check_time  # type: ignore[arg-type]


def test_a_lost_log_key_is_not_replaced_under_an_old_certificate(identity: Identity, hub: HomeHub) -> None:
    hub.admit(identity)
    (identity.directory / "log.key").unlink()
    with pytest.raises(Corrupt, match=r"log\.key is missing"):
        open_identity(identity.directory)


@pytest.mark.parametrize("name", ["log.key", "seal.key"])
def test_a_damaged_key_stops_the_start(identity: Identity, name: str) -> None:
    path = identity.directory / name
    path.write_text(path.read_text()[:-9])
    with pytest.raises(Corrupt, match=name) as caught:
        open_identity(identity.directory)
    assert caught.value.hint


def test_a_key_under_another_name_stops_the_start(identity: Identity) -> None:
    (identity.directory / "log.key").write_text(note.Signer("a" * 16, identity.log_key.seed).skey)
    with pytest.raises(Corrupt, match="not by its own hash"):
        open_identity(identity.directory)


def test_the_files_of_two_boards_do_not_mix(identity: Identity, hub: HomeHub, tmp_path: Path) -> None:
    hub.admit(identity)
    other = open_identity(tmp_path / "other")
    for name in JOINED:
        (other.directory / name).write_bytes((identity.directory / name).read_bytes())
    with pytest.raises(Corrupt, match="is of board"):
        other.membership()
    with pytest.raises(Corrupt, match="do not fit"):
        other.tls(hub.authority.ca_pem, "synced")


def test_a_higher_number_replaces_the_hub_document(identity: Identity, hub: HomeHub) -> None:
    hub.admit(identity)
    assert identity.replace_document(hub.document(1, name="same number")) is None
    newer = identity.replace_document(hub.document(2, name="south"))
    assert newer is not None
    assert newer == identity.document()
    assert identity.replace_document(hub.document(1)) is None
    assert identity.document().name == "south"


def test_a_hub_document_by_anybody_else_is_not_believed(
    identity: Identity, hub: HomeHub, tmp_path: Path
) -> None:
    hub.admit(identity)
    stranger = HomeHub(tmp_path / "stranger")
    renamed = note.Signer(hub.keys.hub, stranger.keys.root.seed)
    for forged in (
        stranger.document(9),
        hub.document(9, signer=renamed),
        hub.document(9, signer=hub.keys.order),
        hub.document(9, hub=stranger.keys.hub),
    ):
        with pytest.raises(Corrupt):
            identity.replace_document(forged)
    assert identity.document().number == 1


def test_a_card_that_cannot_be_read_for_a_moment_is_no_bad_configuration(
    identity: Identity, hub: HomeHub
) -> None:
    hub.admit(identity)
    (identity.directory / "hub.note").unlink()
    (identity.directory / "hub.note").symlink_to("/proc/self/mem")  # reading it is an I/O error
    with pytest.raises(Busy, match="Input/output error"):
        identity.document()


def test_a_missing_file_is_named(identity: Identity, hub: HomeHub) -> None:
    hub.admit(identity)
    (identity.directory / "hub.note").unlink()
    with pytest.raises(ConfigError, match=r"hub\.note"):
        identity.document()


# --- damage, and the certificate ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 40, 300])
@pytest.mark.parametrize("name", ["hub.note", "hub.key"])
def test_a_file_that_is_cut_off_is_damage(identity: Identity, hub: HomeHub, name: str, length: int) -> None:
    hub.admit(identity)
    path = identity.directory / name
    whole = path.read_text()
    path.write_text(whole[: min(length, len(whole) - 2)])
    with pytest.raises(Corrupt, match=name.replace(".", r"\.")) as caught:
        identity.document()
    assert "restore" in caught.value.hint
    with pytest.raises(Corrupt):
        recognise(identity.directory)


def test_a_certificate_tells_when_it_ends_and_when_it_was_given(identity: Identity, hub: HomeHub) -> None:
    issued = hub.authority.issue(identity.board, identity.certificate_request(), 1_764_000_000_000)
    identity.replace_certificate(issued.pem, 1_764_000_000_123)
    assert identity.certificate() == (1_764_000_000_123, issued.not_after_ms)
    assert identity.certificate_until_ms() == issued.not_after_ms
    identity.replace_certificate(issued.pem, None)
    assert identity.certificate() == (None, issued.not_after_ms)
    identity.tls(hub.authority.ca_pem, "synced")  # the line above the certificate disturbs nobody


def test_a_machine_that_cannot_start_openssl_refuses_a_certificate(
    identity: Identity, hub: HomeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.admit(identity)
    pem = (identity.directory / "tls.pem").read_text()
    identity.check_certificate(pem, hub.authority.ca_pem)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "openssl").touch(0o600)
    # An OSError would end the agent, and it would ask the hub for another one at its next start.
    with pytest.raises(Refused, match="openssl cannot be started: Permission denied"):
        identity.check_certificate(pem, hub.authority.ca_pem)


def test_a_certificate_may_end_after_2049(identity: Identity, hub: HomeHub) -> None:
    issued = hub.authority.issue(identity.board, identity.certificate_request(), 2_524_608_000_000)
    assert certificate_end_ms(issued.pem) == issued.not_after_ms
    assert certificate_end_ms(hub.authority.ca_pem) > issued.not_after_ms - 90 * 86_400_000


@pytest.mark.parametrize("cut", [0, 30, 100, 400])
def test_half_a_certificate_is_damage(identity: Identity, hub: HomeHub, cut: int) -> None:
    hub.admit(identity)
    path = identity.directory / "tls.pem"
    body = path.read_text().partition("-----END")[0][:cut]
    path.write_text(f"{body}\n-----END CERTIFICATE-----\n" if cut > 100 else body)
    with pytest.raises(Corrupt, match=r"tls\.pem"):
        identity.certificate()
