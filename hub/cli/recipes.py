"""A recipe on this machine: the text files of a folder, or one compose file, as they are uploaded.

Owns what goes to the hub and what stays here.  Called by `lichen app check`, `deploy` and `upgrade`.  It
never follows a link out of the folder, and never takes what is hidden, such as .git or a .env with
secrets; whatever stays here is told with its reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.wire.decode import decode
from agent.wire.errors import ConfigError, Refused
from agent.wire.order import App

COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
SAMPLE = ".env.sample"
MOST_FILES = 256
MOST_BYTES = 512 * 1024
"""Of one file; the hub has a limit for all of them together."""
_NAME = re.compile(r"""^name:[ \t]+(["']?)([a-z0-9][a-z0-9_-]{0,39})\1[ \t]*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """``files`` by their path in the folder; ``left_out``: path and reason of what stays here; ``name`` is
    what the app is called unless somebody says otherwise."""

    name: str
    files: dict[str, str] = field(repr=False)
    left_out: tuple[str, ...] = ()


def read(path: Path) -> Recipe:
    """Read a recipe.  Raises ConfigError when there is none, or when it is too large to be one."""
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="name a folder with a compose.yml, or a compose file")
    files = {path.name: text(path)}
    if (sample := path.with_name(SAMPLE)).is_file():
        files[SAMPLE] = text(sample)
    stem = path.parent.resolve().name if path.name in COMPOSE else path.stem
    is_alone = all(each.name in files for each in path.parent.iterdir())
    left_out = () if is_alone else (f"what lies beside {path.name} (name the folder to take it along)",)
    return Recipe(_own_name(files[path.name]) or stem, files, left_out)


def app_name(name: str) -> str:
    """``name``, if an app can be called so.  Raises ConfigError."""
    try:
        return decode(App, {"name": name, "revision": 1}).name
    except Refused as error:
        raise ConfigError(f"no app can have this {error}", hint="choose another one: --name blog") from error


def _read_folder(folder: Path) -> Recipe:
    compose = next((folder / name for name in COMPOSE if (folder / name).is_file()), None)
    if compose is None and not any(folder.glob("*.y*ml")):
        # Before anything else of it is read: it may be somebody's home.
        raise ConfigError(
            f"{folder} has no compose file", hint=f"a recipe is a folder with a {' or '.join(COMPOSE[:2])}"
        )
    files: dict[str, str] = {}
    left_out: list[str] = []
    for path in _walk(folder, left_out):
        name = path.relative_to(folder).as_posix()
        if reason := _unfit(path, folder):
            left_out.append(f"{name} ({reason})")
            continue
        if len(files) == MOST_FILES:
            raise ConfigError(
                f"{folder} has more than {MOST_FILES} text files, which is no recipe",
                hint="name the folder of one app",
            )
        files[name] = text(path)
    own_name = _own_name(files.get(compose.name, "")) if compose else ""
    return Recipe(own_name or folder.resolve().name, files, tuple(left_out))


def _walk(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """The files of a folder by name, but for what is hidden."""
    for top, folders, names in os.walk(folder):
        hidden = [name for name in folders if name.startswith(".")]
        left_out += [f"{(Path(top) / name).relative_to(folder).as_posix()}/ (hidden)" for name in hidden]
        folders[:] = sorted(set(folders) - set(hidden))
        for name in sorted(names):
            yield Path(top) / name


def _unfit(path: Path, folder: Path) -> str:
    """Why a file stays here; empty when it goes."""
    if path.name.startswith(".") and path.name != SAMPLE:
        return "hidden"
    if not path.resolve().is_relative_to(folder.resolve()):
        return "a link that leads out of the folder"
    if not path.is_file():
        return "no file"
    if path.stat().st_size > MOST_BYTES:
        return f"larger than {MOST_BYTES // 1024} KiB"
    return "" if _is_text(_bytes(path)) else "no text"


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def text(path: Path) -> str:
    """The text of a file.  Raises ConfigError."""
    data = _bytes(path)
    if len(data) > MOST_BYTES or not _is_text(data):
        raise ConfigError(f"{path} is no text of at most {MOST_BYTES // 1024} KiB")
    return data.decode()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _own_name(compose: str) -> str:
    """What a compose file calls itself, unless that has to be worked out.

    >>> _own_name("name: blog  # ours"), _own_name("name: ${NAME}"), _own_name("services: {}")
    ('blog', '', '')
    """
    found = _NAME.search(compose)
    return found[2] if found else ""
