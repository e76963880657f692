"""What a board and its hub say to each other over HTTPS, and the document that a hub signs.

`agent.wire.messages` holds what travels over MQTT; the rules for payloads and signed texts stand
there and hold here.  A board joins once (`JoinRequest`), and renews its certificate while it may
(`RenewRequest`): by the certificate that it has, or, when that has expired, by a signature of its
log key over a challenge of the hub.

>>> from agent.wire.messages import compose
>>> compose("renew", RenewProof(hub="k" * 16, challenge="c" * 16, tls_key="PEM")).partition("\\n")[0]
'lichen/renew/v1'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from agent.wire.decode import Length, Match, Range
from agent.wire.messages import Millis, Text


@dataclass(frozen=True, slots=True)
class HubKeys:
    """Verifier keys (`agent.wire.note` key texts) that the root key vouches for."""

    order: Text
    receipt: Text
    time: Text
    command: Text
    release: Text


@dataclass(frozen=True, slots=True)
class HubDocument:
    """``down/hub``, signed by the hub's root key; a higher ``number`` replaces a lower one.

    ``url`` is the hub's HTTPS address for boards, ``mqtt_host`` and ``mqtt_port`` its broker,
    ``ca_pem`` the one certificate authority that both are checked against.
    """

    number: Annotated[int, Range(1, 2**53)]
    hub: str
    name: Text
    issued_ms: Millis
    keys: HubKeys
    ca_pem: Annotated[str, Length(1, 16384)]
    url: Text
    mqtt_host: Text
    mqtt_port: Annotated[int, Range(1, 65535)]


@dataclass(frozen=True, slots=True)
class JoinFile:
    """What a technician puts on a card: where the hub is, how to know it, and a token."""

    hub_url: Text
    hub_key: Text
    ca_sha256: Annotated[str, Match(r"[0-9a-f]{64}", "64 hexadecimal digits")]
    token: Annotated[str, Length(16, 128)]


@dataclass(frozen=True, slots=True)
class JoinProof:
    """What a board's log key signs to join (kind "join"): bound to hub, token and both keys.

    ``token_sha256`` in hexadecimal; ``tls_key`` the PEM of the public key in the request;
    ``seal_key`` as in `agent.wire.seal`.
    """

    hub: str
    token_sha256: Annotated[str, Match(r"[0-9a-f]{64}", "64 hexadecimal digits")]
    tls_key: Annotated[str, Length(1, 4096)]
    seal_key: Text


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """``POST /join``: ``csr_pem`` is the TLS certificate request, ``proof`` a signed note."""

    token: Annotated[str, Length(16, 128)]
    log_key: Text
    seal_key: Text
    csr_pem: Annotated[str, Length(1, 8192)]
    proof: Annotated[str, Length(1, 8192)]


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """The hub's answer: the board's certificate chain and the signed hub document."""

    board: str
    certificate_pem: Annotated[str, Length(1, 16384)]
    hub_note: Annotated[str, Length(1, 65536)]
    name: Text = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """``GET /renew``: what a board has to sign to renew without a valid certificate; good for a minute."""

    challenge: Annotated[str, Length(16, 128)]


@dataclass(frozen=True, slots=True)
class RenewProof:
    """What a board's log key signs to renew (kind "renew"): bound to hub, challenge and TLS key (PEM)."""

    hub: str
    challenge: Annotated[str, Length(16, 128)]
    tls_key: Annotated[str, Length(1, 4096)]


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """``POST /renew``: a certificate request; with ``board`` and ``proof``, a signed note, when no
    valid certificate speaks for the board."""

    csr_pem: Annotated[str, Length(1, 8192)]
    board: Text = ""
    proof: Annotated[str, Length(0, 8192)] = ""


@dataclass(frozen=True, slots=True)
class RenewAnswer:
    """The hub's answer: the new certificate chain, and the signed hub document of now."""

    certificate_pem: Annotated[str, Length(1, 16384)]
    hub_note: Annotated[str, Length(1, 65536)]
