"""The hub's certificate authority: the folder ``ca/`` and what it signs.

Owns ca.pem, ca.key, server.pem, server.key, crl.pem, and what describes the last two.  `lichen-hub
init` creates it, the hub opens it, `hub.fleet.joining` and `renewal` let it sign for boards; the
broker and the web server read the files.  It decides nothing about who may have a certificate.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base.files import write_file
from agent.wire.decode import decode, plain
from agent.wire.errors import ConfigError

if TYPE_CHECKING:
    from hub.fleet.certificates import Issued, Issuer

DAY_MS = 24 * 60 * 60 * 1000
YEAR_MS = 365 * DAY_MS
AUTHORITY_MS = 30 * YEAR_MS
SERVER_MS = 10 * YEAR_MS
SERVER_RENEW_MS = 3 * YEAR_MS
BOARD_MS = 90 * DAY_MS
# A revocation list that ends would lock every board out on that day.
REVOCATION_LIST_MS = 50 * YEAR_MS


@dataclass(frozen=True, slots=True)
class _Server:
    """``server.toml``: what the server certificate says, so that a start need not parse X.509."""

    hosts: tuple[str, ...]
    not_after_ms: int


class Authority:
    """The authority in ``folder``; made by `create` once, then opened by `load`."""

    def __init__(self, folder: Path, ca_pem: str) -> None:
        self.folder = folder
        self.ca_pem = ca_pem
        self.ca_sha256 = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem)).hexdigest()

    @classmethod
    def create(cls, folder: Path, hub: str, host: str, now_ms: int) -> Authority:
        """Make the authority of ``hub``, a server certificate for ``host`` and an empty revocation list."""
        from hub.fleet import certificates

        issuer = certificates.new_authority(f"Lichen hub {hub}", now_ms + AUTHORITY_MS)
        write_file(folder / "ca.key", issuer.key_pem)
        write_file(folder / "ca.pem", issuer.certificate_pem)
        authority = cls(folder, issuer.certificate_pem.decode())
        authority.ensure_revoked((), now_ms)
        authority.ensure_server(host, now_ms)
        return authority

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Open the authority.  Raises ConfigError when its certificate cannot be read."""
        path = folder / "ca.pem"
        try:
            return cls(folder, path.read_text("ascii"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", hint="restore ca/ from a backup") from error

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def revocation_list(self) -> Path:
        return self.folder / "crl.pem"

    @property
    def server_certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.folder / "server.key"

    def ensure_server(self, host: str, now_ms: int) -> bool:
        """Have a server certificate for ``host`` that holds for years; True when a new one was made."""
        hosts = server_hosts(host)
        last = self._last_server()
        if last is not None and last.hosts == hosts and last.not_after_ms > now_ms + SERVER_RENEW_MS:
            return False
        self._issue_server(hosts, now_ms)
        return True

    def _last_server(self) -> _Server | None:
        """What the server certificate says; None when there is none that can be used."""
        if not self.server_certificate.exists() or not self.server_key.exists():
            return None
        try:
            described = tomllib.loads((self.folder / "server.toml").read_text("utf-8"))
            return decode(_Server, described, strict=True)
        except (OSError, ValueError, ConfigError):
            return None  # it costs nothing to make another

    def _issue_server(self, hosts: Sequence[str], now_ms: int) -> None:
        import tomli_w

        from hub.fleet import certificates

        described = self.folder / "server.toml"
        key = certificates.new_key()
        issued = certificates.server_certificate(self._issuer(), key, hosts, now_ms + SERVER_MS)
        # The description goes first and comes back last: after a cut in between, the next start
        # finds none and makes another certificate, instead of trusting a key that does not fit.
        described.unlink(missing_ok=True)
        write_file(self.server_key, key)
        write_file(self.server_certificate, issued.pem.encode())
        write_file(described, tomli_w.dumps(plain(_Server(tuple(hosts), issued.not_after_ms))).encode())

    def issue(self, board: str, csr_pem: str, now_ms: int) -> Issued:
        """A certificate for ``board``, good for 90 days; blocks for a millisecond.  Raises Refused."""
        from hub.fleet import certificates

        return certificates.board_certificate(self._issuer(), board, csr_pem, now_ms + BOARD_MS)

    def ensure_revoked(self, serials: Iterable[str], now_ms: int) -> bool:
        """Have a revocation list of exactly these serial numbers (hexadecimal); True when it is a new one."""
        listed = self.folder / "crl.serials"
        wanted = "".join(f"{serial}\n" for serial in sorted(serials))
        if self.revocation_list.exists() and listed.exists() and listed.read_text("ascii") == wanted:
            return False
        # As with the server certificate: the description goes first and comes back last.
        listed.unlink(missing_ok=True)
        self.revoke(wanted.split(), now_ms)
        write_file(listed, wanted.encode())
        return True

    def revoke(self, serials: Iterable[str], now_ms: int) -> None:
        """Write crl.pem: all serial numbers (hexadecimal) that are no longer good."""
        from hub.fleet import certificates

        signed = certificates.revocation_list(self._issuer(), serials, now_ms, now_ms + REVOCATION_LIST_MS)
        write_file(self.revocation_list, signed)

    def server_context(self) -> ssl.SSLContext:
        """TLS for the HTTPS side that boards talk to: asks for a board's certificate, needs none."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.certificate)
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context

    def _issuer(self) -> Issuer:
        from hub.fleet.certificates import Issuer

        try:
            return Issuer(self.ca_pem.encode(), (self.folder / "ca.key").read_bytes())
        except OSError as error:
            raise ConfigError(
                f"the authority's key cannot be read: {error}", hint="restore ca/ from a backup"
            ) from error


def server_hosts(host: str) -> tuple[str, ...]:
    """The names in the server certificate: the configured one, and those of this machine."""
    names = (host, "localhost", "127.0.0.1", "::1", socket.gethostname())
    # RFC 5280, section 4.2.1.6: a DNS name is ASCII, which a machine's own name need not be.
    return tuple(dict.fromkeys(name for name in names if name and name.isascii()))
