"""What can be done to an app, in the API.  Each is a revision, with its author and a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from agent.wire.decode import Length, Range
from agent.wire.order import AppName, Noun
from hub.apps.changes import Changed
from hub.apps.view import AppPicture, picture_of
from hub.web.api.recipes import Message, NewApp, RecipeToDeploy, wish_of
from hub.web.api.route import Call


@dataclass(frozen=True, slots=True)
class Reason:
    """Why."""

    message: Message = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """To which revision; 0: to the one before that was another version and did not fail."""

    revision: Annotated[int, Range(0, 2**53)] = 0
    message: Message = ""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many containers of each of these services; the others stay as they are."""

    services: Annotated[dict[str, Annotated[int, Range(0, 64)]], Length(1, 64)]
    message: Message = ""


@dataclass(frozen=True, slots=True)
class Restarting:
    """Which services; none: all."""

    services: Annotated[tuple[Noun, ...], Length(0, 64)] = ()
    message: Message = ""


@dataclass(frozen=True, slots=True)
class UndeployQuery:
    """How to take an app off its boards."""

    volumes: Annotated[int, Range(0, 1)] = field(
        default=0, metadata={"says": "1: with all that it has stored there"}
    )
    message: Message = field(default="", metadata={"says": "Why"})


@dataclass(frozen=True, slots=True)
class ChangeMade:
    """A change that is on its way to the boards.

    ``generated`` names the secrets that were made up for it, ``notes`` say what to know of how it was made.
    """

    revision: int
    notes: tuple[str, ...]
    generated: tuple[str, ...]
    app: AppPicture


async def new_app(call: Call, body: NewApp) -> ChangeMade:
    """Deploy a new app.

    Refused with `conflict` when there is one of that name. Everything that can be in the way is looked
    at before anything is touched.
    """
    return await _made(
        call, await call.parts.desk.deploy.deploy(body.name, wish_of(body), call.admin, new=True)
    )


async def deploy_app(call: Call, app: AppName, body: RecipeToDeploy) -> ChangeMade:
    """Deploy an app anew.

    With other files, variables or boards, or as it is: tags are looked up again. While a board works on
    another change of it this is refused with `busy`.
    """
    return await _made(call, await call.parts.desk.deploy.deploy(app, wish_of(body), call.admin, new=False))


async def roll_back_app(call: Call, app: AppName, body: Rollback) -> ChangeMade:
    """Go back to an earlier version, its images included."""
    done = await call.parts.desk.deploy.rollback(app, call.admin, to=body.revision, message=body.message)
    return await _made(call, done)


async def scale_app(call: Call, app: AppName, body: Scaling) -> ChangeMade:
    """Change how many containers of a service run."""
    done = await call.parts.desk.deploy.scale(app, body.services, call.admin, message=body.message)
    return await _made(call, done)


async def restart_app(call: Call, app: AppName, body: Restarting) -> ChangeMade:
    """Make the containers of an app anew.

    They get the secrets of now, and the images that they had.
    """
    done = await call.parts.desk.deploy.restart(app, call.admin, services=body.services, message=body.message)
    return await _made(call, done)


async def stop_app(call: Call, app: AppName, body: Reason) -> ChangeMade:
    """Stop an app; everything stays where it is."""
    return await _made(call, await call.parts.desk.deploy.stop(app, call.admin, message=body.message))


async def start_app(call: Call, app: AppName, body: Reason) -> ChangeMade:
    """Start an app that was stopped."""
    return await _made(call, await call.parts.desk.deploy.start(app, call.admin, message=body.message))


async def cancel_change(call: Call, app: AppName, body: Reason) -> ChangeMade:
    """Give up the change that is under way, and go back to what was before it."""
    return await _made(call, await call.parts.desk.deploy.cancel(app, call.admin, message=body.message))


async def undeploy_app(call: Call, app: AppName, query: UndeployQuery) -> ChangeMade:
    """Take an app off its boards.

    What it has stored in volumes stays, unless `volumes` says otherwise; its history stays.
    """
    done = await call.parts.desk.deploy.undeploy(
        app, call.admin, volumes=bool(query.volumes), message=query.message
    )
    return await _made(call, done)


async def _made(call: Call, done: Changed) -> ChangeMade:
    async with call.parts.store.read() as tx:
        picture = await picture_of(tx, done.app, call.parts.now_ms())
    return ChangeMade(done.revision, done.notes, done.generated, picture)
