"""`lichen registry`: who this hub is, and its boards, where images are not for everybody."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import click

from hub.cli.client import Hub
from hub.cli.output import print_json, print_table
from hub.cli.root import asks_hub, json_option
from hub.cli.secrets import file_option, made, unseen


@click.group()
def registry() -> None:
    """Registries with images that are not for everybody.

    \b
    lichen registry set ghcr.io --user ada
    lichen registry ls
    """


@registry.command("ls")
@json_option
@asks_hub
async def list_registries(hub: Hub, as_json: bool) -> None:
    """List the registries at which this hub is somebody.

    \b
    lichen registry ls
    """
    answer = await hub.call("GET", "/registries")
    if as_json:
        return print_json(answer)
    if not answer["registries"]:
        return click.echo("No logins at registries; public images need none.")
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (each["registry"], each["user"], made(each["changed_ms"], now_ms), each["author"])
        for each in answer["registries"]
    ]
    print_table(("registry", "user", "set", "by"), rows)


@registry.command("set")
@click.argument("registry")
@click.option("--user", required=True, help="Who to be there.")
@file_option
@json_option
@asks_hub
async def set_registry(hub: Hub, registry: str, user: str, file: Path | None, as_json: bool) -> None:
    """Log in at REGISTRY, its host and port, with a password or a token.

    It is read from standard input, from a --file, or typed unseen. The hub looks images up with it; boards
    get it, sealed, with orders for images from there.

    \b
    lichen registry set ghcr.io --user ada
    lichen registry set registry.example.org:5000 --user fleet --file token
    """
    body = {"user": user, "password": unseen(f"Password of {user} at {registry}", file).rstrip("\n")}
    answer = await hub.call("PUT", f"/registries/{quote(registry, safe='')}", json=body)
    print_json(answer) if as_json else click.echo(f"This hub is {user} at {registry}.")


@registry.command("rm")
@click.argument("registry")
@json_option
@asks_hub
async def remove_registry(hub: Hub, registry: str, as_json: bool) -> None:
    """Forget the login at REGISTRY.

    \b
    lichen registry rm ghcr.io
    """
    await hub.call("DELETE", f"/registries/{quote(registry, safe='')}")
    print_json({"removed": registry}) if as_json else click.echo(f"The login at {registry} is forgotten.")
