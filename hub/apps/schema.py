"""The schema of compose: whether a file is of the shape that compose allows.

Owns how an error of the JSON schema becomes a sentence with file, line and key.  The schema comes inside
of check-jsonschema, as its authors publish it.  Called by `hub.apps.loader` for each file, when
variables have been put in.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from agent.wire.decode import nearest
from agent.wire.errors import Refused
from agent.wire.plain import show
from hub.apps.tree import Node, plain

NOUNS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


@functools.cache
def schema() -> Any:
    """The schema as JSON."""
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def _validator() -> Any:
    # The one of jsonschema compares each entry with each other one: half a minute for a thousand ports.
    extended = validators.extend(Draft202012Validator, {"uniqueItems": _unique})  # type: ignore[no-untyped-call]
    return extended(schema())


def _unique(_validator: Any, rule: bool, entries: Any, _schema: Any) -> Iterator[ValidationError]:
    if rule and isinstance(entries, list) and len(set(map(json.dumps, entries))) < len(entries):
        yield ValidationError("an entry is there twice")


def validate(document: Node) -> None:
    """Raise Refused (code "compose") for the first thing that is not as the schema has it.

    Unknown keys of a service are left to `hub.apps.verdicts`: the schema says "unevaluated" of every key
    of a service in which anything is wrong.
    """
    errors = _validator().iter_errors(plain(document))
    found = [_deepest(error) for error in errors if error.validator != "unevaluatedProperties"]
    if found:
        raise min((_refusal(document, error) for error in found), key=lambda each: each[0])[1]


def _deepest(error: ValidationError) -> ValidationError:
    """What is wrong inside of an alternative: the one that was meant is the one of the right type."""
    while error.context:
        meant = [each for each in error.context if each.validator != "type" or each.relative_path]
        if not meant:
            return error
        error = max(meant, key=lambda each: len(each.absolute_path))
    return error


def _refusal(document: Node, error: ValidationError) -> tuple[int, Refused]:
    """The line of an error, and the error as a sentence."""
    node = document
    for step in error.absolute_path:
        node = node.value[step]
    if error.validator == "additionalProperties":
        return _unknown_key(node, error.schema)
    return node.line, node.refused(_reason(error))


def _unknown_key(node: Node, schema: Any) -> tuple[int, Refused]:
    known = schema.get("properties", {})
    patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", {})]
    key, each = next(
        (key, each)
        for key, each in node.items()
        if key not in known and not any(pattern.search(key) for pattern in patterns)
    )
    if not known:
        return each.line, each.refused(
            f"{show(key)} is no name: letters, digits, '.', '_' and '-' are allowed"
        )
    near = nearest(key, known)
    return each.line, each.refused("unknown key" + (f"; did you mean {near!r}?" if near else ""))


def _reason(error: ValidationError) -> str:
    value: Any = error.instance
    rule: Any = error.validator_value
    match error.validator:
        case "type" | "oneOf" | "anyOf":
            return f"expected {_wanted(error)}, not {_shown(value)}"
        case "enum":
            near = nearest(str(value), map(str, rule))
            suffix = f"; did you mean {near!r}?" if near else ""
            return f"{show(value)} is not one of {', '.join(map(repr, rule))}{suffix}"
        case "required":
            return f"{', '.join(repr(key) for key in rule if key not in value)} is missing"
        case "pattern":
            return f"{show(value)} is not of the form {rule}"
        case "uniqueItems":
            return "an entry is there twice"
        case "minimum" | "maximum":
            return f"{show(value)} is {'below' if error.validator == 'minimum' else 'above'} {rule}"
    return error.message[:200]


def _wanted(error: ValidationError) -> str:
    """The types that would have been right."""
    types: list[str] = []
    for each in error.context or [error]:
        rule: Any = each.validator_value
        types += [rule] if isinstance(rule, str) else rule
    words = list(dict.fromkeys(NOUNS.get(each, each) for each in types if each != "null"))
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _shown(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else show(value)
