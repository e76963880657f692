"""The settings of an app: its variables, and its secrets, of which never a value is shown."""

from __future__ import annotations

from aiohttp import web

from agent.wire.errors import LichenError, Refused
from hub.apps.secrets import SecretState
from hub.web.api import secrets as api
from hub.web.api.route import Call
from hub.web.guard import PRINCIPAL
from hub.web.pages.apps.one import app_page, picture_at
from hub.web.pages.forms import read_fields
from hub.web.pages.render import go
from hub.web.parts import parts_of
from hub.web.problems import status_of


async def show_settings(request: web.Request) -> web.Response:
    """The page."""
    picture = await picture_at(request)
    found: tuple[SecretState, ...] = ()
    error: LichenError | None = None
    try:
        found = (await api.list_secrets(_call(request), picture.name)).secrets
    except Refused as refusal:  # a recipe of before that cannot be compiled any more
        error = refusal
    values = {"env": sorted(picture.env.items()), "secrets": found, "error": error, "newer": _newer}
    return app_page(request, picture, "app_settings.html", values)


async def show_secret(request: web.Request) -> web.Response:
    """The form for a new value."""
    return await _secret_page(request)


async def set_secret(request: web.Request) -> web.Response:
    """What it posts: a value, or that one is to be made up."""
    form = await read_fields(request)
    app, name = request.match_info["app"], request.match_info["secret"]
    value = form.get("value", "").replace("\r\n", "\n")
    try:
        if "generate" not in form and not value:
            raise Refused("there is no value", hint="type one, or have one made up")
        wanted = api.NewValue(None if "generate" in form else value, form.get("version", "").strip()[:128])
        await api.set_secret(_call(request), app, name, wanted)
    except Refused as error:
        return await _secret_page(request, error=error)
    return go(request, f"/apps/{app}/settings#secrets")


async def _secret_page(request: web.Request, *, error: Refused | None = None) -> web.Response:
    picture = await picture_at(request)
    name = request.match_info["secret"]
    found = (await api.list_secrets(_call(request), picture.name)).secrets
    states = [each for each in found if each.name == name]
    if not states:
        raise Refused(f"{picture.name} has no secret {name[:128]!r}", code="not-found")
    values = {"secret": states[0], "error": error}
    return app_page(request, picture, "app_secret.html", values, status=status_of(error) if error else 200)


def _newer(secret: SecretState, at_ms: int) -> bool:
    """Whether it was set after the last change of the app, so that boards do not have it yet."""
    return secret.state in ("set", "generated") and (secret.made_ms or 0) > at_ms


def _call(request: web.Request) -> Call:
    return Call(parts_of(request), request, request[PRINCIPAL])
