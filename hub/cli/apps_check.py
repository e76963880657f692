"""A deployment that is only thought through, as `lichen app check` and ``--dry-run`` show it.

Pure but for printing: it says what the hub has found (`AppCheck` of the API), worst last, where one looks.
"""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from agent.wire import words
from hub.cli.output import console, print_difference, print_table

COLOURS = {"refused": "red", "warned": "yellow", "emulated": "cyan", "ignored": "dim"}


def show(found: dict[str, Any], *, show_all: bool) -> None:
    """Print what deploying would do, and everything that is in its way."""
    _verdicts(found["verdicts"], show_all=show_all)
    if found["difference"]:
        click.echo("What would change:")
        print_difference(found["difference"], indent="  ")
    for each in found["secrets"]:
        if each["state"] == "due":
            click.echo(f"The secret {each['name']} ({each['version']}) will be made up.")
    for board in found["boards"]:
        if board["presence"] != "online":
            click.echo(f"{board['name']} is {board['presence']}: it gets the app when it is back.")
    for note in found["notes"]:
        click.echo(words.plain(f"Note: {note}"))
    what = " ".join(filter(None, (found["app"], found["version"])))
    if found["problems"]:
        click.echo(f"{what} cannot be deployed like this:")
        for problem in found["problems"]:
            console().print(Text(words.plain(f"  {problem}"), style="red"), soft_wrap=True)
        return
    boards = ", ".join(board["name"] for board in found["boards"])
    click.echo(f"{what} can be deployed{f' on {boards}' if boards else ''}.")


def _verdicts(verdicts: list[dict[str, Any]], *, show_all: bool) -> None:
    shown = [each for each in verdicts if show_all or each["verdict"] != "supported"]
    if shown:
        print_table(
            ("where", "key", "", ""),
            [
                (
                    f"{each['file']}:{each['line']}",
                    each["key"],
                    Text(each["verdict"], style=COLOURS.get(each["verdict"], "")),
                    each["reason"],
                )
                for each in shown
            ],
        )
    quiet = len(verdicts) - len(shown)
    if quiet:
        click.echo(f"{quiet} keys are supported{' as they are' if shown else ''}; --all lists them.")
