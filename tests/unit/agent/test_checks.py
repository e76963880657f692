"""Each check finds what it is for in a snapshot of facts, says it with figures, and nothing else."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from agent import checks
from agent.checks import CHECKS, Facts, Fault, Trouble, find
from agent.status import LinkState
from agent.vitals import CAPPED, HOT, LOW, THROTTLED, Card, Disk, Heat, Vitals
from agent.wire.messages import OutboxState, Problem

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
GB = 1_000_000_000
STATE = "/var/lib/lichen"
ONLINE = LinkState("online", NOW_MS - 3_600_000, "hub:8422", acknowledged_ms=NOW_MS - 20_000)
FINE = Facts(
    NOW_MS,
    vitals=Vitals(
        disk=Disk(STATE, 32 * GB, 20 * GB, free_files=10_000),
        heat=(Heat("cpu-thermal", 61.2, 110.0),),
        cards=(Card("mmcblk0", used=20),),
        memory_cgroup=True,
    ),
    link=ONLINE,
    outbox=OutboxState(12, 4000, 64 * 2**20, NOW_MS - 20_000),
    certificate_until_ms=NOW_MS + 60 * DAY_MS,
)


def seeing(**vitals: object) -> Facts:
    return FINE._replace(vitals=FINE.vitals._replace(**vitals))


def disk(free: int, total: int = 32 * GB, **more: object) -> Facts:
    return seeing(disk=Disk(STATE, total, free, **more))


def test_a_healthy_board_has_no_problem() -> None:
    assert [finding for check in CHECKS for finding in check.look(FINE, ())] == []


def test_a_board_that_tells_nothing_has_no_problem() -> None:
    facts = Facts(NOW_MS, link=ONLINE)
    assert [finding for check in CHECKS for finding in check.look(facts, ())] == []


EXPECTED = {
    "clock-unsynced": (
        FINE._replace(clock="unsynced"),
        "The clock has not been set and says 2023-11-14 22:13 UTC.",
    ),
    "disk-low": (disk(400_000_000), f"{STATE} has only 400 MB free of 32.0 GB."),
    "disk-full": (disk(0), f"{STATE} is full (0 MB free of 32.0 GB): readings cannot be stored."),
    "disk-read-only": (
        disk(20 * GB, read_only=True),
        f"The file system of {STATE} is read-only: readings cannot be stored.",
    ),
    "card-worn": (seeing(cards=(Card("mmcblk0", used=90),)), "mmcblk0 has used 80 to 90 % of its life."),
    "under-voltage": (seeing(power=LOW), "The supply voltage is too low."),
    "throttled": (seeing(power=THROTTLED | HOT), "The processor is slowed down because it is hot."),
    "over-temperature": (seeing(heat=(Heat("cpu-thermal", 86.6, 110.0),)), "cpu-thermal is at 87 °C."),
    "memory-cgroup-off": (
        seeing(memory_cgroup=False),
        "The kernel does not count memory by container (cgroup controller memory is off).",
    ),
    "hub-unreachable": (
        FINE._replace(link=LinkState("offline", NOW_MS, "hub:8422", error="nothing listens at hub:8422")),
        "The hub is not reached: nothing listens at hub:8422.",
    ),
    "certificate-ending": (
        FINE._replace(certificate_until_ms=NOW_MS + 14 * DAY_MS),
        "The board's certificate ends on 2023-11-28 22:13 UTC and was not renewed.",
    ),
    "outbox-nearly-full": (
        FINE._replace(outbox=OutboxState(90_000, 55 * 2**20, 64 * 2**20, NOW_MS - DAY_MS)),
        "90000 readings wait for the hub and fill 86 % of the outbox (67 MB).",
    ),
    "readings-dropped": (
        FINE._replace(dropped=512),
        "512 readings were dropped because the outbox was full.",
    ),
    "readings-unsaved": (FINE._replace(unsaved=7), "7 readings could not be written and are lost."),
    "sensor-failing": (
        FINE._replace(faults=(Fault("room", "no answer within 5 s"),)),
        "room fails: no answer within 5 s.",
    ),
    "value-implausible": (
        FINE._replace(faults=(Fault("room", "85 °C is not within -40 to 60 °C", implausible=True),)),
        "room: 85 °C is not within -40 to 60 °C.",
    ),
    **{
        code: (FINE._replace(troubles=(Trouble(code, subject, sentence),)), sentence)
        for code, subject, sentence in (
            ("podman-missing", "", "Apps are not looked after: Podman is not installed."),
            ("podman-down", "", "Apps are not looked after: Podman does not answer."),
            ("apps-unkept", "", "Apps are not looked after: the disk is full."),
            ("policy-broken", "", "The board's policy cannot be used: policy.toml is over 64 KiB."),
            ("order-refused", "", "An order of generation 3 is not taken: it is older than 5."),
            ("app-failed", "demo", "Revision 2 of demo failed: web ended with 1; revision 1 runs."),
            ("app-crash-loop", "demo", "web of demo has ended 5 times in a row."),
            ("usage-stopped", "", "Nothing is written into the usage log: entry 5 is damaged."),
            ("usage-disk-full", "", "Usage cannot be written down: the disk is full."),
            ("usage-unreceipted", "", "The hub does not take the usage log: it has another history."),
        )
    },
}


@pytest.mark.parametrize("code", [check.code for check in CHECKS])
def test_a_check_finds_its_problem_and_no_other_does(code: str) -> None:
    facts, sentence = EXPECTED[code]
    found = {check.code: [each.sentence for each in check.look(facts, ())] for check in CHECKS}
    assert {code: sentences for code, sentences in found.items() if sentences} == {code: [sentence]}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_what_a_check_says_fits_into_a_message(check: checks.Check) -> None:
    for finding in check.look(EXPECTED[check.code][0], ()):
        Problem(check.code, finding.sentence, check.hint, finding.severity or check.severity)
        assert len(finding.sentence) <= 256
    assert 20 < len(check.hint) <= 256
    assert check.meaning.endswith(".")


# --- thresholds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "known", "codes"),
    [
        pytest.param(disk(3 * GB, 64 * GB), (), [], id="of a large card 1 GB is enough"),
        pytest.param(disk(900_000_000, 64 * GB), (), ["disk-low"], id="and less is not"),
        pytest.param(disk(500_000_000, 4 * GB), (), [], id="of a small one a tenth"),
        pytest.param(disk(1_100_000_000, 64 * GB), ("",), ["disk-low"], id="it clears at a quarter more"),
        pytest.param(disk(1_300_000_000, 64 * GB), ("",), [], id="and then it does"),
        pytest.param(disk(20 * GB, free_files=3), (), ["disk-full"], id="no more files"),
        pytest.param(disk(20_000, 1_048_576), (), ["disk-low"], id="a tiny one is not full at 2 %"),
        pytest.param(disk(5_000, 1_048_576), (), ["disk-full"], id="but at half a percent"),
        pytest.param(disk(0, read_only=True), (), ["disk-read-only"], id="one cause, one problem"),
        pytest.param(FINE._replace(refusal="disk-full"), (), ["disk-full"], id="a quota does not show"),
        pytest.param(FINE._replace(refusal="disk-read-only"), (), ["disk-read-only"], id="writing tells"),
        pytest.param(FINE._replace(refusal="busy"), (), [], id="a lock is no full disk"),
    ],
)
def test_disks(facts: Facts, known: tuple[str, ...], codes: list[str]) -> None:
    wanted = ("disk-full", "disk-read-only", "disk-low")
    assert [code for code in wanted if find(code, facts, known)] == codes


@pytest.mark.parametrize(
    ("card", "severity"),
    [
        (Card("mmcblk0", used=80), "none"),
        (Card("mmcblk0", used=90), None),
        (Card("mmcblk0", used=10, reserve=2), None),
        (Card("mmcblk0", used=110), "fail"),
        (Card("mmcblk0", used=10, reserve=3), "fail"),
    ],
)
def test_cards(card: Card, severity: str | None) -> None:
    found = find("card-worn", seeing(cards=(card,)))
    assert [finding.severity for finding in found] == ([] if severity == "none" else [severity])
    assert all(finding.subject == "mmcblk0" for finding in found)


@pytest.mark.parametrize(
    ("celsius", "critical", "known", "severity"),
    [
        (84.0, None, (), "none"),
        (85.0, None, (), None),
        (81.0, None, ("soc",), None),  # it flutters: it clears at 80
        (79.0, None, ("soc",), "none"),
        (81.0, 85.0, (), "fail"),  # a board that switches off at 85
        (79.0, 85.0, (), "none"),
        (106.0, 110.0, (), "fail"),
    ],
)
def test_heat(celsius: float, critical: float | None, known: tuple[str, ...], severity: str | None) -> None:
    found = find("over-temperature", seeing(heat=(Heat("soc", celsius, critical),)), known)
    assert [finding.severity for finding in found] == ([] if severity == "none" else [severity])


@pytest.mark.parametrize(
    ("power", "seen", "codes"),
    [
        (LOW | CAPPED | THROTTLED, (), ["under-voltage"]),  # slowed down for want of power: one cause
        (LOW << 16, (), ["under-voltage"]),
        (LOW << 16, ("under-voltage",), []),  # that is known
        (LOW | LOW << 16, ("under-voltage",), ["under-voltage"]),  # and it is so again
        (HOT, (), ["throttled"]),
        (HOT << 16, (), ["throttled"]),
        (HOT << 16, ("throttled",), []),
        ((LOW | CAPPED | THROTTLED) << 16, ("under-voltage",), []),
    ],
)
def test_sticky_bits_tell_once(power: int, seen: tuple[str, ...], codes: list[str]) -> None:
    facts = seeing(power=power)._replace(seen=seen)
    assert [code for code in ("under-voltage", "throttled") if find(code, facts)] == codes


def test_a_board_that_slows_down_by_the_kernel_says_so() -> None:
    (finding,) = find("throttled", seeing(slowed=("cpufreq-cpu0",)))
    assert "hot" in finding.sentence


@pytest.mark.parametrize(
    ("link", "waiting", "found"),
    [
        (LinkState("connecting", NOW_MS), 0, None),  # it will be the one or the other in a moment
        (LinkState("stopped"), 5, None),
        (replace(ONLINE, acknowledged_ms=NOW_MS - 599_000), 5, None),
        (
            replace(ONLINE, acknowledged_ms=NOW_MS - 601_000),
            5,
            "The broker at hub:8422 answers, but the hub does not acknowledge readings.",
        ),
        (replace(ONLINE, acknowledged_ms=NOW_MS - 601_000), 0, None),
        (LinkState("online", NOW_MS - 5000, "hub:8422", acknowledged_ms=NOW_MS - DAY_MS), 5, None),
    ],
    ids=["connecting", "stopped", "heard", "deaf hub", "nothing to hear", "just back"],
)
def test_the_hub(link: LinkState, waiting: int, found: str | None) -> None:
    facts = FINE._replace(link=link, outbox=OutboxState(waiting, 100, 10_000))
    assert [each.sentence for each in find("hub-unreachable", facts)] == ([found] if found else [])


@pytest.mark.parametrize(
    ("days", "clock", "severity"),
    [(16, "synced", "none"), (14, "synced", None), (-1, "hub", "fail"), (-1, "unsynced", "none")],
)
def test_certificates(days: int, clock: str, severity: str | None) -> None:
    facts = FINE._replace(certificate_until_ms=NOW_MS + days * DAY_MS, clock=clock)
    found = [each.severity for each in find("certificate-ending", facts)]
    assert found == ([] if severity == "none" else [severity])


def test_the_outbox_clears_lower_than_it_fills() -> None:
    facts = FINE._replace(outbox=OutboxState(9, 75, 100))
    assert not find("outbox-nearly-full", facts)
    assert find("outbox-nearly-full", facts, ("",))


def test_each_failing_sensor_is_a_subject() -> None:
    faults = (Fault("room", "gone"), Fault("tank", "99 is too much", implausible=True), Fault("door", "gone"))
    facts = FINE._replace(faults=faults)
    assert [each.subject for each in find("sensor-failing", facts)] == ["room", "door"]
    assert [each.subject for each in find("value-implausible", facts)] == ["tank"]


def test_examples_are_right() -> None:
    results = doctest.testmod(checks)
    assert results.attempted
    assert results.failed == 0
