"""How a service is run: how many, how it comes back, how it is replaced, what it may take."""

from __future__ import annotations

from typing import Literal

from agent.wire.order import Limits, Restart, Update
from hub.apps.compile.ports import published_on_host
from hub.apps.compile.scope import Scope
from hub.apps.compile.wishes import wants_direct_ports
from hub.apps.tree import Node

MODES = ("replicated", "global", "replicated-job", "global-job")
DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Condition = Literal["none", "on-failure", "any"]
CONDITIONS: tuple[Condition, ...] = ("none", "on-failure", "any")
RESTARTS: dict[str, Condition] = {
    "no": "none",
    "always": "any",
    "on-failure": "on-failure",
    "unless-stopped": "any",
}
ORDERS: tuple[Literal["stop-first", "start-first"], ...] = ("stop-first", "start-first")
ACTIONS: tuple[Literal["rollback", "pause", "continue"], ...] = ("rollback", "pause", "continue")


def replicas(service: Node) -> int:
    """How many containers; a global service has one, as a board is one node."""
    mode = service["deploy"]["mode"].choice(MODES, default="replicated")
    if mode.startswith("global"):
        return 1
    wanted = service["deploy"]["replicas"]
    count = (wanted if wanted.is_given else service["scale"]).whole(0, 64, default=1)
    if count > 1 and service["container_name"].is_given:
        raise service["container_name"].refused(f"one name for {count} replicas")
    return count


def restart(service: Node, *, is_awaited: bool) -> Restart:
    """What happens when a container ends.

    ``deploy.restart_policy`` before ``restart``, as in Swarm.  With neither: always, as there; but only after
    a failure when it is a job, or others wait for its end (``is_awaited``).
    """
    policy, node = service["deploy"]["restart_policy"], service["restart"]
    is_job = service["deploy"]["mode"].text().endswith("-job")
    usual: Condition = "on-failure" if is_awaited or is_job else "any"
    if policy.is_given:
        return Restart(
            policy["condition"].choice(CONDITIONS, default=usual),
            delay_ms=policy["delay"].duration_ms(high=DAY_MS, default=5_000),
            max_attempts=policy["max_attempts"].whole(0, 1_000_000),
            window_ms=policy["window"].duration_ms(high=DAY_MS),
        )
    if not node.text():
        return Restart(usual)
    word, colon, attempts = node.text().partition(":")
    if colon and word != "on-failure":
        raise node.refused(f"only 'on-failure' takes a number, not {word[:30]!r}")
    condition = RESTARTS[node.with_value(word).choice(tuple(RESTARTS), default="no")]
    return Restart(condition, max_attempts=node.with_value(attempts).whole(0, 1_000_000))


def update(service: Node, scope: Scope) -> Update:
    """How a new version takes the place of the old one."""
    node = service["deploy"]["update_config"]
    order = node["order"].choice(ORDERS, default="stop-first")
    if order == "start-first":
        on_host = published_on_host(service)
        if on_host is not None:
            scope.warn(on_host, "published by the board itself, so it is updated stop-first")
            order = "stop-first"
        elif service["ports"].is_given and wants_direct_ports(service, scope):
            scope.warn(node["order"], "x-lichen.ports is 'direct', so it is updated stop-first")
            order = "stop-first"
    return Update(
        order,
        monitor_ms=node["monitor"].duration_ms(high=HOUR_MS, default=5_000),
        on_failure=node["failure_action"].choice(ACTIONS, default="rollback"),
    )


def limits(service: Node) -> Limits:
    """What a container may take, and what has to be free for it.

    Both forms of compose say the same thing; where both are there, that of ``deploy`` counts.
    """
    most, least = service["deploy"]["resources"]["limits"], service["deploy"]["resources"]["reservations"]

    def milli(node: Node) -> int:
        return round(node.number(0, 1024) * 1000)

    return Limits(
        cpu_milli=milli(most["cpus"]) or milli(service["cpus"]),
        memory_bytes=most["memory"].size_bytes() or service["mem_limit"].size_bytes(),
        pids=_pids(most["pids"]) or _pids(service["pids_limit"]),
        reserve_cpu_milli=milli(least["cpus"]),
        reserve_memory_bytes=least["memory"].size_bytes() or service["mem_reservation"].size_bytes(),
        shm_bytes=service["shm_size"].size_bytes(),
    )


def _pids(node: Node) -> int:
    return max(node.whole(-1, 2**22), 0)
