"""`lichen-hub`: make a hub, run it, and let its operator in.

Owns the command line of the hub's machine.  What needs a running hub is `lichen`'s business
(`hub.cli`), over HTTP; the commands here work on the hub's directory, also while it runs.
"""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base import journal, process
from agent.wire.decode import nearest
from agent.wire.errors import ConfigError
from hub import config as configuration
from hub.config import Config, Directory

if TYPE_CHECKING:
    from hub.access.login import Access

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = {
    "init": "lichen-hub init ~/north --name north --host hub.example.org",
    "run": "lichen-hub run --dir ~/north     until Ctrl-C or SIGTERM",
    "login-link": 'lichen login "$(lichen-hub login-link)"',
    "api-token": "lichen-hub api-token --name dashboard",
    "passwd": "lichen-hub passwd --dir ~/north     it asks; Enter makes one",
    "rotate": "lichen-hub keys rotate --role command     without --role: all of them",
    "backup": "lichen-hub backup monday.backup     asks for a passphrase; the hub may run",
    "restore": "lichen-hub restore monday.backup ~/north-again --revoke pump-07",
}


def main() -> int:
    """Run one command; the exit status is that of `agent.wire.errors`."""
    args = parser().parse_args()
    status: int = args.start(args)
    return status


# --- commands ----------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from hub.app import App  # what only a running hub needs takes half a second to import

    app = App(configuration.find(args.dir))
    return process.run(app.run, watch=app.watch)


async def _init(args: argparse.Namespace) -> None:
    from hub import founding

    directory = Directory(args.directory.absolute())
    config = _first_config(args)
    founding.check_vacant(directory)
    password, made = _new_password(args.admin, args.password_file)
    hub = await founding.found(directory, config, founding.Admin(args.admin, password))
    _say(f"Made the hub {config.name!r} ({hub}) in {directory.path}")
    if made:
        _say(f"  admin {args.admin}, password {password}   (shown this once)")
    if config.host in ("127.0.0.1", "localhost"):
        _say(f"  Boards on other machines cannot reach {config.host}: set host in {directory.config}")
    _say(f"""Next:
  lichen-hub run --dir {directory.path}
  lichen-hub login-link --dir {directory.path}      a link that logs you in at {config.page_url}
  lichen login {config.page_url} --name {args.admin}
  lichen token new --name BOARD      a join file for a board""")


async def _login_link(args: argparse.Namespace) -> None:
    config = configuration.load(directory := configuration.find(args.dir))
    async with _access(directory) as access:
        secret = await access.new_link(_chosen(args.admin, await access.admins()))
    print("This link opens the page once, within 15 minutes:", file=sys.stderr)
    _say(f"{config.page_url}/login/link?code={secret}")


async def _api_token(args: argparse.Namespace) -> None:
    configuration.load(directory := configuration.find(args.dir))
    async with _access(directory) as access:
        secret = await access.new_api_token(_chosen(args.admin, await access.admins()), args.name)
    print("This token is shown once; who has it acts as you (Authorization: Bearer ...):", file=sys.stderr)
    _say(secret)


async def _rotate(args: argparse.Namespace) -> None:
    from hub import rotation
    from hub.access.keys import ROLES

    configuration.load(directory := configuration.find(args.dir))
    roles = args.role or ROLES
    number = await rotation.rotate(directory, roles)
    _say(f"New keys: {', '.join(roles)}")
    if number is None:
        _say("The hub does not run; its next start signs them and tells every board.")
    else:
        _say(f"The hub document has number {number} now, and is on its way to every board.")


async def _passwd(args: argparse.Namespace) -> None:
    configuration.load(directory := configuration.find(args.dir))
    async with _access(directory) as access:
        admin = _chosen(args.admin, await access.admins())
        password, made = _new_password(admin, args.password_file)
        await access.change_password(admin, password)
    _say(f"The password of {admin} is changed; sessions that were open have ended.")
    if made:
        _say(f"  {password}   (shown this once)")


async def _backup(args: argparse.Namespace) -> None:
    from hub.backup import backup

    configuration.load(directory := configuration.find(args.dir))
    passphrase = _passphrase(args.passphrase_file, new=True)
    size = await backup(directory, args.file.absolute(), passphrase)
    _say(f"Wrote {args.file} ({size / 1e6:.1f} MB). Without its passphrase it is lost.")


