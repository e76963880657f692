"""The hub's keys, its hub document and its certificates, checked by OpenSSL where it can be."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agent.wire import note
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.joining import HubDocument
from agent.wire.messages import read_text
from hub.access.keys import Keyring, current_document, describe
from hub.config import Config
from hub.fleet.authority import BOARD_MS, DAY_MS, SERVER_MS, SERVER_RENEW_MS, Authority
from hub.store.database import Store
from support.applicant import csr_pem

NOW_MS = 1_780_000_000_000
BOARD = "k3yd5q7c2n4xw6ba"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"), "hubhubhubhubhubh", "hub.example.org", NOW_MS)


# --- keys ------------------------------------------------------------------------------------------


def test_keys_are_named_after_the_hub_and_read_back(tmp_path: Path) -> None:
    keys = Keyring.generate()
    keys.save(tmp_path)
    assert Keyring.load(tmp_path) == keys
    assert keys.root.name == keys.hub == note.party_id(keys.root.public_key)
    assert [keys.order.name, keys.release.name] == [f"{keys.hub}/order", f"{keys.hub}/release"]
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}


def test_a_lost_key_is_named(tmp_path: Path) -> None:
    Keyring.generate().save(tmp_path)
    (tmp_path / "time.key").unlink()
    with pytest.raises(ConfigError, match=r"time\.key"):
        Keyring.load(tmp_path)


def test_keys_of_two_hubs_are_not_mixed(tmp_path: Path) -> None:
    Keyring.generate().save(tmp_path)
    order = (tmp_path / "order.key").read_bytes()
    Keyring.generate().save(tmp_path)
    (tmp_path / "order.key").write_bytes(order)
    with pytest.raises(Corrupt, match=r"order\.key"):
        Keyring.load(tmp_path)


# --- the hub document ----------------------------------------------------------------------------------


async def test_the_document_gets_a_higher_number_only_when_it_says_something_else(tmp_path: Path) -> None:
    keys = Keyring.generate()
    config = Config(name="north")
    async with Store.open(tmp_path / "hub.db") as store:

        async def document(config: Config, now_ms: int) -> HubDocument:
            signed = await current_document(store, tmp_path, keys, describe(keys, config, "PEM"), now_ms)
            return read_text("hub", HubDocument, note.open_note(signed.text, keys.root.verifier))

        first = await document(config, 5)
        assert (first.number, first.hub, first.issued_ms, first.url) == (
            1,
            keys.hub,
            5,
            "https://127.0.0.1:8421",
        )
        assert note.Verifier.parse(first.keys.order) == keys.order.verifier
        assert await document(config, 9) == first
        second = await document(replace(config, mqtt_port=99), 9)
        assert (second.number, second.mqtt_port, second.issued_ms) == (2, 99, 9)
        # The file is gone, the number is remembered.
        (tmp_path / "hub.note").unlink()
        assert (await document(config, 10)).number == 3
        # A document that this hub did not sign is not replaced silently.
        (tmp_path / "hub.note").write_text(note.sign("lichen/hub/v1\n{}\n", Keyring.generate().root))
        with pytest.raises(Corrupt, match=r"hub\.note"):
            await document(config, 11)


# --- certificates --------------------------------------------------------------------------------------


def test_a_board_certificate_holds_the_hubs_words_and_only_the_key_of_the_request(
    authority: Authority,
) -> None:
    csr = csr_pem(ec.generate_private_key(ec.SECP256R1()), common_name="admin")
    issued = authority.issue(BOARD, csr, NOW_MS)
    found = x509.load_pem_x509_certificate(issued.pem.encode())
    assert found.subject.rfc4514_string() == f"CN={BOARD}"
    assert found.not_valid_before_utc.year == 2020
    assert issued.not_after_ms == NOW_MS + BOARD_MS == int(found.not_valid_after_utc.timestamp()) * 1000
    assert int(issued.serial, 16) == found.serial_number
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_each_certificate_has_a_serial_number_of_its_own(authority: Authority) -> None:
    csr = csr_pem(ed25519.Ed25519PrivateKey.generate())
    assert len({authority.issue(BOARD, csr, NOW_MS).serial for _ in range(5)}) == 5


def test_openssl_accepts_what_was_signed_and_refuses_what_was_revoked(
    authority: Authority, tmp_path: Path
) -> None:
    good, bad = (
        authority.issue(BOARD, csr_pem(ec.generate_private_key(ec.SECP256R1())), NOW_MS) for _ in range(2)
    )
    (tmp_path / "good.pem").write_text(good.pem)
    (tmp_path / "bad.pem").write_text(bad.pem)
    authority.revoke([bad.serial], NOW_MS)
    assert verify(authority, tmp_path / "good.pem", "sslclient") == ""
    assert "certificate revoked" in verify(authority, tmp_path / "bad.pem", "sslclient")
    assert verify(authority, authority.server_certificate, "sslserver") == ""
    assert "unsuitable certificate purpose" in verify(authority, tmp_path / "good.pem", "sslserver")
    # A board's clock may stand in 2020, or after every board certificate has ended.
    for at_ms in (1_577_900_000_000, NOW_MS + 9 * 365 * DAY_MS):
        assert verify(authority, authority.server_certificate, "sslserver", at_ms) == ""
    authority.revoke([], NOW_MS)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p384", "rsa"],
)
def test_other_kinds_of_keys(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(Refused, match="neither of EC P-256 nor Ed25519"):
        authority.issue(BOARD, csr_pem(key), NOW_MS)


def test_a_request_signed_by_another_key(authority: Authority) -> None:
    pem = csr_pem(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")))
    der[-1] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises(Refused, match="not signed by the key in it"):
        authority.issue(BOARD, forged, NOW_MS)


@pytest.mark.parametrize(
    "garbage", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_garbage_is_no_request(authority: Authority, garbage: str) -> None:
    with pytest.raises(Refused, match="PKCS #10"):
        authority.issue(BOARD, garbage, NOW_MS)


def test_the_server_certificate_follows_the_host_and_does_not_run_out(authority: Authority) -> None:
    before = authority.server_certificate.read_bytes()
    assert not authority.ensure_server("hub.example.org", NOW_MS)
    assert authority.server_certificate.read_bytes() == before
    assert authority.ensure_server("192.168.7.5", NOW_MS)
    found = x509.load_pem_x509_certificate(authority.server_certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "192.168.7.5" in map(str, names.get_values_for_type(x509.IPAddress))
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert authority.ensure_server("192.168.7.5", NOW_MS + SERVER_MS - SERVER_RENEW_MS)


@pytest.mark.parametrize("name", ["server.toml", "server.pem", "server.key"])
def test_a_lost_part_of_the_server_certificate_is_made_again(authority: Authority, name: str) -> None:
    authority.ensure_server("127.0.0.1", NOW_MS)
    (authority.folder / name).unlink()
    assert authority.ensure_server("127.0.0.1", NOW_MS)
    authority.server_context()
    (authority.folder / "server.toml").write_text("hosts = 5")
    assert authority.ensure_server("127.0.0.1", NOW_MS)


def test_an_authority_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Authority.load(tmp_path)


def verify(authority: Authority, certificate: Path, purpose: str, at_ms: int = NOW_MS) -> str:
    """What OpenSSL complains about, strictly; empty when it accepts."""
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", authority.folder / "ca.pem", "-purpose", purpose]
    argv += [
        "-crl_check",
        "-CRLfile",
        authority.folder / "crl.pem",
        "-attime",
        str(at_ms // 1000),
        certificate,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr
