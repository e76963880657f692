"""What the doctor looks at between the board and its hub: network, name, HTTPS, clock, broker.

Called by `agent.doctor`.  It speaks to the hub as any board may: /ca.pem and /healthz over HTTPS,
and with the broker a TLS handshake by the board's certificate, never a session, which would end
the one of the running agent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from agent.clock import Clock
from agent.doctor.line import Line, Lines, apart
from agent.doctor.patient import Patient
from agent.identity import RESTORE, certificate_end_ms, trusting
from agent.join import read_join_file
from agent.sensors.blocking import Threads
from agent.wire import words
from agent.wire.errors import Corrupt, LichenError, LinkDown, Refused
from agent.wire.joining import JoinFile
from agent.wire.messages import ClockState

STEP_S = 5.0
"""How long one step may take: a name, a connection, a handshake, an answer."""
VERDICT_S = 1.0
"""With TLS 1.3 a server refuses a certificate after the handshake: so long the board listens for that."""
MAX_ANSWER = 64 * 1024
APART_MS = 60_000
"""A difference of clocks that nobody's network explains."""
PROC = Path("/proc")

FIREWALL = "check the address, and that no firewall or router drops it"
REASONS = {
    errno.ECONNREFUSED: ("nothing listens there", "is the hub running? are its ports the right ones?"),
    errno.EHOSTUNREACH: ("no machine answers at that address", "is the hub switched on, in this network?"),
    errno.ENETUNREACH: ("there is no way to that network", "is the cable in, the Wi-Fi joined?"),
    errno.ETIMEDOUT: (f"no answer within {STEP_S:g} s", FIREWALL),
}


# --- network -----------------------------------------------------------------------------------


async def network(threads: Threads) -> Lines:
    """Whether an interface is up with an address, and there is a way out."""
    return await apart(threads, _look_at_network)


def _look_at_network() -> Lines:
    import psutil  # as heavy as all the rest

    states, known = psutil.net_if_stats(), psutil.net_if_addrs()
    held = {
        name: [address for each in known.get(name, ()) if (address := _global(each.family, each.address))]
        for name, state in states.items()
        if state.isup and name != "lo"
    }
    told = [f"{name} has {addresses[0]}" for name, addresses in held.items() if addresses]
    if not told:
        listed = ", ".join(sorted(set(states) - {"lo"})) or "none"
        said = f"no interface is up with an address (there are: {listed})"
        return [Line("network", "fail", said, "plug in the cable, or join a Wi-Fi: nmtui, raspi-config")]
    lines = [Line("network", "ok", ", ".join(told))]
    if not _has_default_route(PROC):
        said = "there is no default route: only machines in the local network can be reached"
        lines.append(Line("route", "notice", said, "the router gave none (DHCP), or a gateway is not set"))
    return lines


def _global(family: int, address: str) -> str:
    """An address that somebody else can reach, or an empty text."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    plain = address.partition("%")[0]
    return "" if ipaddress.ip_address(plain).is_link_local else plain


def _has_default_route(proc: Path) -> bool:
    """Whether the kernel has a route to anywhere (proc_pid_net(5))."""
    for file, position, default in (("net/route", 1, "00000000"), ("net/ipv6_route", 0, "0" * 32)):
        with contextlib.suppress(OSError):
            for line in (proc / file).read_text().splitlines():
                fields = line.split()
                # An IPv6 default route on lo is the kernel's way to say that there is none.
                if len(fields) > 7 and fields[position] == default and "lo" not in (fields[0], fields[-1]):
                    return True
    return False


# --- the hub -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where the hub is; ``ca_pem`` is empty until it is known (before joining), ``file`` then is."""

    url: SplitResult
    ca_pem: str
    file: JoinFile | None = None

    @property
    def where(self) -> str:
        return f"{self.url.hostname}:{self.url.port or 443}"