async def _restore(args: argparse.Namespace) -> None:
    from hub.backup import restore

    directory = Directory(args.directory.absolute())
    passphrase = _passphrase(args.passphrase_file, new=False)
    restored = await restore(args.file, directory, passphrase, args.revoke)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(restored.about.made_ms / 1000))
    _say(f"Restored the hub {restored.about.name!r} ({restored.about.hub}) of {made} in {directory.path}")
    _say(f"  boards it knows: {', '.join(restored.boards) or 'none'}")
    _say(f"  revoked now: {', '.join(restored.revoked) or 'none'}")
    _say(f"  ended: {restored.join_tokens} open join tokens, {restored.credentials} logins and API tokens")
    _say(f"""Before it runs:
  1. Make sure that the hub it comes from does not run any more.
  2. Boards that were revoked after the backup are back. Revoke them: restore again with --revoke BOARD,
     or at once after the start: lichen board revoke BOARD
  3. Passwords are those of the backup: lichen-hub passwd --dir {directory.path}
  4. On another machine, set host in {directory.config}
Then:
  lichen-hub run --dir {directory.path}
  Boards that joined after the backup are strangers: give them new join files (lichen token new).
  Readings that boards no longer have show as a gap.""")


async def _config_check(args: argparse.Namespace) -> None:
    directory = configuration.find(args.dir)
    configuration.load(directory)
    _say(f"{directory.config} is good")


async def _config_show(args: argparse.Namespace) -> None:
    directory = configuration.find(args.dir)
    _say(f"# {directory.config}\n{configuration.show(configuration.load(directory))}".rstrip())


async def _demo(args: argparse.Namespace) -> None:
    from hub.demo import demo

    journal.setup("warning")
    await demo(args.dir, args.port)


def _once(command: Callable[[argparse.Namespace], Awaitable[None]]) -> Callable[[argparse.Namespace], int]:
    """A command that runs to its end."""
    return lambda args: process.run(lambda: command(args))


# --- what they need ------------------------------------------------------------------------------


def _first_config(args: argparse.Namespace) -> Config:
    """The configuration that the options of init ask for, checked like a file."""
    page_port: int = args.port
    wanted = Config(
        name=args.name or socket.gethostname(),
        host=args.host,
        listen=args.listen,
        page_port=page_port,
        board_port=page_port + 1,
        mqtt_port=page_port + 2,
    )
    return configuration.parse(configuration.show(wanted), "lichen-hub init")


def _new_password(admin: str, file: Path | None) -> tuple[str, bool]:
    """A password for an admin, and whether it was made here."""
    from hub.access import passwords

    if file is not None:
        return passwords.check_password(_secret_in(file)), False
    if not sys.stdin.isatty():
        return passwords.generate(), True
    typed = getpass.getpass(f"Password for {admin} (Enter: make one): ")
    if not typed:
        return passwords.generate(), True
    passwords.check_password(typed)
    if getpass.getpass("Once more: ") != typed:
        raise ConfigError("the two passwords differ", hint="start again")
    return typed, False


def _passphrase(file: Path | None, *, new: bool) -> str:
    """The passphrase of a backup; for a ``new`` one it is asked for twice."""
    from hub.access import passwords

    if file is None and not sys.stdin.isatty():
        raise ConfigError("a backup needs a passphrase", hint="--passphrase-file FILE, or '-' for stdin")
    typed = getpass.getpass("Passphrase of the backup: ") if file is None else _secret_in(file, "passphrase")
    if new:
        passwords.check_password(typed, "passphrase")
        if file is None and getpass.getpass("Once more: ") != typed:
            raise ConfigError("the two passphrases differ", hint="start again")
    return typed


