"""What can be done with an app, each on a page of its own: what will happen on which boards, then the button.

Owns the words for each deed.  A deed is done by `hub.apps.deploy`; one that was looked at before somebody
else changed the app is shown anew instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from agent.wire.errors import Busy, LinkDown, Refused
from agent.wire.order import Service
from hub.apps.deploy import MOST_REPLICAS
from hub.apps.view import AppPicture, is_at_work
from hub.web.guard import PRINCIPAL
from hub.web.pages.apps.one import app_page, boards_of, picture_at
from hub.web.pages.apps.shown import boards_in_words
from hub.web.pages.forms import integer_of, read_form
from hub.web.pages.render import go
from hub.web.parts import Parts, parts_of
from hub.web.problems import status_of


@dataclass(frozen=True, slots=True)
class Deed:
    """A deed before it is done; ``name`` is the last part of its address.

    ``effect`` says what happens on a board, ``button`` the deed; ``other`` is a second way to do it:
    a sentence and its own button.  ``services`` are to choose from, or to count.
    """

    name: str
    title: str
    effect: str
    button: str
    boards: tuple[str, ...]
    services: tuple[Service, ...] = ()
    difference: tuple[str, ...] = ()
    other: tuple[str, str] | None = None
    is_danger: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)


async def show_deed(request: web.Request) -> web.Response:
    """The page before the deed."""
    return await _page(request, await picture_at(request), request.query.get("to", "0"))


async def do_deed(request: web.Request) -> web.Response:
    """The deed itself."""
    form = await read_form(request)
    picture = await picture_at(request)
    try:
        if form.get("revision") != str(picture.revision):
            raise Refused(
                f"{picture.author} has changed {picture.name} meanwhile",
                code="conflict",
                hint="below is what would happen now",
            )
        await _do(parts_of(request), request[PRINCIPAL].admin, picture, request.match_info["deed"], form)
    except (Refused, Busy, LinkDown) as error:
        return await _page(request, picture, form.get("to", "0"), error=error, form=form)
    return go(request, f"/apps/{picture.name}")


async def _do(parts: Parts, admin: str, picture: AppPicture, name: str, form: Mapping[str, str]) -> None:
    """Do it.  Raises Refused, Busy, LinkDown."""
    app, deploy, why = picture.name, parts.desk.deploy, form.get("message", "")[:1000]
    match name:
        case "restart":
            chosen = [key.removeprefix("service.") for key in form if key.startswith("service.")]
            if not chosen:
                raise Refused("no service is chosen")
            everything = {each.name for each in await _services(parts, app)} == set(chosen)
            await deploy.restart(app, admin, services=[] if everything else chosen, message=why)
        case "scale":
            counts = {
                service: integer_of(service, text, 0, MOST_REPLICAS)
                for key, text in form.items()
                if (service := key.removeprefix("replicas.")) != key
            }
            now = {each.name: each.replicas for each in await _services(parts, app)}
            changed = {service: count for service, count in counts.items() if now.get(service) != count}
            if not changed:
                raise Refused("that is how many there are already")
            await deploy.scale(app, changed, admin, message=why)
        case "rollback":
            to = integer_of("to", form.get("to", "0"), 0, 2**31)
            await deploy.rollback(app, admin, to=to, message=why)
        case "remove":
            await deploy.undeploy(app, admin, volumes=form.get("volumes") == "1", message=why)
        case "stop":
            await deploy.stop(app, admin, message=why)
        case "start":
            await deploy.start(app, admin, message=why)
        case "cancel":
            await deploy.cancel(app, admin, message=why)


async def _services(parts: Parts, app: str) -> tuple[Service, ...]:
    """The services of an app with the replicas of now.  Raises Refused."""
    changes = parts.desk.changes
    async with parts.store.read() as tx:
        standing = await changes.standing(tx, app)
    return (await changes.manifests.compile(app, standing.base.content)).app.services


# --- before it ---------------------------------------------------------------------------------


async def _page(
    request: web.Request,
    picture: AppPicture,
    to: str,
    *,
    error: Refused | Busy | LinkDown | None = None,
    form: Mapping[str, str] | None = None,
) -> web.Response:
    deed = await _foresee(parts_of(request), picture, request.match_info["deed"], to)
    known = {place.name: place for place in picture.boards}
    values = {
        "deed": deed,
        "on": [(name, known.get(name)) for name in deed.boards],
        "error": error,
        "form": form or {},
        "most": MOST_REPLICAS,
        "working": [place.name for place in picture.boards if is_at_work(place) and deed.name != "cancel"],
    }
    return app_page(request, picture, "app_deed.html", values, status=status_of(error) if error else 200)


async def _foresee(parts: Parts, picture: AppPicture, name: str, to: str) -> Deed:
    """What a deed would do.  Raises Refused when there is nothing to do it to."""
    app = picture.name
    there = tuple(board.name for board in await boards_of(parts, app))
    if name == "remove":
        return _removal(picture, there)
    if name == "cancel":
        return await _cancelling(parts, picture)
    if name == "rollback":
        return await _rollback(parts, app, to)
    if not there:
        raise Refused(f"{app} is on no board", code="not-found", hint="deploy it anew first")
    where = boards_in_words(there)
    if name == "stop":
        effect = "its containers are stopped, and start again when you say so; all that it has stays"
        return Deed(name, f"Stop {app}", effect, f"Stop {app} on {where}", there)
    if name == "start":
        return Deed(name, f"Start {app}", "its containers are started", f"Start {app} on {where}", there)
    services = await _services(parts, app)
    if name == "restart":
        effect = (
            "new containers take the place of the old ones, with the images of now and the newest secrets"
        )
        return Deed(name, f"Restart {app}", effect, f"Restart {app} on {where}", there, services)
    effect = "containers are added or stopped until there are so many"
    return Deed(name, f"Scale {app}", effect, f"Scale {app} on {where}", there, services)


def _removal(picture: AppPicture, there: tuple[str, ...]) -> Deed:
    app = picture.name
    if there:
        where = boards_in_words(there)
        return Deed(
            "remove",
            f"Remove {app}",
            "its containers, networks and secrets are removed; its history stays here",
            f"Remove {app} from {where}, keep its volumes",
            there,
            other=(
                "Its volumes hold what it has stored. Once they are deleted, nobody can bring that back.",
                f"Remove {app} from {where} with all that it has stored",
            ),
            is_danger=True,
        )
    return Deed(
        "remove",
        f"Delete what {app} has left behind",
        "volumes that it left behind are deleted, for good",
        f"Delete the volumes of {app}",
        tuple(place.name for place in picture.boards),
        is_danger=True,
        hidden={"volumes": "1"},
    )


async def _cancelling(parts: Parts, picture: AppPicture) -> Deed:
    app = picture.name
    way = await parts.desk.deploy.way_out(app)
    if not way.number:
        return Deed(
            "cancel",
            f"Cancel the first deployment of {app}",
            "what has been begun is taken back; it is on no board then",
            "Cancel, and remove it",
            tuple(place.name for place in picture.boards),
            difference=way.difference,
        )
    return Deed(
        "cancel",
        f"Cancel the change of {app}",
        f"it goes back to what revision {way.number} was",
        f"Cancel, and go back to revision {way.number}",
        way.boards,
        difference=way.difference,
    )


async def _rollback(parts: Parts, app: str, to: str) -> Deed:
    way = await parts.desk.deploy.way_back(app, to=integer_of("to", to, 0, 2**31))
    where = boards_in_words(way.boards) if way.boards else "no board"
    return Deed(
        "rollback",
        f"Roll {app} back to revision {way.number}",
        f"it becomes what revision {way.number} was: files, variables and images; replicas stay as they are",
        f"Roll back {where} to revision {way.number}",
        way.boards,
        difference=way.difference,
        hidden={"to": str(way.number)},
    )
