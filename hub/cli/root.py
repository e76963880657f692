"""The root of `lichen`: its commands, how they reach the hub, and how errors end them.

Owns the exit status (one table, in `agent.wire.errors`) and the two decorators that every
command uses: `asks_hub` opens the connection, `json_option` adds ``--json``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Concatenate, ParamSpec

import click

from agent.wire.errors import LichenError, exit_code
from hub.cli.client import Hub, connect, load_login, login_file

P = ParamSpec("P")
SHELLS = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/lichen.fish"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")


def asks_hub(command: Callable[Concatenate[Hub, P], Awaitable[None]]) -> Callable[P, None]:
    """Run an async command with a connection to the hub that the user is logged in to."""

    @functools.wraps(command)
    def run_it(*args: P.args, **kwargs: P.kwargs) -> None:
        async def connected() -> None:
            login = load_login(login_file())
            async with connect(login.url, token=login.token, ca_pem=login.ca_pem) as hub:
                await command(hub, *args, **kwargs)

        try:
            asyncio.run(connected())
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; nothing more may be written at exit either.
            # Caught here because click would make a failure of it.
            sys.stdout = None
            raise click.exceptions.Exit(0) from None

    return run_it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("lichen"), prog_name="lichen")
def lichen() -> None:
    """Look after the boards of a Lichen hub.

    \b
    Begin with:
      lichen login http://127.0.0.1:8420   log in once; the login is kept in a file
      lichen token new --name pump-07      a join file for a new board
      lichen board ls                      the fleet at a glance
      lichen problem ls                    what is wrong, and what helps
      lichen readings pump-07 --since 1h   what a board has measured
      lichen watch                         values as they arrive
      lichen app deploy blog/ --board pump-07 --wait   an app on a board

    Every command that talks to a hub takes --json. Exit status: 0 done, 2 wrong usage,
    75 the hub cannot be reached or it is not done yet, 77 refused or failed (the reason is
    printed), 78 not logged in or bad configuration.
    """


@lichen.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    For bash:  lichen completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "SHELLS names only what click knows"
    click.echo(kind(lichen, {}, "lichen", "_LICHEN_COMPLETE").source())


def run() -> None:
    """Parse the command line, run the command, and exit."""
    try:
        # What a command raises as Exit comes back as a number.
        sys.exit(command_line().main(prog_name="lichen", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except LichenError as error:
        _complain(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(error: LichenError) -> None:
    click.echo(f"lichen: {error}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def command_line() -> click.Group:
    """`lichen` with its commands, which are imported here: they need this module themselves."""
    from hub.cli import (
        apps,
        apps_changes,
        apps_deploy,
        apps_logs,
        boards,
        login,
        problems,
        rates,
        readings,
        registries,
        secrets,
        tokens,
        usage,
        usage_files,
        usage_logs,
        usage_statement,
    )

    commands: list[Any] = [
        login.login,
        tokens.token,
        boards.board,
        apps.app,
        secrets.secret,
        registries.registry,
        rates.rate,
        usage.usage,
        problems.problem,
        readings.readings,
        readings.watch,
    ]
    for command in commands:
        lichen.add_command(command)
    for command in (*apps_deploy.COMMANDS, *apps_changes.COMMANDS, apps_logs.logs):
        apps.app.add_command(command)
    for command in (*usage_logs.COMMANDS, *usage_files.COMMANDS, *usage_statement.COMMANDS):
        usage.usage.add_command(command)
    return lichen
