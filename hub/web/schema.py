"""JSON Schema of our dataclasses: what `agent.wire.decode` accepts and `dumps` writes.

Owns the translation of annotations into JSON Schema 2020-12, the dialect of OpenAPI 3.1;
`hub.web.openapi` calls it.  It reads types only and knows nothing of routes.

>>> from agent.wire.messages import Held
>>> Schemas().add(Held, written=True)
{'$ref': '#/components/schemas/Held'}
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from agent.wire.decode import Length, Match, Range

SCALARS: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    Any: {},
}


class Schemas:
    """The named schemas that a document refers to, collected while it is built."""

    def __init__(self) -> None:
        self.named: dict[str, dict[str, Any]] = {}
        self._written: dict[type, bool] = {}

    def add(self, annotation: Any, *, written: bool) -> dict[str, Any]:
        """The schema of a type, as it is ``written`` by us or read from a caller.

        The two differ in what is required: we write every field but an absent None, and a
        caller may leave out every field that has a default.
        """
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation in SCALARS:
            return dict(SCALARS[annotation])
        if origin is Annotated:
            return self._marked(self.add(args[0], written=written), args[1:])
        if origin is Literal:
            return {**SCALARS[type(args[0])], "enum": list(args)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.add(each, written=written) for each in args]}
        if annotation is types.NoneType:
            return {"type": "null"}
        if origin is tuple:
            return self._tuple(args, written)
        if origin is dict:
            return {"type": "object", "additionalProperties": self.add(args[1], written=written)}
        if dataclasses.is_dataclass(annotation):
            return self._dataclass(annotation, written)
        raise TypeError(f"no JSON Schema for {annotation!r}")

    def _tuple(self, args: tuple[Any, ...], written: bool) -> dict[str, Any]:
        if args[-1] is Ellipsis:
            return {"type": "array", "items": self.add(args[0], written=written)}
        items = [self.add(each, written=written) for each in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _marked(self, schema: dict[str, Any], marks: tuple[Any, ...]) -> dict[str, Any]:
        for mark in marks:
            match mark:
                case Range(low, high):
                    schema |= {"minimum": low, "maximum": high}
                case Length(low, high):
                    kind = "Length" if schema["type"] == "string" else "Items"
                    if schema["type"] == "object":
                        kind = "Properties"
                    schema |= {f"min{kind}": low, f"max{kind}": high}
                case Match(pattern, what):
                    schema |= {"pattern": f"^(?:{pattern})$", "description": what}
        return schema

    def _dataclass(self, cls: Any, written: bool) -> dict[str, Any]:
        name = cls.__name__
        if name not in self.named:
            self.named[name] = {}  # a type may contain itself
            self._written[cls] = written
            self.named[name] |= self._object(cls, written)
        elif self._written.get(cls) is not written:
            # One name with two meanings would make the document lie about one of them.
            raise TypeError(f"{name} is both read and written, or there are two of that name")
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, cls: Any, written: bool) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=True)
        fields = dataclasses.fields(cls)
        return {
            "type": "object",
            "description": inspect.cleandoc(cls.__doc__ or ""),
            "properties": {field.name: self._property(field, hints, written) for field in fields},
            "required": [field.name for field in fields if is_required(field, written)],
            # Callers must not rely on today's fields being all of them; we refuse unknown ones.
            **({} if written else {"additionalProperties": False}),
        }

    def _property(
        self, field: dataclasses.Field[Any], hints: dict[str, Any], written: bool
    ) -> dict[str, Any]:
        schema = self.add(hints[field.name], written=written)
        if not written and isinstance(field.default, (str, int, float)):
            schema["default"] = field.default
        return schema


def is_required(field: dataclasses.Field[Any], written: bool) -> bool:
    """Whether a field is always there: see `Schemas.add`."""
    if written:
        return field.default is not None
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
