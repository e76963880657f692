"""What is done to an app that is there: roll back, scale, restart, stop, start, undeploy, cancel.

Each is a revision of its own, with its author and a reason, and ends as `hub.cli.apps_waiting` says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from hub.cli.apps_waiting import Patience, conclude, message_option, waits
from hub.cli.client import Hub
from hub.cli.root import asks_hub, json_option


class Replicas(click.ParamType[tuple[str, int]]):
    """A service and how many containers of it, typed as SERVICE=NUMBER."""

    name = "service=number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        service, _, number = value.partition("=")
        if not service or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r} is not SERVICE=NUMBER", param, ctx)
        return service, int(number)


@click.command()
@click.argument("app")
@click.option("--to", type=click.IntRange(1), metavar="REVISION", help="Which (default: what ran before).")
@message_option
@waits
@json_option
@asks_hub
async def rollback(
    hub: Hub, app: str, to: int | None, message: str, patience: Patience, as_json: bool
) -> None:
    """Go back to an earlier version of APP: its files, variables and images.

    \b
    lichen app rollback blog --wait
    lichen app rollback blog --to 3 -m "1.8 loses comments"
    """
    await _post(hub, app, "rollback", {"revision": to or 0, "message": message}, patience, as_json)


@click.command()
@click.argument("app")
@click.argument("services", type=Replicas(), metavar="SERVICE=NUMBER...", nargs=-1, required=True)
@message_option
@waits
@json_option
@asks_hub
async def scale(
    hub: Hub,
    app: str,
    services: tuple[tuple[str, int], ...],
    message: str,
    patience: Patience,
    as_json: bool,
) -> None:
    """Run so many containers of a service of APP.

    \b
    lichen app scale blog web=2 --wait
    """
    await _post(hub, app, "scale", {"services": dict(services), "message": message}, patience, as_json)


@click.command()
@click.argument("app")
@click.argument("services", nargs=-1)
@message_option
@waits
@json_option
@asks_hub
async def restart(
    hub: Hub, app: str, services: tuple[str, ...], message: str, patience: Patience, as_json: bool
) -> None:
    """Make the containers of APP anew, of all SERVICES or of some; they get the secrets of now.

    \b
    lichen app restart blog web --wait
    """
    await _post(hub, app, "restart", {"services": services, "message": message}, patience, as_json)


@click.command()
@click.argument("app")
@message_option
@waits
@json_option
@asks_hub
async def stop(hub: Hub, app: str, message: str, patience: Patience, as_json: bool) -> None:
    """Stop APP; everything stays where it is, for `lichen app start`.

    \b
    lichen app stop blog -m "the pump house is painted"
    """
    await _post(hub, app, "stop", {"message": message}, patience, as_json)


@click.command()
@click.argument("app")
@message_option
@waits
@json_option
@asks_hub
async def start(hub: Hub, app: str, message: str, patience: Patience, as_json: bool) -> None:
    """Start APP again after `lichen app stop`.

    \b
    lichen app start blog --wait
    """
    await _post(hub, app, "start", {"message": message}, patience, as_json)


@click.command()
@click.argument("app")
@message_option
@waits
@json_option
@asks_hub
async def cancel(hub: Hub, app: str, message: str, patience: Patience, as_json: bool) -> None:
    """Give up the change of APP that is under way, and go back to what was before it.

    \b
    lichen app cancel blog
    """
    await _post(hub, app, "cancel", {"message": message}, patience, as_json)


@click.command()
@click.argument("app")
@click.option("--volumes", is_flag=True, help="With all that it has stored in its volumes.")
@message_option
@waits
@json_option
@asks_hub
async def undeploy(
    hub: Hub, app: str, volumes: bool, message: str, patience: Patience, as_json: bool
) -> None:
    """Take APP off its boards. Its volumes stay unless you say --volumes; its history stays.

    \b
    lichen app undeploy blog --wait
    lichen app undeploy blog --wait --volumes
    """
    params = {"volumes": int(volumes), "message": message}
    made = await hub.call("DELETE", f"/apps/{quote(app, safe='')}", params=params)
    await conclude(hub, made, patience, as_json=as_json)


async def _post(
    hub: Hub, app: str, action: str, body: dict[str, Any], patience: Patience, as_json: bool
) -> None:
    made = await hub.call("POST", f"/apps/{quote(app, safe='')}/{action}", json=body)
    await conclude(hub, made, patience, as_json=as_json)


COMMANDS = (rollback, scale, restart, stop, start, undeploy, cancel)
