"""X.509 as Lichen uses it: one authority per hub, certificates for its broker and its boards.

Owns every field of a certificate; pure functions over PEM, no files.  `hub.fleet.authority` is
the only caller and imports this late, because `cryptography` takes 8 MB that a hub which signs
nothing can do without.

All are valid from 2020 on: a board without a battery starts in some past year, and must still
accept its hub.  Nothing of a request but its public key reaches a certificate.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire.errors import Corrupt, Refused

VALID_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
BoardKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Issuer:
    """The authority's certificate and key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate: PEM, serial number in hexadecimal, end of validity."""

    pem: str
    serial: str
    not_after_ms: int


def new_key() -> bytes:
    """A new P-256 private key, PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def new_authority(name: str, until_ms: int) -> Issuer:
    """A self-signed authority that may sign leaves and revocation lists, and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), until_ms, ca=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    return Issuer(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _key_pem(key))


def server_certificate(issuer: Issuer, key_pem: bytes, hosts: Sequence[str], until_ms: int) -> Issued:
    """A serverAuth certificate for ``hosts`` (names and addresses); the first is its common name."""
    key = serialization.load_pem_private_key(key_pem, None).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), "server keys are made by new_key"
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return _leaf(issuer, hosts[0], key, ExtendedKeyUsageOID.SERVER_AUTH, until_ms, names)


def board_certificate(issuer: Issuer, board: str, csr_pem: str, until_ms: int) -> Issued:
    """A clientAuth certificate named ``board`` for the key in a request.  Raises Refused."""
    return _leaf(issuer, board, _request_key(csr_pem), ExtendedKeyUsageOID.CLIENT_AUTH, until_ms)


def request_key(csr_pem: str) -> bytes:
    """The DER of the public key in a request that its holder signed.  Raises Refused."""
    return _der(_request_key(csr_pem))


def public_key(pem: str) -> bytes:
    """The DER of a public key in PEM.  Raises Refused."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("the TLS key of the proof is not a public key in PEM") from error
    return _der(_allowed(key))


def revocation_list(issuer: Issuer, serials: Iterable[str], at_ms: int, until_ms: int) -> bytes:
    """The signed list of revoked serial numbers (hexadecimal), PEM; good from 2020 on like all else."""
    certificate, key = _load(issuer)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(VALID_FROM)
        .next_update(_time(until_ms))
        .add_extension(_issuer_id(certificate), critical=False)
        # RFC 5280, section 5.2.3: a number that grows; the time of signing does.
        .add_extension(x509.CRLNumber(at_ms), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(VALID_FROM)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _leaf(
    issuer: Issuer,
    name: str,
    key: BoardKey,
    purpose: x509.ObjectIdentifier,
    until_ms: int,
    names: x509.SubjectAlternativeName | None = None,
) -> Issued:
    authority, authority_key = _load(issuer)
    until_ms = min(until_ms, _milliseconds(authority.not_valid_after_utc))
    builder = (
        _builder(_name(name), authority.subject, key, until_ms, ca=False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_issuer_id(authority), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(authority_key, hashes.SHA256())
    return Issued(
        pem=signed.public_bytes(serialization.Encoding.PEM).decode(),
        serial=f"{signed.serial_number:x}",
        not_after_ms=_milliseconds(signed.not_valid_after_utc),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: BoardKey, until_ms: int, *, ca: bool
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        # RFC 5280, section 4.1.2.2: at most 20 octets, unique; 159 random bits are both.
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(_time(until_ms))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _request_key(csr_pem: str) -> BoardKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Refused("the TLS certificate request is not a PKCS #10 request in PEM") from error
    if not signed:
        raise Refused("the TLS certificate request is not signed by the key in it")
    return _allowed(key)


def _allowed(key: object) -> BoardKey:
    """The two kinds of key that a board may have: small, fast, and without choices to get wrong."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise Refused(
        "the TLS key is neither of EC P-256 nor Ed25519", hint="openssl ecparam -name prime256v1 -genkey"
    )


def _load(issuer: Issuer) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(issuer.certificate_pem)
        key = serialization.load_pem_private_key(issuer.key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Corrupt(
            f"the hub's authority cannot be read: {error}", hint="restore ca/ from a backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise Corrupt("the key and the certificate of the hub's authority do not belong together",
                      hint="restore ca/ from a backup")  # fmt: skip
    return certificate, key


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_id(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    # RFC 5280, appendix A.1: a common name has at most 64 characters.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _der(key: BoardKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _time(at_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)


def _milliseconds(at: dt.datetime) -> int:
    return int(at.timestamp() * 1000)
