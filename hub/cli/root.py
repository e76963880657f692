"""The root of `lichen`: its commands, how they reach the hub, and how errors end them.

Owns the exit status (one table, in `agent.wire.errors`) and the two decorators that every
command uses: `asks_hub` opens the connection, `json_option` adds ``--json``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Concatenate, ParamSpec

import click

from agent.wire.errors import LichenError, exit_code
from hub.cli.client import Hub, connect, load_login, login_file

P = ParamSpec("P")
SHELLS = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/lichen.fish"}

# By command: the module that has it, and those whose COMMANDS stand below it.
NOUNS = {
    "login": ("login",),
    "token": ("tokens",),
    "board": ("boards",),
    "app": ("apps", "apps_deploy", "apps_changes", "apps_logs"),
    "secret": ("secrets",),
    "registry": ("registries",),
    "rate": ("rates",),
    "usage": ("usage", "usage_logs", "usage_files", "usage_statement"),
    "problem": ("problems",),
    "readings": ("readings",),
    "watch": ("readings",),
}

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


class Commands(click.Group):
    """Each is imported when it is typed, and all of them to be listed: they need this module, and time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*NOUNS, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # For a name that nobody has, click looks for one that is near among all.
        names = (cmd_name,) if cmd_name in NOUNS or cmd_name in self.commands else NOUNS
        for name in names:
            if name not in self.commands:
                self.add_command(_imported(name))
        return super().get_command(ctx, cmd_name)


def _imported(name: str) -> click.Command:
    first, *others = (import_module(f"hub.cli.{module}") for module in NOUNS[name])
    command: click.Command = getattr(first, name)
    for module in others:
        assert isinstance(command, click.Group)
        for below in module.COMMANDS:
            command.add_command(below)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lichen", prog_name="lichen")
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
        sys.exit(lichen.main(prog_name="lichen", standalone_mode=False) or 0)
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
    """`lichen` with all of its commands."""
    for name in lichen.list_commands(context := click.Context(lichen)):
        lichen.get_command(context, name)
    return lichen
