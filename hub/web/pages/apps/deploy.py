"""Deploying an app, new or anew: one form, what it would do beside it as it is filled in, then the button.

The form posts to its own address.  The answer is the page again, filled in, with a look at what would happen;
only the button of a look deploys.  htmx takes from it what has to change, and without JavaScript it is a page
like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from agent.wire.errors import Busy, LichenError, LinkDown, Refused
from hub.apps.recipe import Field
from hub.apps.view import AppPicture
from hub.apps.wish import Wish
from hub.store import apps
from hub.web.guard import PRINCIPAL
from hub.web.pages.apps.look import Look, look_at, refuse_unseen
from hub.web.pages.apps.one import app_page, boards_of, picture_at
from hub.web.pages.apps.typed import Typed, proposed_name, read_typed
from hub.web.pages.render import go, page
from hub.web.parts import parts_of
from hub.web.problems import status_of


async def show_new(request: web.Request) -> web.Response:
    """The empty form; ``board`` in the address is ticked already."""
    return await _page(request, Typed(boards=tuple(request.query.getall("board", []))[:100]), None)


async def show_deploy(request: web.Request) -> web.Response:
    """The form with the app as it is."""
    picture = await picture_at(request)
    async with parts_of(request).store.read() as tx:
        row = await apps.get_app(tx, picture.name)
        files = await apps.read_recipe(tx, row.recipe)
    boards = tuple(board.id for board in await boards_of(parts_of(request), picture.name))
    typed = Typed(picture.name, files, boards=boards, was=row.env)
    # What an operator has taken out stays out.
    typed = replace(typed, given=dict.fromkeys((each.name for each in _fields(typed)), "") | row.env)
    return await _page(request, typed, picture)


async def post_new(request: web.Request) -> web.Response:
    """The form of a new app, to look at or to deploy."""
    typed = await read_typed(request)
    return await _post(request, replace(typed, name=typed.name or proposed_name(typed.files)), None)


async def post_deploy(request: web.Request) -> web.Response:
    """The form of an app that is there, to look at or to deploy."""
    picture = await picture_at(request)
    typed = await read_typed(request)
    return await _post(request, replace(typed, name=picture.name, was=picture.env), picture)


async def _post(request: web.Request, typed: Typed, there: AppPicture | None) -> web.Response:
    if not typed.seen:
        return await _page(request, typed, there)
    parts, admin = parts_of(request), request[PRINCIPAL].admin
    look = await look_at(parts, typed, there)
    try:
        refuse_unseen(typed, look)
        assert look.checked is not None, "it was seen"
        for secret in look.checked.secrets:
            if secret.state == "missing":
                value = typed.secrets[secret.name]
                await parts.desk.secrets.set(typed.name, secret.name, secret.version, value, admin)
        boards = tuple(choice.id for choice in look.choices if choice.chosen or choice.by_label)
        wish = Wish(typed.files, typed.env(), boards=boards, message=typed.message[:1000])
        await parts.desk.deploy.deploy(typed.name, wish, admin, new=there is None)
    except (Refused, Busy, LinkDown) as error:
        return await _page(request, typed, there, error=error, look=look)
    return go(request, f"/apps/{typed.name}")


async def _page(
    request: web.Request,
    typed: Typed,
    there: AppPicture | None,
    *,
    error: LichenError | None = None,
    look: Look | None = None,
) -> web.Response:
    look = look or await look_at(parts_of(request), typed, there)
    fields = _fields(typed)
    values: dict[str, Any] = {
        "typed": typed,
        "files": typed.listed(),
        "look": look,
        "fields": fields,
        "more": typed.others(fields),
        "action": f"/apps/{there.name}/deploy" if there else "/apps/new",
        "error": error,
        "at": _place_of_error,
    }
    status = status_of(error) if error else 200
    if there is not None:
        return app_page(request, there, "app_deploy.html", values, status=status)
    return page(request, "app_deploy.html", {**values, "app": None}, status=status)


def _fields(typed: Typed) -> tuple[Field, ...]:
    """The variables to fill in; none while the files cannot be read, which the look says."""
    try:
        return typed.fields()
    except Refused:
        return ()


def _place_of_error(error: LichenError) -> tuple[str, int]:
    """File and line that an error of a recipe begins with; line 0 where it has none.

    >>> _place_of_error(Refused("compose.yml:3: services: expected a mapping"))
    ('compose.yml', 3)
    """
    file, _, rest = str(error).partition(":")
    line = rest.partition(":")[0]
    return (file, int(line)) if line.isdigit() and len(line) < 8 else ("", 0)
