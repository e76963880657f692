"""A board's side of joining, written against the contract and not against the agent's code.

It can lie: every field of a request and of its proof can be replaced.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.base import broker
from agent.wire import note, seal
from agent.wire.decode import decode
from agent.wire.joining import JoinFile, JoinProof, JoinRequest, RenewProof, RenewRequest
from agent.wire.messages import compose
from agent.wire.plain import plain
from hub.store.secrets import fingerprint
from support.lab import Lab


@dataclass
class Applicant:
    """A machine with keys of its own that wants to join."""

    log_key: note.Signer = field(default_factory=note.generate)
    seal_key: seal.SealKey = field(default_factory=seal.generate)
    tls_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def board(self) -> str:
        """The id that a hub must give it."""
        return note.party_id(self.log_key.public_key)

    @property
    def tls_key_pem(self) -> bytes:
        """The private key as a file for OpenSSL."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.tls_key.private_bytes(encoding, form, serialization.NoEncryption())

    def request(self, file: JoinFile, *, proven: dict[str, Any] | None = None, **lies: Any) -> JoinRequest:
        """An honest request but for ``lies`` about its fields, and ``proven`` about those of the proof."""
        hub = note.Verifier.parse(file.hub_key).name
        honest = JoinProof(hub, fingerprint(file.token), public_pem(self.tls_key), self.seal_key.public)
        request = JoinRequest(
            token=file.token,
            log_key=self.log_key.vkey,
            seal_key=self.seal_key.public,
            csr_pem=csr_pem(self.tls_key),
            proof=note.sign(compose("join", replace(honest, **(proven or {}))), self.log_key),
        )
        return replace(request, **lies)

    def renewal(self, hub: str, challenge: str, *, proven: dict[str, Any] | None = None) -> RenewRequest:
        """A request to renew by the log key, honest but for ``proven`` about fields of the proof."""
        honest = RenewProof(hub, challenge, public_pem(self.tls_key))
        proof = note.sign(compose("renew", replace(honest, **(proven or {}))), self.log_key)
        return RenewRequest(csr_pem(self.tls_key), self.board, proof)


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key as the openssl command prints it."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def csr_pem(key: Any, common_name: str = "somebody") -> str:
    """A certificate request that asks for more than it will get: another name, to be an authority."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    algorithm = (
        hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) or hasattr(key, "key_size") else None
    )
    return request.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


# --- with a running hub -------------------------------------------------------------------------------


async def join(lab: Lab, body: object) -> tuple[int, dict[str, Any]]:
    """Post to /join as a board does, with the hub's own authority; returns status and JSON."""
    return await ask(lab, "POST", "/join", body)


async def ask(
    lab: Lab, method: str, path: str, body: object = None, *, shows: ssl.SSLContext | None = None
) -> tuple[int, dict[str, Any]]:
    """Ask the port for boards; ``shows`` is a context with a client certificate."""
    context = shows or ssl.create_default_context(cafile=lab.hub_dir / "ca" / "ca.pem")
    url = f"https://127.0.0.1:{lab.board_port}{path}"
    data = body if body is None or isinstance(body, bytes) else json.dumps(plain(body)).encode()
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, url, data=data, ssl=context) as response,
    ):
        return response.status, await response.json(content_type=None)


async def join_file(lab: Lab, **options: Any) -> JoinFile:
    """A new token from the hub's API, as the file that goes onto a card."""
    return decode(JoinFile, (await lab.new_token(**options))["join_file"])


def address(lab: Lab, applicant: Applicant, certificate_pem: str) -> broker.Address:
    """Where the hub's broker is, with a client certificate."""
    chain = lab.dir / f"{applicant.board}.pem"
    chain.write_bytes(certificate_pem.encode() + applicant.tls_key_pem)
    context = ssl.create_default_context(cafile=lab.hub_dir / "ca" / "ca.pem")
    context.load_cert_chain(chain)
    return broker.Address(
        client_id=applicant.board, host="127.0.0.1", port=lab.mqtt_port, tls=context, timeout_s=5
    )
