"""Reports that are larger than the hub takes."""

from __future__ import annotations

import random
from dataclasses import replace

from agent.containers.fitting import fit
from agent.wire.apps import Apps, AppState, ContainerState, Failure
from agent.wire.decode import decode_json
from agent.wire.envelope import MAX_INFLATED, pack, unpack
from agent.wire.plain import dumps


def noise(count: int, seed: int) -> str:
    """What hardly packs."""
    return random.Random(seed).randbytes(count // 2).hex()


def app(number: int, containers: int, *, log: int = 0, notes: int = 0) -> AppState:
    failure = Failure(2, 1, "waiting", noise(400, number), log=noise(log, number))
    return AppState(
        f"app{number}",
        2,
        1,
        "degraded",
        failure=failure,
        notes=tuple(noise(1024, number * 100 + each) for each in range(notes)),
        containers=tuple(
            ContainerState(
                "web",
                f"app{number}_web.{each}.{noise(8, number * 1000 + each)}",
                "ended" if each == containers - 1 else "running",
                f"registry.example/web@sha256:{noise(64, number * 1000 + each)}",
            )
            for each in range(containers)
        ),
    )


def taken(apps: Apps) -> Apps:
    """What the hub reads of it."""
    fitted = fit(apps)
    read: Apps = decode_json(Apps, unpack(*pack(dumps(fitted))), max_bytes=MAX_INFLATED)
    assert read == fitted
    return read


def test_what_fits_is_told_whole() -> None:
    whole = Apps(3, (app(1, 3, log=8000),))
    assert taken(whole) == whole


def test_logs_go_first() -> None:
    whole = Apps(3, tuple(app(number, 2, log=8192) for number in range(64)))
    read = taken(whole)
    for before, after in zip(whole.apps, read.apps, strict=True):
        assert after.failure is not None
        assert before.failure is not None
        assert after.failure == replace(before.failure, log="")
        assert after.containers == before.containers
        assert "log" in after.notes[0]


def test_then_containers_go_of_the_apps_that_have_most_and_those_that_run_well_first() -> None:
    large = tuple(app(number, 256, log=100) for number in range(1, 60))
    read = taken(Apps(3, (app(0, 2), *large)))
    assert len(read.apps) == 60
    assert len(read.apps[0].containers) == 2
    assert not read.apps[0].notes
    for each in read.apps[1:]:
        assert 0 < len(each.containers) < 256
        assert "ended" in {container.state for container in each.containers}
        assert each.notes[0].startswith(f"only {len(each.containers)} container")
        assert len(each.notes) == 2


def test_a_report_of_nothing_but_notes_fits_too() -> None:
    read = taken(Apps(3, tuple(app(number, 256, log=8192, notes=16) for number in range(64))))
    assert len(read.apps) == 64
    assert all(each.notes[0].startswith("only 0 containers are told of") for each in read.apps)
