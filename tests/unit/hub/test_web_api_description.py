"""The API's description follows from the signatures, and is valid OpenAPI 3.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from agent.wire.decode import Length, Match, Range, decode
from agent.wire.errors import ConfigError, Refused
from agent.wire.plain import plain
from hub.web.api import ROUTES
from hub.web.api.route import Route
from hub.web.openapi import describe
from hub.web.schema import Schemas


@dataclass(frozen=True, slots=True)
class Inner:
    """One of several."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything an annotation can say."""

    name: Annotated[str, Match(r"[a-z]+", "lower-case letters")]
    mode: Literal["on", "off"] = "on"
    share: Annotated[float, Range(0, 1)] = 0.5
    tags: Annotated[tuple[str, ...], Length(0, 2)] = ()
    inner: Inner | None = None
    labels: dict[str, str] = field(default_factory=dict)
    anything: Any = 0


def schema_of(written: bool) -> dict[str, Any]:
    schemas = Schemas()
    reference = schemas.add(Sample, written=written)
    return {**reference, "components": {"schemas": schemas.named}}


GOOD: list[dict[str, Any]] = [
    {"name": "a"},
    {
        "name": "ab",
        "mode": "off",
        "share": 1,
        "tags": ["x", "y"],
        "inner": {"at_ms": 5},
        "labels": {"k": "v"},
    },
    {"name": "ab", "inner": None, "anything": [1, {"x": None}]},
]
BAD: list[dict[str, Any]] = [
    {},
    {"name": "A"},
    {"name": "a\n"},
    {"name": "a", "mode": "maybe"},
    {"name": "a", "share": 2},
    {"name": "a", "tags": ["x", "y", "z"]},
    {"name": "a", "inner": {}},
    {"name": "a", "labels": {"k": 1}},
    {"name": "a", "nmae": "b"},
]


@pytest.mark.parametrize("value", GOOD)
def test_what_is_decoded_is_described(value: dict[str, Any]) -> None:
    decoded = decode(Sample, value, strict=True)
    Draft202012Validator(schema_of(written=False)).validate(value)
    Draft202012Validator(schema_of(written=True)).validate(plain(decoded))


@pytest.mark.parametrize("value", BAD)
def test_what_is_refused_is_not(value: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        decode(Sample, value, strict=True)
    if value.get("name") != "a\n":  # in JSON Schema "$" may stand before a last line break
        assert not Draft202012Validator(schema_of(written=False)).is_valid(value)


def test_one_name_has_one_meaning() -> None:
    schemas = Schemas()
    schemas.add(Inner, written=True)
    with pytest.raises(TypeError, match="Inner"):
        schemas.add(Inner, written=False)


def test_the_document_is_valid() -> None:
    validate(describe(ROUTES, version="0.1.0"))


def test_every_operation_says_what_it_does() -> None:
    for route in ROUTES:
        assert route.summary, route.path
        assert not route.summary.endswith("."), route.path
    operations = [route.function.__name__ for route in ROUTES]
    assert len(operations) == len(set(operations))


def test_a_route_is_read_from_its_function() -> None:
    async def change(call: object, board: str, body: Inner) -> Sample:
        """Change something.

        With care.
        """
        raise Refused("no")

    change.__annotations__ |= {"body": Inner, "return": Sample}
    route = Route("POST", "/boards/{board}/things", change)
    assert (route.names, route.body, route.query, route.answer) == (["board"], Inner, None, Sample)
    assert (route.summary, route.description) == ("Change something", "With care.")