def _secret_in(file: Path, what: str = "password") -> str:
    """The one line of a file, or of stdin for '-'.  Raises ConfigError."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise ConfigError(
            f"the {what} file {file} cannot be read: {why}",
            hint="check its name and whether you may read it, or '-' for stdin",
        ) from error
    return text.rstrip("\r\n")


def _chosen(name: str, admins: list[str]) -> str:
    """The admin to act for: the one asked for, or the only one."""
    if not name and len(admins) == 1:
        return admins[0]
    if name in admins:
        return name
    hint = f"--admin NAME, one of: {', '.join(admins)}"
    if not name:
        raise ConfigError("this hub has several admins", hint=hint)
    near = nearest(name, admins)
    raise ConfigError(f"there is no admin {name!r}", hint=f"did you mean {near!r}?" if near else hint)


@asynccontextmanager
async def _access(directory: Directory) -> AsyncIterator[Access]:
    from hub.access.login import Access
    from hub.store.database import Store

    async with Store.open(directory.database) as store:
        yield Access(store, lambda: time.time_ns() // 1_000_000)


def _say(text: str) -> None:
    print(text, flush=True)


# --- the command line ------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The whole command line, for `main` and for the reference."""
    root = argparse.ArgumentParser(
        prog="lichen-hub",
        description="The hub: boards report to it, people look at it.",
        epilog="""examples:
  lichen-hub init ~/north --name north --host hub.example.org    make one
  lichen-hub run --dir ~/north                                   run it, in the foreground
  lichen-hub login-link --dir ~/north                            log in to its page once
  lichen token new --name pump-07                                then: let a board join""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"lichen-hub {version('lichen')}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    init = _add(commands, "init", "make a hub in DIR")
    init.add_argument("directory", type=Path, metavar="DIR")
    init.add_argument("--name", default="", help="what boards and people see (default: this machine's name)")
    init.add_argument("--host", default="127.0.0.1", help="the address under which boards reach this machine")
    init.add_argument("--listen", default="0.0.0.0", help="the local address for boards (default: every one)")  # noqa: S104
    init.add_argument(
        "--port", type=int, default=configuration.PAGE_PORT, help="of the page; boards get the next two"
    )
    init.add_argument("--admin", default="admin", help="the first admin's name (default: admin)")
    init.add_argument(
        "--password-file", type=Path, help="read its password here, '-' for stdin (default: ask)"
    )
    init.set_defaults(start=_once(_init))

    _with_directory(_add(commands, "run", "run the hub")).set_defaults(start=_run)

    _add_logins(commands)
    _add_care(commands)

    config = _add(commands, "config", "look at the configuration")
    actions = config.add_subparsers(required=True, metavar="check|show")
    check = _add(actions, "check", "say whether hub.toml is good")
    _with_directory(check).set_defaults(start=_once(_config_check))
    shown = _add(actions, "show", "print every key with its value")
    _with_directory(shown).set_defaults(start=_once(_config_show))

    demo = _add(commands, "demo", "run a hub with this machine as a board (make run)")
    demo.add_argument(
        "--dir", type=Path, default=Path(".run"), help="where everything is kept (default: .run)"
    )
    demo.add_argument(
        "--port", type=int, default=configuration.PAGE_PORT, help="of the page; boards get the next two"
    )
    demo.set_defaults(start=_once(_demo))
    return root


def _add_logins(commands: Commands) -> None:
    """How people and programs get in."""
    link = _with_directory(_add(commands, "login-link", "print a link that logs in once"))
    link.add_argument("--admin", default="", help="whom it logs in (default: the only one)")
    link.set_defaults(start=_once(_login_link))

    token = _with_directory(_add(commands, "api-token", "print a new token for programs"))
    token.add_argument("--name", required=True, help="what it is for")
    token.add_argument("--admin", default="", help="whom it acts for (default: the only one)")
    token.set_defaults(start=_once(_api_token))

    passwd = _with_directory(_add(commands, "passwd", "give an admin another password"))
    passwd.add_argument("--admin", default="", help="whose (default: the only one)")
    passwd.add_argument("--password-file", type=Path, help="read it here, '-' for stdin (default: ask)")
    passwd.set_defaults(start=_once(_passwd))


def _add_care(commands: Commands) -> None:
    """What keeps a hub alive for years."""
    keys = _add(commands, "keys", "the hub's signing keys")
    actions = keys.add_subparsers(required=True, title="commands", metavar="COMMAND")
    rotate = _with_directory(
        _add(actions, "rotate", "make new signing keys; boards are told at once, or when the hub starts")
    )
    rotate.add_argument(
        "--role",
        action="append",
        metavar="ROLE",
        help="only this one; repeatable: order, receipt, time, command, release",
    )
    rotate.set_defaults(start=_once(_rotate))

    backup = _with_directory(_add(commands, "backup", "write the whole hub into FILE, encrypted"))
    backup.add_argument("file", type=Path, metavar="FILE")
    backup.add_argument("--passphrase-file", type=Path, help="read it here, '-' for stdin (default: ask)")
    backup.set_defaults(start=_once(_backup))

    restore = _add(commands, "restore", "make the hub of a backup in DIR, which must be empty")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("directory", type=Path, metavar="DIR")
    restore.add_argument("--passphrase-file", type=Path, help="read it here, '-' for stdin (default: ask)")
    restore.add_argument(
        "--revoke", action="append", default=[], metavar="BOARD", help="revoke it, by name or id; repeatable"
    )
    restore.set_defaults(start=_once(_restore))


def _add(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:
    """A command whose help teaches by example."""
    return commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"example:\n  {EXAMPLES[name]}" if name in EXAMPLES else "",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _with_directory(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help=f"the hub's directory; if left out: ${configuration.ENVIRONMENT}, {configuration.CHECKOUT}"
        f" here or above, {configuration.SYSTEM}",
    )
    return command


if __name__ == "__main__":
    sys.exit(main())
