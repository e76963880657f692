"""`lichen secret`: what an app must know and nobody else.

Owns how something secret gets in, also for `hub.cli.registries`: from standard input, from a file, or typed
unseen; never as an argument, which every user of the machine could read.  No value is ever printed, and the
hub tells none.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import quote

import click

from agent.wire.errors import ConfigError
from hub.cli.client import Hub
from hub.cli.output import age, print_json, print_table
from hub.cli.root import asks_hub, json_option

file_option = click.option(
    "--file", type=click.Path(path_type=Path), help="Read it from this file, as it is to the last byte."
)


@click.group()
def secret() -> None:
    """Secrets of apps. They are kept encrypted, sealed for each board, and never shown again.

    \b
    lichen secret ls blog
    openssl rand -hex 16 | lichen secret set blog db_password
    """


@secret.command("ls")
@click.argument("app")
@json_option
@asks_hub
async def list_secrets(hub: Hub, app: str, as_json: bool) -> None:
    """List the secrets that APP asks for, and whether each has a value.

    \b
    lichen secret ls blog
    """
    answer = await hub.call("GET", f"/apps/{quote(app, safe='')}/secrets")
    if as_json:
        return print_json(answer)
    if not answer["secrets"]:
        return click.echo(f"{app} asks for no secrets.")
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (each["name"], each["version"], each["state"], made(each.get("made_ms"), now_ms), each["author"])
        for each in answer["secrets"]
    ]
    print_table(("secret", "version", "state", "made", "by"), rows)


def made(at_ms: int | None, now_ms: int) -> str:
    """How long ago something was made; empty when it was not."""
    return "" if at_ms is None else f"{age(at_ms, now_ms)} ago"


@secret.command("set")
@click.argument("app")
@click.argument("name")
@file_option
@click.option("--generate", is_flag=True, help="Let the hub make one up, by the recipe's hint.")
@click.option("--version", default="", help="Of this version (default: the one that the app asks for).")
@json_option
@asks_hub
async def set_secret(
    hub: Hub, app: str, name: str, file: Path | None, generate: bool, version: str, as_json: bool
) -> None:
    """Give the secret NAME of APP a value: from standard input, from a --file, or typed unseen.

    Of what comes from standard input the last line break is left out. Boards get the value with the next
    change of the app. It may be set before the app is deployed.

    \b
    lichen secret set blog db_password
    lichen secret set blog tls_key --file key.pem
    lichen secret set blog session_key --generate
    """
    if generate and file is not None:
        raise click.UsageError("--generate and --file exclude each other")
    body = {"value": None if generate else unseen(f"Value of {name}", file), "version": version}
    path = f"/apps/{quote(app, safe='')}/secrets/{quote(name, safe='')}"
    answer = await hub.call("PUT", path, json=body)
    if as_json:
        return print_json(answer)
    done = "made up" if generate else "set"
    click.echo(f"The secret {name} of {app} is {done}. A running app gets it with: lichen app restart {app}")


@secret.command("rm")
@click.argument("app")
@click.argument("name")
@click.option("--version", default="", help="Of this version (default: the one that the app asks for).")
@json_option
@asks_hub
async def remove_secret(hub: Hub, app: str, name: str, version: str, as_json: bool) -> None:
    """Forget the secret NAME of APP; not while a board uses it.

    \b
    lichen secret rm blog db_password --version v1
    """
    path = f"/apps/{quote(app, safe='')}/secrets/{quote(name, safe='')}"
    await hub.call("DELETE", path, params={"version": version})
    print_json({"removed": name}) if as_json else click.echo(f"The secret {name} of {app} is forgotten.")


def unseen(prompt: str, file: Path | None) -> str:
    """What must not be seen.  Raises ConfigError for what is no text."""
    if file is not None:
        try:
            return _text(file.read_bytes(), str(file))
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, err=True))
    return _text(sys.stdin.buffer.read(), "standard input").removesuffix("\n")


def _text(data: bytes, where: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where} is no text, and a secret has to be", hint="encode it, as base64 does"
        ) from error
    if not text.strip("\n"):
        raise ConfigError(f"{where} is empty", hint="pipe the value in, or name a --file")
    return text
