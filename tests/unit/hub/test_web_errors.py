"""One table from our errors to HTTP, and the words that go with them."""

from __future__ import annotations

import pytest

from agent.wire.errors import Busy, ConfigError, Corrupt, LichenError, LinkDown, Refused
from hub.web import problems
from hub.web.guard import local_path
from hub.web.pages.render import sentence


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no", code="not-found"), 404),
        (Refused("no", code="unauthenticated"), 401),
        (Refused("no", code="conflict"), 409),
        (Refused("no", code="expired"), 410),
        (Refused("no", code="too-many"), 429),
        (Refused("no"), 422),
        (Refused("no", code="something-new"), 400),
        (Refused("no", code="disk-full"), 507),
        (LinkDown("no"), 503),
        (Busy("no"), 409),
        (Corrupt("no"), 500),
        (ConfigError("no"), 500),
        (LichenError("no"), 500),
    ],
)
def test_each_kind_of_error_has_its_status(error: LichenError, status: int) -> None:
    assert problems.status_of(error) == status


def test_a_problem_document_names_code_reason_and_way_out() -> None:
    document = problems.document(Refused("the name is taken", code="conflict", hint="choose another"))
    assert document == problems.ProblemDocument(
        "urn:lichen:problem:conflict", "Conflict", 409, "the name is taken", "choose another"
    )


@pytest.mark.parametrize("path", ["/", "/boards/pump-07?range=6h&sensor=a", "/boards/a%20b", "/?search=x#y"])
def test_a_login_goes_on_to_a_path_of_this_hub(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "boards",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/\tboards",
        "///evil.example",
        "//[",
        "http://[",
        "/ä",
    ],
)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert local_path(path) == "/"


def test_a_message_becomes_a_sentence() -> None:
    assert sentence("there is no board 'x'") == "There is no board 'x'."
    assert sentence("did you mean 'y'?") == "Did you mean 'y'?"
    assert sentence("") == ""
