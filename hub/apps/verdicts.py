"""Verdicts: each key of a compose document, looked up in the table of all keys.

Owns the walk through a document, and with it the question what is an unknown key.  Called by
`hub.apps.loader` for each file and by `hub.apps.compile` for the whole.  What is refused is a verdict here;
the compiler makes the error of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from agent.wire.decode import nearest
from hub.apps.draft import Verdict
from hub.apps.table import TABLE, Row
from hub.apps.tree import Node

MAX_HINTED = 16
EXTENSION = Row("ignored", "an extension; only x-lichen means something here")


def verdicts(document: Node) -> tuple[Verdict, ...]:
    """The verdict on every key, in the order of the document.

    Raises Refused (code "compose") for a key that compose does not know.
    """
    return tuple(_walk(document, ""))


def refusal(row: Row) -> str:
    """Why a key is refused."""
    return f"is not supported: {row.reason}"


@functools.cache
def known_keys(path: str) -> tuple[str, ...]:
    """The keys that the table has below one."""
    start = f"{path}." if path else ""
    below = (key[len(start) :] for key in TABLE if key.startswith(start))
    return tuple(key for key in below if "." not in key)


def _walk(node: Node, path: str) -> Iterator[Verdict]:
    """The verdicts below ``node``, whose path in the table is ``path``."""
    for each in node:
        yield from _walk(each, path)
    known = known_keys(path)
    if not known:
        return  # what is below has names that the recipe chooses, or speaks for itself
    for key, child in node.items():
        if known == ("*",):
            row_of = f"{path}.*"
        elif key in known or not key.startswith("x-"):
            row_of = f"{path}.{key}" if path else key
        else:
            yield _verdict(child, EXTENSION)
            continue
        row = TABLE.get(row_of)
        if row is None:
            near = nearest(key, known)
            suffix = f"; did you mean {near!r}?" if near else ""
            hint = f"known keys: {', '.join(sorted(known))}" if len(known) <= MAX_HINTED else ""
            raise child.refused(f"unknown key{suffix}", hint=hint)
        if not row_of.endswith("*"):
            yield _verdict(child, row)
        if row.judgement not in ("refused", "ignored"):
            yield from _walk(child, row_of)


def _verdict(node: Node, row: Row) -> Verdict:
    return Verdict(node.file, node.line, node.path, row.judgement, row.reason)
