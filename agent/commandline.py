"""The command line of a board: what can be typed after `lichen-agent`, and what it calls.

Called by `agent.__main__`, and by docs/generate.py, which writes the reference from it.  Each command
imports only what it needs, so that looking at a board with little memory stays cheap; what the commands do
is in `agent.service`, `agent.commands`, `agent.workbench` and `agent.logbook`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import agent
from agent import config as configuration
from agent.base import journal, process
from agent.base.files import exists
from agent.config import Config

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

Command = Callable[[argparse.Namespace], int]


def _run(args: argparse.Namespace) -> int:
    from agent import service

    return service.run(args.config)


def _join(args: argparse.Namespace) -> int:
    from agent import commands

    journal.setup("warning")
    return _once(args, lambda config: commands.join_now(config, args.file))


def _status(args: argparse.Namespace) -> int:
    from agent import commands

    return _once(args, lambda config: commands.show_status(config, as_json=args.json))


def _doctor(args: argparse.Namespace) -> int:
    from agent import commands

    journal.setup("error")
    well: list[bool] = []

    async def run() -> None:
        path = configuration.find(args.config)
        well.append(await commands.show_health(path, as_json=args.json, history=args.history))

    return process.run(run) or (1 if False in well else 0)


def _config_check(args: argparse.Namespace) -> int:
    from agent import commands

    async def say(config: Config) -> None:
        commands.say(f"{configuration.find(args.config)} is good: {len(config.sensors)} sensors")

    return _once(args, say)


def _config_show(args: argparse.Namespace) -> int:
    from agent import commands

    async def say(config: Config) -> None:
        commands.say(f"# {configuration.find(args.config)}\n{configuration.show(config)}".rstrip())

    return _once(args, say)


def _sensors_scan(args: argparse.Namespace) -> int:
    from agent import workbench

    async def scan() -> None:
        # Finding sensors is what comes before there is a configuration.
        path = Path(args.config) if args.config else args.write or configuration.find()
        config = configuration.load(path) if exists(path) else Config()
        await workbench.scan_sensors(config, write=args.write)

    return process.run(scan)


def _sensors_ls(args: argparse.Namespace) -> int:
    from agent import workbench

    return _once(args, lambda config: workbench.list_sensors(config, as_json=args.json))


def _sensors_read(args: argparse.Namespace) -> int:
    from agent import workbench

    return _once(args, lambda config: workbench.read_sensors(config, args.name, as_json=args.json))


def _sensors_watch(args: argparse.Namespace) -> int:
    from agent import workbench

    async def watch(config: Config) -> None:
        await workbench.watch_sensors(config, args.name, every_s=args.every, as_json=args.json)

    journal.setup("error")  # what fails is shown where the value would be
    return _once(args, watch)


def _usage_show(args: argparse.Namespace) -> int:
    from agent import logbook

    return _once(
        args,
        lambda config: logbook.show_usage(
            config, last=args.last, app=args.app, epoch=args.epoch, as_json=args.json
        ),
    )


def _usage_verify(args: argparse.Namespace) -> int:
    from agent import logbook

    given = {"log_key": args.log_key, "hub_key": args.hub_key, "as_json": args.json}
    if args.folder is None:
        return _once(args, lambda config: logbook.verify_own(config, epoch=args.epoch, **given))

    async def verify() -> None:  # on any machine, so without a configuration
        logbook.verify_folder(args.folder, **given)

    return process.run(verify)


def _usage_export(args: argparse.Namespace) -> int:
    from agent import logbook

    return _once(args, lambda config: logbook.export_usage(config, args.folder, epoch=args.epoch))


def _once(args: argparse.Namespace, work: Callable[[Config], Awaitable[bool | None]]) -> int:
    """Do ``work`` with the configuration; 1 when it says that not all is well."""
    well: list[bool | None] = []

    async def run() -> None:
        well.append(await work(configuration.load(configuration.find(args.config))))

    return process.run(run) or (1 if False in well else 0)


# --- the command line --------------------------------------------------------------------------


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal.  argparse asks shutil for that, at each start, which takes 0.3 MB."""

    def __init__(self, prog: str) -> None:
        columns = os.environ.get("COLUMNS", "")
        try:
            width = int(columns) if columns.isdecimal() else os.get_terminal_size().columns
        except OSError:
            width = 0
        super().__init__(prog, width=(width or 80) - 2)


