"""Recipes as the API takes them: the files of a folder, how they are filled in, and where they are to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length
from agent.wire.errors import Refused
from agent.wire.order import AppName
from hub.apps.recipe import read_env
from hub.apps.wish import Wish

MAX_RECIPE = 4 * 1024 * 1024
"""Largest body with a recipe in it, in bytes."""
Files = Annotated[dict[str, str], Length(0, 256)]
Env = Annotated[dict[str, str], Length(0, 4096)]
EnvFile = Annotated[str, Length(0, 512 * 1024)]
Boards = Annotated[tuple[Annotated[str, Length(1, 64)], ...], Length(0, 1000)]
Message = Annotated[str, Length(0, 1000)]


@dataclass(frozen=True, slots=True)
class RecipeToDeploy:
    """What is to be deployed; what is left out stays as it is.

    ``files`` of the recipe's folder by path; ``env``: all variables, or ``env_file``: the text of a .env
    file that has them; ``set`` changes only some (null removes one).  Without any of these a new app gets
    those of its .env.sample.  ``boards`` by name or id, and all with these ``labels``.  ``message`` says why.
    """

    files: Files | None = None
    env: Env | None = None
    env_file: EnvFile | None = None
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
    env_file: EnvFile | None = None
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
    env_file: EnvFile | None = None
    set: Annotated[dict[str, str | None], Length(0, 4096)] = field(default_factory=dict)
    boards: Boards = ()
    labels: dict[str, str] = field(default_factory=dict)


def wish_of(body: RecipeToDeploy | NewApp | RecipeToCheck) -> Wish:
    """What such a body wishes for.  Raises Refused (code "env") for an ``env_file`` that is none."""
    message = "" if isinstance(body, RecipeToCheck) else body.message
    env = body.env
    if body.env_file is not None:
        if env is not None:
            raise Refused("env and env_file both say all variables: give one of them")
        env = read_env(body.env_file, file="the env file")
    return Wish(body.files, env, body.set, body.boards, body.labels, message)
