"""`lichen app check`, `deploy` and `upgrade`: from a folder on this machine to boards.

Owns the options that say what is to be deployed.  The hub decides what becomes of it; what it would do is
shown by `check` and by ``--dry-run``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from agent.wire.errors import Refused
from hub.cli import apps_check, recipes
from hub.cli.apps_waiting import Patience, conclude, message_option, waits
from hub.cli.client import Hub
from hub.cli.output import print_json
from hub.cli.root import asks_hub, json_option
from hub.cli.tokens import Label

LOOKING_UP_S = 300.0
"""How long the hub may take to ask registries."""


class Variable(click.ParamType[tuple[str, str]]):
    """A variable of an app, typed as KEY=VALUE; the value may be empty."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not a variable (KEY=VALUE)", param, ctx)
        return key, text


@dataclass(frozen=True, slots=True)
class Wish:
    """How somebody wants an app to be: its variables and its boards."""

    env_file: str | None
    set: dict[str, str | None]
    boards: tuple[str, ...]
    labels: dict[str, str]

    def body(self, files: dict[str, str] | None) -> dict[str, Any]:
        """As the API takes it, with the files of a recipe."""
        return {
            "files": files,
            "env_file": self.env_file,
            "set": self.set,
            "boards": self.boards,
            "labels": self.labels,
        }


def wishes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how an app is to be, as one `Wish`."""

    @click.option("--env-file", type=click.Path(path_type=Path), help="A .env file with all its variables.")
    @click.option("--set", "pairs", type=Variable(), multiple=True, help="One variable; repeatable.")
    @click.option("--unset", metavar="KEY", multiple=True, help="Without this variable; repeatable.")
    @click.option("--board", "boards", metavar="NAME", multiple=True, help="On this board; repeatable.")
    @click.option("--label", "labels", type=Label(), multiple=True, help="On all boards with it; repeatable.")
    @functools.wraps(command)
    def wishing(
        *args: Any,
        env_file: Path | None,
        pairs: tuple[tuple[str, str], ...],
        unset: tuple[str, ...],
        boards: tuple[str, ...],
        labels: tuple[tuple[str, str], ...],
        **others: Any,
    ) -> None:
        text = None if env_file is None else recipes.text(env_file)
        changes: dict[str, str | None] = {**dict(pairs), **dict.fromkeys(unset)}
        command(*args, wish=Wish(text, changes, boards, dict(labels)), **others)

    return wishing


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--name", default="", help="As the app of this name (default: as deploy would call it).")
@click.option("--all", "show_all", is_flag=True, help="Tell of supported keys, too.")
@wishes
@json_option
@asks_hub
async def check(hub: Hub, recipe: Path, name: str, show_all: bool, wish: Wish, as_json: bool) -> None:
    """Say what becomes of each key of RECIPE, a folder or a compose file, and what is in the way.

    Nothing is touched. With --board or --label it also says what those boards lack. Exit status 1 when
    something is refused or in the way.

    \b
    lichen app check blog/
    lichen app check blog/compose.yml --all
    lichen app check blog/ --board pump-07 --set DOMAIN=blog.example.org
    """
    found = _read(recipe, quiet=as_json)
    name = recipes.app_name(name or found.name)
    await _look(hub, name, wish.body(found.files), show_all=show_all, as_json=as_json)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Of the app (default: the recipe's `name:`, or the folder's name).")
@click.option("--dry-run", is_flag=True, help="Only say what it would do, and what is in the way.")
@wishes
@message_option
@waits
@json_option
@asks_hub
async def deploy(
    hub: Hub,
    recipe: Path,
    name: str,
    dry_run: bool,
    wish: Wish,
    message: str,
    patience: Patience,
    as_json: bool,
) -> None:
    """Bring an app to boards, or bring it up to what RECIPE is now.

    RECIPE is a folder with a compose.yml, or one compose file. What is not said stays as it was: the
    variables, and the boards. Secrets that are missing are made up by the hints in .env.sample.

    \b
    lichen app deploy blog/ --board pump-07 --wait
    lichen app deploy blog/ --label site=north --set DOMAIN=blog.example.org -m "new address"
    lichen app deploy blog/ --dry-run
    """
    found = _read(recipe, quiet=as_json)
    name = recipes.app_name(name or found.name)
    if dry_run:
        return await _look(hub, name, wish.body(found.files), show_all=False, as_json=as_json)
    body = {**wish.body(found.files), "message": message}
    if await _is_known(hub, name):
        made = await _deploy(hub, name, body)
    else:
        made = await hub.call("POST", "/apps", json={"name": name, **body}, within_s=LOOKING_UP_S)
    await conclude(hub, made, patience, as_json=as_json)


@click.command()
@click.argument("app")
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--dry-run", is_flag=True, help="Only say what it would do, and what is in the way.")
@wishes
@message_option
@waits
@json_option
@asks_hub
async def upgrade(
    hub: Hub,
    app: str,
    recipe: Path | None,
    dry_run: bool,
    wish: Wish,
    message: str,
    patience: Patience,
    as_json: bool,
) -> None:
    """Deploy APP anew: its images as their tags are now, or a new version of its RECIPE.

    \b
    lichen app upgrade blog --wait
    lichen app upgrade blog blog-1.8/ --dry-run
    """
    files = None if recipe is None else _read(recipe, quiet=as_json).files
    if dry_run:
        return await _look(hub, app, wish.body(files), show_all=False, as_json=as_json)
    made = await _deploy(hub, app, {**wish.body(files), "message": message})
    await conclude(hub, made, patience, as_json=as_json)


def _read(path: Path, *, quiet: bool) -> recipes.Recipe:
    recipe = recipes.read(path)
    if recipe.left_out and not quiet:
        some = ", ".join(recipe.left_out[:5])
        more = f" and {len(recipe.left_out) - 5} more" if len(recipe.left_out) > 5 else ""
        click.echo(f"Not uploaded: {some}{more}", err=True)
    return recipe


async def _deploy(hub: Hub, app: str, body: dict[str, Any]) -> Any:
    return await hub.call("POST", f"/apps/{quote(app, safe='')}/deploy", json=body, within_s=LOOKING_UP_S)


async def _is_known(hub: Hub, name: str) -> bool:
    """Whether the hub has, or had, an app of this name."""
    try:
        await hub.call("GET", f"/apps/{quote(name, safe='')}")
    except Refused as error:
        if error.code != "not-found":
            raise
        return False
    return True


async def _look(hub: Hub, name: str, body: dict[str, Any], *, show_all: bool, as_json: bool) -> None:
    """Tell what deploying would do.  Exit status 1 when it cannot be done."""
    found = await hub.call("POST", "/apps/check", json={"name": name, **body}, within_s=LOOKING_UP_S)
    if as_json:
        print_json(found)
    else:
        apps_check.show(found, show_all=show_all)
    if found["problems"]:
        raise click.exceptions.Exit(1)


COMMANDS = (check, deploy, upgrade)
