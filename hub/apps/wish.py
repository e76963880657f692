"""What somebody wishes to deploy, and what that comes to beside what is there.  Mostly pure.

Owns the rule by which a wish that says little is filled up: from the base of the app (`hub.apps.changes`),
and from the .env.sample of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.wire.decode import decode
from agent.wire.errors import Refused
from agent.wire.order import App
from hub.apps.changes import Standing
from hub.apps.content import Content
from hub.apps.placement import choose_boards, successors
from hub.apps.recipe import SAMPLE, read_env
from hub.store.boards import BoardRow
from hub.store.database import Tx


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be deployed.  What is not given stays as it is: ``files``, ``env`` (all of it), ``boards``
    (by name or id) and ``labels`` of boards; ``set`` changes single variables, None removes one."""

    files: Mapping[str, str] | None = field(default=None, repr=False)
    env: Mapping[str, str] | None = None
    set: Mapping[str, str | None] = field(default_factory=dict)
    boards: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


async def wished_boards(tx: Tx, standing: Standing | None, wish: Wish) -> list[BoardRow]:
    """The boards that somebody names, or those on which the app is.  Raises Refused."""
    if wish.boards or wish.labels:
        return await choose_boards(tx, wish.boards, wish.labels)
    return await successors(tx, standing.base.content.boards) if standing else []


def wanted(standing: Standing | None, wish: Wish, rows: Sequence[BoardRow]) -> Content:
    """The content that somebody wishes for, on these boards.  Raises Refused (code "env", too)."""
    base = standing.base.content if standing else None
    files = wish.files if wish.files is not None else base.files if base else None
    if not files:
        raise Refused("a new app needs the files of its recipe", hint="name a folder with a compose.yml")
    if wish.env is not None:
        env = dict(wish.env)
    else:
        sample = read_env(files.get(SAMPLE, ""))
        known = read_env(base.files.get(SAMPLE, "")) if base else {}
        # What a new version of the recipe brings; what an operator took out stays out.
        env = {name: value for name, value in sample.items() if name not in known}
        env |= base.env if base else {}
    for name, value in wish.set.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    boards = tuple(row.id for row in rows)
    if standing is None or base is None or not standing.is_there:
        return Content(files, env, boards)  # how often it ran before it was taken off says nothing
    return replace(base, files=files, env=env, boards=boards, stopped=False)


def check_name(app: str) -> str:
    """Return ``app`` if an app can be called so.  Raises Refused."""
    if app == "new":
        raise Refused("no app can be called 'new'", hint="at /apps/new is the page of those that come")
    return decode(App, {"name": app, "revision": 1}).name