async def hub(patient: Patient, clock: Clock, threads: Threads) -> Lines:
    """Name, connection, certificate, answer, and what the hub's clock says."""
    target = _target(patient)
    if target is None:
        return [_clock(clock, None)]
    name = await _name(target.url.hostname or "", threads)
    if not name.well:
        return [name, _clock(clock, None)]
    try:
        date_ms = await apart(threads, lambda: _ask(target, clock))
    except LichenError as error:
        return [name, Line("hub", "fail", str(error), error.hint or FIREWALL), _clock(clock, None)]
    said = f"{target.url.geturl()} answers, and is the hub that this board knows"
    return [name, Line("hub", "ok", said), _clock(clock, date_ms)]


def _target(patient: Patient) -> Target | None:
    """The hub that the board has joined, else the one of its join file."""
    if patient.document is not None:
        return Target(urlsplit(patient.document.url), patient.document.ca_pem)
    path = patient.config.find_join_file() if patient.status is None else None
    if path is not None:
        file = read_join_file(path)
        return Target(urlsplit(file.hub_url), "", file)
    if patient.status is not None and patient.status.hub_url:
        raise Refused("its certificate authority is in files that are closed to this user", hint="use sudo")
    return None


async def _name(host: str, threads: Threads) -> Line:
    """Whether the hub's name has an address."""
    with contextlib.suppress(ValueError):
        return Line("name", "ok", f"{ipaddress.ip_address(host)} needs no look-up")
    try:
        found = await apart(threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        said = f"{host} has no address: {getattr(error, 'strerror', None) or error}"
        return Line("name", "fail", said, "check the name, and the name server in /etc/resolv.conf")
    addresses = ", ".join(dict.fromkeys(str(each[4][0]) for each in found))
    return Line("name", "ok", f"{host} is {addresses}")


def _ask(target: Target, clock: Clock) -> int | None:
    """Ask the hub whether it is well; its clock, if it tells it.  Raises LinkDown, Refused, Corrupt."""
    ca_pem = target.ca_pem or _authority(target)
    status, date_ms, _ = _get(target, "/healthz", trusting(ca_pem, clock.state()))
    if status != 200:
        said = f"the hub at {target.where} answers with HTTP status {status}"
        raise LinkDown(said, hint="look at the journal of the hub")
    return date_ms


def _authority(target: Target) -> str:
    """The certificate authority that the join file means.  Raises Corrupt when another one answers."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    _, _, body = _get(target, "/ca.pem", unverified)
    try:
        der = ssl.PEM_cert_to_DER_cert(body.decode("ascii"))
    except ValueError as error:
        raise Refused(f"{target.where} is no hub", hint="check hub_url in the join file") from error
    assert target.file is not None
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), target.file.ca_sha256):
        raise Corrupt(
            f"{target.where} is another hub than the join file says",
            hint="the join file is of another hub, or somebody answers in its place: ask for a new join file",
        )
    return ssl.DER_cert_to_PEM_cert(der)


def _get(target: Target, path: str, context: ssl.SSLContext) -> tuple[int, int | None, bytes]:
    """Status, clock in milliseconds since 1970, and body of an answer.  Raises LinkDown."""
    url = target.url
    connection = HTTPSConnection(url.hostname or "", url.port, timeout=STEP_S, context=context)
    with _told(target.where), contextlib.closing(connection):
        connection.request("GET", f"{url.path.rstrip('/')}{path}")
        with connection.getresponse() as response:
            date = response.headers.get("Date")
            return response.status, _millis(date), response.read(MAX_ANSWER)


def _millis(date: str | None) -> int | None:
    with contextlib.suppress(TypeError, ValueError):
        return round(parsedate_to_datetime(date).timestamp() * 1000) if date else None
    return None


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Failures of a connection as LinkDown with a reason that helps."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise LinkDown(
            f"the certificate of {where} does not hold: {error.verify_message}",
            hint="another machine answers there, or the hub is called by another name (host in its hub.toml)",
        ) from error
    except ssl.SSLError as error:
        raise LinkDown(f"{where}: no TLS: {error.reason or error}", hint=FIREWALL) from error
    except TimeoutError as error:
        raise LinkDown(f"{where}: no answer within {STEP_S:g} s", hint=FIREWALL) from error
    except OSError as error:
        reason, hint = REASONS.get(error.errno or 0, (error.strerror or str(error), FIREWALL))
        raise LinkDown(f"{where}: {reason}", hint=hint) from error
    except HTTPException as error:
        raise LinkDown(f"{where}: no HTTP: {type(error).__name__}", hint=FIREWALL) from error


# --- the broker --------------------------------------------------------------------------------


async def broker(patient: Patient, clock: Clock, threads: Threads) -> Lines:
    """Whether the board's certificate is good, and the broker lets it in."""
    document, folder = patient.document, patient.config.state_dir
    if document is None:
        return []
    context = trusting(document.ca_pem, clock.state())
    try:
        context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    except ssl.SSLError as error:
        said = f"{folder}/tls.pem and tls.key do not fit: {error.reason or error}"
        return [Line("certificate", "fail", said, RESTORE)]
    except OSError as error:
        said = f"{folder}/tls.pem or tls.key cannot be read: {error.strerror}"
        return [Line("certificate", "fail", said, "run this with sudo; if it stays so: " + RESTORE)]
    lines = [await apart(threads, lambda: _certificate(folder, clock))]
    host, port = document.mqtt_host, document.mqtt_port
    where = f"{host}:{port}"

    def shake() -> None:
        with (
            _told(where),
            socket.create_connection((host, port), STEP_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            _listen(secure, where)

    try:
        await apart(threads, shake)
    except LichenError as error:
        return [*lines, Line("broker", "fail", str(error), error.hint or FIREWALL)]
    return [*lines, Line("broker", "ok", f"{where} takes this board's certificate")]


def _listen(secure: ssl.SSLSocket, where: str) -> None:
    """Hear whether the broker refuses the certificate.  Raises Refused."""
    secure.settimeout(VERDICT_S)
    try:
        secure.recv(1)
    except TimeoutError:
        return  # it waits for us to speak, so it lets us in
    except (ssl.SSLError, ConnectionResetError) as error:
        reason = (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
        raise Refused(
            f"the broker at {where} refuses this board's certificate: {reason}",
            hint="ask the operator whether this board was revoked; then it needs a new join file",
        ) from error


def _certificate(folder: Path, clock: Clock) -> Line:
    """When the certificate ends.  Raises Refused for one that cannot be read."""
    until_ms = certificate_end_ms((folder / "tls.pem").read_text())
    if clock.state() != "unsynced" and until_ms <= clock.wall_ms():
        hint = "it renews itself once the hub can be reached"
        return Line("certificate", "fail", f"it ended on {words.utc(until_ms)}", hint)
    return Line("certificate", "ok", f"it is good until {words.utc(until_ms)}, and its key fits")


# --- the clock ---------------------------------------------------------------------------------


def _clock(clock: Clock, hub_ms: int | None) -> Line:
    """The board's clock against the kernel's own opinion, and the hub's."""
    state: ClockState = clock.state()
    hint = "sudo apt install systemd-timesyncd, and let it reach a time server"
    now_ms = clock.wall_ms()
    if hub_ms is None:
        if state == "synced":
            return Line("clock", "ok", "it is synchronised")
        return Line("clock", "warn", f"it is not synchronised, and says {words.utc(now_ms)}", hint)
    off_ms = now_ms - hub_ms
    told = f"{words.duration(abs(off_ms))} {'ahead of' if off_ms > 0 else 'behind'} the hub's"
    if abs(off_ms) < APART_MS:
        if state == "synced":
            return Line("clock", "ok", "it is synchronised, and agrees with the hub's")
        return Line("clock", "notice", "it is not synchronised, but agrees with the hub's", hint)
    if state == "synced":
        said = f"it is synchronised, but {told}: one of them is wrong"
        return Line("clock", "warn", said, "compare both with a watch")
    said = f"it is not synchronised, and {told}"
    return Line("clock", "warn", said, f"the agent goes by the hub's; for everything else: {hint}")
