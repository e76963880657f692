"""What a revision consists of, and how two of them differ.  Pure.

Owns the lines that a history shows: of files as a unified diff, of the rest by name.  There are no secrets
in a revision, only their versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff

from hub.store.apps import Pins, RevisionRow

MOST_LINES = 2_000
LONGEST_LINE = 500


@dataclass(frozen=True, slots=True)
class Content:
    """What is asked for: a recipe, how it is filled in, and where it is to be.

    ``boards`` are ids; none: it is to go.  ``pins``: of each image as the recipe has it its digests.
    """

    files: Mapping[str, str] = field(repr=False)
    env: Mapping[str, str]
    boards: tuple[str, ...]
    pins: Pins = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    restarted: Mapping[str, int] = field(default_factory=dict)
    stopped: bool = False


def content_of(row: RevisionRow, files: Mapping[str, str]) -> Content:
    """The content of a revision that was stored."""
    return Content(files, row.env, row.boards, row.pins, row.scale, row.restarted, row.stopped)


def difference(before: Content | None, after: Content, names: Mapping[str, str]) -> list[str]:
    """What is new in ``after``, in lines; ``names`` of boards by id."""
    before = before or Content({}, {}, ())
    lines: list[str] = []
    lines += _plain("board", _named(before.boards, names), _named(after.boards, names))
    lines += _plain("", before.env, after.env)
    lines += _plain("replicas of ", before.scale, after.scale)
    lines += _plain("restarts of ", before.restarted, after.restarted)
    lines += _plain("", *({"stopped": "yes"} if each.stopped else {} for each in (before, after)))
    lines += _plain("image ", _flat(before.pins), _flat(after.pins))
    for path in sorted(before.files.keys() | after.files.keys()):
        lines += _file(path, before.files.get(path, ""), after.files.get(path, ""))
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"... and {len(lines) - MOST_LINES + 1} more lines"]
    return [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..." for line in lines]


def _plain(what: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterable[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            if old is not None:
                yield f"- {what}{name}{f'={old}' if old != '' or what == '' else ''}"
            if new is not None:
                yield f"+ {what}{name}{f'={new}' if new != '' or what == '' else ''}"


def _named(boards: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    return {f" {names.get(board, board)}": "" for board in boards}


def _flat(pins: Pins) -> dict[str, str]:
    return {
        f"{image} {platform}": digest for image, each in pins.items() for platform, digest in each.items()
    }


def _file(path: str, before: str, after: str) -> list[str]:
    if before == after:
        return []
    old, new = path if before else "/dev/null", path if after else "/dev/null"
    return list(unified_diff(before.splitlines(), after.splitlines(), old, new, n=2, lineterm=""))
