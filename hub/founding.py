"""How a hub is made: its directory, keys, authority, configuration and first admin.

Owns what `lichen-hub init` writes and the order in which it does.  ``hub.toml`` comes last, so a
directory with one is a whole hub; nothing here ever replaces a key that exists.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from agent.base.files import make_directory, write_file
from agent.wire.errors import ConfigError
from hub.access import vault
from hub.access.keys import Keyring
from hub.access.login import Access
from hub.access.passwords import check_password
from hub.config import Config, Directory, show
from hub.fleet.authority import Authority
from hub.store.database import Store

HEADER = """\
# This hub's settings; `lichen-hub config show` prints all of them, `config check` looks for mistakes.
# host is the address under which boards reach this machine. Boards that joined learn of a new one
# only while they can still be reached under the old one.

"""


@dataclass(frozen=True, slots=True)
class Admin:
    """The first admin."""

    name: str
    password: str


async def found(directory: Directory, config: Config, admin: Admin) -> str:
    """Make a hub and return its id.

    Raises ConfigError when there is one already, or when the directory cannot be used.
    """
    check_vacant(directory)
    check_password(admin.password)
    for folder in (directory.path, directory.keys, directory.ca, directory.broker):
        make_directory(folder)
    keys = Keyring.generate()
    keys.save(directory.keys)
    vault.save(directory.keys, vault.generate())
    Authority.create(directory.ca, keys.hub, config.host, _now_ms())
    async with Store.open(directory.database) as store:
        await Access(store, _now_ms).create_admin(admin.name, admin.password)
    write_file(directory.config, (HEADER + show(config, *_WRITTEN)).encode())
    return keys.hub


def check_vacant(directory: Directory) -> None:
    """Raise ConfigError unless a hub can be made here without harm to another."""
    if directory.config.exists():
        raise ConfigError(
            f"there is a hub in {directory.path} already",
            hint=f"start it: lichen-hub run --dir {directory.path}   or choose another directory",
        )
    if directory.path.is_dir() and any(directory.path.iterdir()):
        raise ConfigError(
            f"{directory.path} is not empty, and holds no hub.toml",
            hint="after an init that was cut short, remove it; if this was a hub, restore its hub.toml",
        )


# The keys that somebody will look for in the file; the others keep to their defaults.
_WRITTEN = ("name", "host", "listen", "page_host", "page_port", "board_port", "mqtt_port")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
