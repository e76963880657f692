"""Certificates for simulated boards, by the authority of a real hub.

They are what joining would give: a key of its own for each board, its id as the common name.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hub.fleet.authority import Authority


def issue(authority: Path, boards: Sequence[str], folder: Path) -> None:
    """Write ``ca.pem`` and a ``<board>.pem`` with key and certificate for each board into ``folder``."""
    folder.mkdir()
    hub = Authority.load(authority)
    shutil.copy(hub.certificate, folder / "ca.pem")
    now_ms = time.time_ns() // 1_000_000
    for board in boards:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        issued = hub.issue(board, request.public_bytes(serialization.Encoding.PEM).decode(), now_ms)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{board}.pem").write_bytes(private + issued.pem.encode())
