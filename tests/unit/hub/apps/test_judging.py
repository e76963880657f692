"""What a report says of a change, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.wire.apps import Apps, AppState, Failure
from hub.apps.reports import Verdict, judge
from hub.apps.view import what_is_left
from hub.store.placements import Result

ASKED = Result("demo", 4, "b" * 16, generation=7)


def state(revision: int = 4, running: int = 4, state: str = "running", **more: object) -> AppState:
    return AppState("demo", revision, running, state, **more)  # type: ignore[arg-type]


FAILURE = Failure(4, 5, "pull", "the registry hangs", "look at it", rolled_back_to=3)
OLD_FAILURE = Failure(2, 5, "pull", "long ago")


@pytest.mark.parametrize(
    ("apps", "verdict"),
    [
        (Apps(6, (state(3, 3),)), None),  # it has not heard of it
        (Apps(7), None),  # it has, and has not begun
        (Apps(7, (state(3, 3),)), None),
        (Apps(7, (state(4, 3, "updating"),)), None),
        (Apps(7, (state(4, 3, "waiting"),)), None),
        (Apps(7, (state(4, 3, "running"),)), None),
        (Apps(7, (state(),)), Verdict("running", running=4)),
        (Apps(8, (state(),)), Verdict("running", running=4)),  # by a later order, of another app
        (Apps(7, (state(state="degraded"),)), Verdict("running", running=4)),
        (Apps(7, (state(failure=OLD_FAILURE),)), Verdict("running", running=4)),
        (Apps(7, (state(4, 0, "stopped"),)), Verdict("stopped")),
        (
            Apps(7, (state(4, 3, failure=FAILURE),)),
            Verdict("failed", "the registry hangs", "look at it", 3),
        ),
        (Apps(7, (state(4, 0, "failed", step="no room"),)), Verdict("failed", "no room")),
        (Apps(7, (state(4, 3, "updating", failure=FAILURE),)), None),  # it is on its way back
        (Apps(6, (state(3, 3),), refused=7, reason="no"), Verdict("refused", "no", "", 3)),
        (Apps(6, refused=8, reason="no", hint="ask"), Verdict("refused", "no", "ask")),
        (Apps(6, refused=5, reason="no"), None),  # an older one
        (Apps(7, (state(),), refused=8, reason="no"), Verdict("running", running=4)),
    ],
)
def test_a_change(apps: Apps, verdict: Verdict | None) -> None:
    assert judge(ASKED, apps, leaving=False) == verdict


@pytest.mark.parametrize(
    ("apps", "verdict"),
    [
        (Apps(6, (state(3, 3),)), None),
        (Apps(6), None),  # it may have it, and says nothing of it yet
        (Apps(7, (state(3, 3),)), None),
        (Apps(7, (state(3, 0, "removing"),)), None),
        (Apps(7, (AppState("other", 1, 1, "running"),)), Verdict("gone")),
        (Apps(6, (state(3, 3),), refused=7, reason="no"), Verdict("refused", "no", "", 3)),
    ],
)
def test_an_app_that_is_to_go(apps: Apps, verdict: Verdict | None) -> None:
    assert judge(ASKED, apps, leaving=True) == verdict


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (state(4, 3, "updating", failure=FAILURE), "it goes back to revision 3"),
        (state(4, 3, failure=FAILURE), "rolled back to revision 3, which runs"),
        (state(4, 3, "degraded", failure=FAILURE), "rolled back to revision 3, and not all of it runs"),
        (state(4, 0, "failed", failure=replace(FAILURE, rolled_back_to=0)), "nothing of it runs"),
        (state(4, 3, "failed", failure=replace(FAILURE, rolled_back_to=0)), "it is left as it is"),
        (state(4, 0, "degraded", failure=replace(FAILURE, rolled_back_to=0)), "it is left as it is"),
        (state(5, 3, "updating", failure=FAILURE), "revision 3 runs"),  # what it says is about another one
        (state(3, 3), "revision 3 runs"),
        (None, "revision 3 runs"),
    ],
)
def test_what_there_is_after_a_failure(said: AppState | None, left: str) -> None:
    assert what_is_left(4, 3, said) == left