def parser() -> argparse.ArgumentParser:
    """The command line, from which the reference in docs is made too."""
    top = argparse.ArgumentParser(
        prog="lichen-agent",
        description="The Lichen agent: reports this board's sensors and capacity to its hub.",
        epilog="""examples:
  lichen-agent join --file join.toml    join a hub with what `lichen token new` printed there
  lichen-agent run                      sample and report, in the foreground
  lichen-agent status                   what is wrong? works without network, and when it is stopped
  lichen-agent doctor                   why? step by step from the card to the hub, and what to do
  lichen-agent sensors read             what do the sensors say right now?""",
        formatter_class=_Formatter,
    )
    top.add_argument("--version", action="version", version=f"lichen-agent {agent.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_life(commands)
    _add_config(
        commands.add_parser("config", formatter_class=_Formatter, help="check or show the configuration")
    )
    sensors = commands.add_parser(
        "sensors", formatter_class=_Formatter, help="find, list, read and watch sensors"
    )
    _add_sensors(sensors)
    _add_usage(
        commands.add_parser("usage", formatter_class=_Formatter, help="show, verify and export the usage log")
    )
    return top


def _add_life(commands: Parsers) -> None:
    _add(
        commands, "run", _run, "sample and report until stopped",
        """examples:
  lichen-agent run
  lichen-agent run --config ./agent.toml

Joins first when there is a join file, and waits for a hub that is not up yet.""",
    )  # fmt: skip
    join = _add(
        commands, "join", _join, "join a hub with a join file",
        """examples:
  lichen-agent join                     with join.toml in the state directory, or on the boot partition
  lichen-agent join --file join.toml

The join file is removed when that is done: its token has been used.""",
    )  # fmt: skip
    join.add_argument("--file", type=Path, metavar="FILE", help="the join file, TOML or JSON")
    status = _add(
        commands, "status", _status, "say how the board is",
        """examples:
  lichen-agent status
  lichen-agent status --json | jq .link

Exits with 0 when all is well, with 1 when a person should look.""",
    )  # fmt: skip
    _add_json(status)
    doctor = _add(
        commands, "doctor", _doctor, "look for what is wrong, and say what to do",
        """examples:
  lichen-agent doctor
  sudo lichen-agent doctor --history       with the problems that there have been
  lichen-agent doctor --json | jq '.checks[] | select(.level != "ok")'

Works without network, before joining, with a broken configuration, and when the agent is stopped.
Exits with 0 when all is well (ok and notice), with 1 otherwise (warn and fail).""",
    )  # fmt: skip
    _add_json(doctor)
    doctor.add_argument("--history", action="store_true", help="show the problems that there have been, too")


def _add_config(config: argparse.ArgumentParser) -> None:
    parts = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(parts, "check", _config_check, "say whether the configuration is good, or what is wrong with it")
    _add(parts, "show", _config_show, "print every key with its value")


def _add_sensors(sensors: argparse.ArgumentParser) -> None:
    parts = sensors.add_subparsers(title="commands", metavar="COMMAND", required=True)
    scan = _add(
        parts, "scan", _sensors_scan, "find what this machine offers to measure",
        """examples:
  lichen-agent sensors scan                       print it as TOML
  lichen-agent sensors scan --write agent.toml    add what the file does not have yet""",
    )  # fmt: skip
    scan.add_argument("--write", type=Path, metavar="FILE", help="the configuration file to add them to")
    _add_json(_add(parts, "ls", _sensors_ls, "list the configured sensors"))
    read = _add(
        parts, "read", _sensors_read, "ask sensors once and print what they say",
        """examples:
  lichen-agent sensors read
  lichen-agent sensors read cpu-temperature --json""",
    )  # fmt: skip
    _add_names(read)
    watch = _add(
        parts, "watch", _sensors_watch, "show what sensors say until Ctrl-C",
        """examples:
  lichen-agent sensors watch
  lichen-agent sensors watch button --every 0.5
  lichen-agent sensors watch --json | jq .value

A table on a terminal, else a line for each reading that would be stored, with --json as JSON.
What a deadband leaves out has no line.""",
    )  # fmt: skip
    _add_names(watch)
    watch.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="how often they are asked (default: 1)"
    )


def _add_usage(usage: argparse.ArgumentParser) -> None:
    parts = usage.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = _add(
        parts, "show", _usage_show, "print the newest records of the usage log",
        """examples:
  lichen-agent usage show
  lichen-agent usage show --app demo --last 100
  lichen-agent usage show --json | jq .cpu_us     each record exactly as it was logged, in a line""",
    )  # fmt: skip
    show.add_argument("--last", type=_count, default=20, metavar="N", help="how many (default: 20)")
    show.add_argument("--app", default="", metavar="NAME", help="of this app alone")
    _add_epoch(show)
    _add_json(show)
    verify = _add(
        parts, "verify", _usage_verify, "check every record, hash and signature of a usage log",
        """examples:
  lichen-agent usage verify                       the log of this board, as it lies on its disk
  lichen-agent usage verify DIR                   a folder that `export` wrote, copied from anywhere
  lichen-agent usage verify DIR --log-key KEY --hub-key KEY

Without keys a folder is checked with those that lie in it. Says which checkpoint and which receipt
it verified; else names the place that is wrong, and exits with 65.""",
    )  # fmt: skip
    verify.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="the folder; if left out, this board"
    )
    verify.add_argument("--log-key", default="", metavar="KEY", help="the public key of the board's log")
    verify.add_argument("--hub-key", default="", metavar="KEY", help="the public key of its hub's receipts")
    _add_epoch(verify)
    _add_json(verify)
    export = _add(
        parts, "export", _usage_export, "write the usage log into a folder, to be checked or carried",
        """examples:
  lichen-agent usage export /media/stick/pump-07

The folder has the files of c2sp.org/tlog-tiles, and the public keys. `lichen usage import` brings it
to the hub where a board has no network.""",
    )  # fmt: skip
    export.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or one with an older export")
    _add_epoch(export)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _add_epoch(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--epoch", default="", metavar="EPOCH", help="of another than the current epoch of the log"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0.1 to 3600")
    return seconds


def _add_names(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="*", metavar="SENSOR", help="the sensor's name; all when left out")
    _add_json(command)


def _add(
    parsers: Parsers, name: str, command: Command, help: str, examples: str = ""
) -> argparse.ArgumentParser:
    """A command with the option that all have."""
    added = parsers.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=examples,
        formatter_class=_Formatter,
    )
    added.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration; if left out: $LICHEN_AGENT_CONFIG, .run/agent/agent.toml here or above,"
        " /etc/lichen/agent.toml",
    )
    added.set_defaults(command=command)
    return added


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
