"""Which published port leads to which containers now: what `agent.containers.proxy` is to serve.

Pure, and read off the labels of the containers that are there, so it is right whatever happened to them:

- a port leads to the containers that serve and are not known to be ill;
- while a new version serves, the old one drains: it keeps its connections and gets no new ones;
- where no new one serves, the old one does;
- a port that a container has for itself is not the proxy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.containers.actual import Sight
from agent.containers.aim import Aim
from agent.containers.names import LABEL_DIRECT, LABEL_PROXIED, overlap, read_ports
from agent.containers.roster import Rosters
from agent.containers.routes import Backend, Route

Routes = Mapping[Route, Mapping[str, Backend]]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A container that is to be reached through a port."""

    host_ip: str
    port: int
    target: int
    sight: Sight
    is_current: bool


def routes(scenes: Iterable[tuple[Aim, Iterable[Sight]]], rosters: Rosters | None = None) -> Routes:
    """What the proxy is to serve for all apps.

    ``rosters``: what is known already of how containers are called.
    """
    known = rosters or Rosters()
    apps = [(aim, list(sights)) for aim, sights in scenes]
    held = [
        port
        for _, sights in apps
        for sight in sights
        if sight.runs
        for port in read_ports(sight.container.labels.get(LABEL_DIRECT, ""))
    ]
    found: dict[Route, dict[str, Backend]] = {}
    for aim, sights in apps:
        by_port: dict[tuple[str, str, int], list[_Claim]] = {}
        for claim in _claims(aim, sights, known):
            by_port.setdefault((claim.sight.service, claim.host_ip, claim.port), []).append(claim)
        for (service, host_ip, port), claims in by_port.items():
            if any(port == number and overlap(host_ip, host) for host, number, _ in held):
                continue
            target = max(claims, key=lambda claim: claim.is_current).target
            found[Route(host_ip, port, aim.app.name, service, target)] = _backends(claims)
    return found


def _claims(aim: Aim, sights: list[Sight], rosters: Rosters) -> Iterator[_Claim]:
    current = rosters.of(aim.app, proxy=True).all
    ends = aim.mode in ("stop", "remove", "clean")
    for sight in sights:
        is_current = sight.name in current and not ends
        # One that is wanted keeps its port while it is started again; another one only while it runs.
        if is_current or sight.runs:
            for host_ip, port, target in read_ports(sight.container.labels.get(LABEL_PROXIED, "")):
                if target.isdecimal():
                    yield _Claim(host_ip, port, int(target), sight, is_current)


def _backends(claims: list[_Claim]) -> dict[str, Backend]:
    able = [claim for claim in claims if (claim.sight.serves or claim.sight.leaves) and _address(claim.sight)]
    well = [claim for claim in able if claim.sight.health in ("", "healthy")]
    chosen = well or able  # one that is ill may answer, and nobody else does
    has_current = any(claim.is_current for claim in well)
    return {
        claim.sight.name: Backend(
            _address(claim.sight), claim.target, drain=has_current and not claim.is_current
        )
        for claim in (able if has_current else chosen)
        if claim in chosen or not claim.is_current
    }


def _address(sight: Sight) -> str:
    return next((address for address in sight.container.networks.values() if address), "")
