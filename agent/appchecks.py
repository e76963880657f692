"""What is wrong with the apps of a board: a check for each problem that `agent.containers` tells.

Owns their codes, how long they must last, and what to do; the sentences come with the facts, for they
name apps, versions and reasons.  `agent.checks` has them in its table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agent.findings import Check, Facts, Finding

MINUTE = 60.0


def _podman_missing(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The board is to run apps, and Podman is not installed."""
    return _trouble(facts, "podman-missing")


def _podman_down(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """Podman does not answer, so nobody looks after apps; those that run go on."""
    return _trouble(facts, "podman-down")


def _apps_unkept(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """What the board has to remember of its apps cannot be read or written."""
    return _trouble(facts, "apps-unkept")


def _order_refused(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """An order came that this board does not take; what the one before says still holds."""
    return _trouble(facts, "order-refused")


def _policy_broken(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """The policy file cannot be used, so nothing new is taken; apps that run go on."""
    return _trouble(facts, "policy-broken")


def _app_failed(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """A new version of an app did not come up, and was gone back from where that was possible."""
    return _trouble(facts, "app-failed")


def _app_loops(facts: Facts, _: Collection[str]) -> Iterator[Finding]:
    """A container of an app ends again and again; it is started ever later, at most each five minutes."""
    return _trouble(facts, "app-crash-loop")


def _trouble(facts: Facts, code: str) -> Iterator[Finding]:
    return (Finding(each.sentence, each.subject) for each in facts.troubles if each.code == code)


APPS: tuple[Check, ...] = (
    Check(
        "podman-missing", "fail", 0, 0, _podman_missing,
        "Install it: `sudo apt-get install --no-install-recommends podman netavark aardvark-dns`.",
    ),
    Check(
        # A service that restarts is back before.
        "podman-down", "warn", MINUTE, 0, _podman_down,
        "`systemctl status podman.socket` and `podman info` on the board say more; apps that run go on.",
    ),
    Check(
        "apps-unkept", "fail", 0, 0, _apps_unkept,
        "Free some space; a file apps.db that is damaged can be moved away: the hub sends the order again.",
    ),
    Check(
        "policy-broken", "warn", 0, 0, _policy_broken,
        "Correct /etc/lichen/policy.toml; without the file the defaults hold.",
    ),
    Check(
        "order-refused", "warn", 0, 0, _order_refused,
        "The operator changes the order; until then the one before holds.",
    ),
    Check(
        "app-failed", "warn", 0, 0, _app_failed,
        "`lichen app show APP` has the reason and the last lines of its log: correct it, and deploy again.",
    ),
    Check(
        "app-crash-loop", "warn", 0, MINUTE, _app_loops,
        "`lichen app logs APP` shows what it says at its end; `lichen app rollback APP` goes back.",
    ),
)  # fmt: skip
"""Every problem of apps, the one to mend first at the top."""
