"""Recipes as the API takes them: the files of a folder, how they are filled in, and where they are to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length
from agent.wire.order import AppName
from hub.apps.wish import Wish

MAX_RECIPE = 4 * 1024 * 1024
"""Largest body with a recipe in it, in bytes."""
Files = Annotated[dict[str, str], Length(0, 256)]
Env = Annotated[dict[str, str], Length(0, 4096)]
Boards = Annotated[tuple[Annotated[str, Length(1, 64)], ...], Length(0, 1000)]
Message = Annotated[str, Length(0, 1000)]


@dataclass(frozen=True, slots=True)
class RecipeToDeploy:
    """What is to be deployed; what is left out stays as it is.

    ``files`` of the recipe's folder by path; ``env``: all variables, or ``set`` only some (null removes
    one).  Without either a new app gets those of its .env.sample.  ``boards`` by name or id, and all with
    these ``labels``.  ``message`` says why.
    """

    files: Files | None = None
    env: Env | None = None
    set: Annotated[dict[str, str | None], Length(0, 4096)] = field(default_factory=dict)
    boards: Boards = ()
    labels: dict[str, str] = field(default_factory=dict)
    message: Message = ""


@dataclass(frozen=True, slots=True)
class NewApp:
    """An app that is not there yet; see RecipeToDeploy."""

    name: AppName
    files: Files
    env: Env | None = None
    set: Annotated[dict[str, str | None], Length(0, 4096)] = field(default_factory=dict)
    boards: Boards = ()
    labels: dict[str, str] = field(default_factory=dict)
    message: Message = ""


@dataclass(frozen=True, slots=True)
class RecipeToCheck:
    """What might be deployed, as an app that is there or a new one; see RecipeToDeploy."""

    name: AppName
    files: Files | None = None
    env: Env | None = None
    set: Annotated[dict[str, str | None], Length(0, 4096)] = field(default_factory=dict)
    boards: Boards = ()
    labels: dict[str, str] = field(default_factory=dict)


def wish_of(body: RecipeToDeploy | NewApp | RecipeToCheck) -> Wish:
    """What such a body wishes for."""
    message = "" if isinstance(body, RecipeToCheck) else body.message
    return Wish(body.files, body.env, body.set, body.boards, body.labels, message)
