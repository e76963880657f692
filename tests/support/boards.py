"""Certificates for boards and a hub's broker around them, without the rest of a hub."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hub.fleet.authority import Authority
from hub.fleet.mosquitto import Settings

ALICE = "a" * 16
BOB = "b" * 16


@dataclass(frozen=True)
class Certified:
    """A board's certificate and key in files, and its serial number as `Authority.revoke` wants it."""

    certificate: Path
    key: Path
    serial: str

    def context(self, ca: Path) -> ssl.SSLContext:
        """TLS as this board speaks it to whoever ``ca`` vouches for."""
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(self.certificate, self.key)
        return context


def new_authority(directory: Path) -> Authority:
    """A hub's authority with all its files, for 127.0.0.1."""
    directory.mkdir(exist_ok=True)
    return Authority.create(directory, "test", "127.0.0.1", time.time_ns() // 1_000_000)


def certify(authority: Authority, board: str, directory: Path) -> Certified:
    """Let the authority sign a new key for ``board``."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr_pem = request.public_bytes(serialization.Encoding.PEM).decode()
    issued = authority.issue(board, csr_pem, time.time_ns() // 1_000_000)
    certificate_file, key_file = directory / f"{board}.pem", directory / f"{board}.key"
    certificate_file.write_text(issued.pem)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Certified(certificate_file, key_file, issued.serial)


def broker_settings(authority: Authority, directory: Path, port: int) -> Settings:
    """A hub's broker in ``directory`` on a port of the loopback."""
    return Settings(
        dir=directory,
        listen="127.0.0.1",
        port=port,
        ca=authority.folder / "ca.pem",
        certificate=authority.server_certificate,
        key=authority.server_key,
        crl=authority.folder / "crl.pem",
    )
