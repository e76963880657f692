"""A recipe: the files of its folder, and what its .env.sample says to whoever fills it in.

Owns the format of .env files and of the hints in them.  The API makes a `Recipe` of what was uploaded,
the compiler reads from it; nobody here touches a disk.

>>> recipe = Recipe({"compose.yml": "services: {}", ".env.sample": '''
... # Where it is reached.
... DOMAIN=blog.example.com
... SECRET_DB_PASSWORD_VERSION=v1  # length=32 charset=hex
... '''})
>>> read_env(recipe.text(".env.sample"))
{'DOMAIN': 'blog.example.com', 'SECRET_DB_PASSWORD_VERSION': 'v1'}
>>> [field.help for field in form(recipe)], form(recipe)[1].secret
(['Where it is reached.', ''], SecretHint(length=32, charset='hex', generate=True))
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.wire.errors import Refused
from hub.apps.interpolate import interpolate
from hub.apps.units import is_text

MAX_FILES = 256
MAX_FILE_CHARACTERS = 512 * 1024
MAX_CHARACTERS = 4 * 1024 * 1024

SAMPLE = ".env.sample"

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ASSIGNMENT = re.compile(rf"\s*(?:export\s+)?({_NAME})\s*=[ \t]*(.*)")
_COMMENTED_OUT = re.compile(r"#\s*([A-Z][A-Z0-9_]*)=(.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "$": "$$"}
_HINT = re.compile(r"\b(length|charset|generate)=([A-Za-z0-9_-]+)")
_REQUIRED = re.compile(rf"(?<!\$)\$\{{({_NAME}):?\?")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The files of a recipe by their path in its folder, such as "compose.yml" or "conf/nginx.conf".

    Raises Refused (code "recipe") when one lies outside of the folder, or when they are too many or
    too large.
    """

    files: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise _refused(f"{len(self.files)} files, where a recipe may have {MAX_FILES}")
        for path, text in self.files.items():
            if not path or path != inside(path):
                raise _refused(f"{path!r} is no path inside of a recipe")
            if not is_text(text):
                raise _refused(f"{path} is no text")
            if len(text) > MAX_FILE_CHARACTERS:
                raise _refused(f"{path} has {len(text):,} characters of {MAX_FILE_CHARACTERS:,} allowed")
        if (total := sum(map(len, self.files.values()))) > MAX_CHARACTERS:
            raise _refused(f"its files have {total:,} characters together, of {MAX_CHARACTERS:,} allowed")

    def text(self, path: str) -> str:
        """The text of a file; empty when there is none."""
        return self.files.get(inside(path), "")

    def __contains__(self, path: str) -> bool:
        return inside(path) in self.files


def inside(path: str) -> str:
    """``path`` without detours, relative to the folder of its recipe; empty when it leads out of that."""
    normal = posixpath.normpath(path.strip())
    outside = normal in ("", ".", "..") or normal.startswith(("/", "../", "~"))
    return "" if outside or not normal.isprintable() or "\\" in normal else normal


def _refused(message: str) -> Refused:
    return Refused(message, code="recipe", hint="a recipe holds text: compose files, .env.sample, configs")


# --- .env files --------------------------------------------------------------------------------


def read_env(text: str, *, file: str = SAMPLE, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a .env file.  A value may use those above it, and ``env``.

    Single quotes keep everything, double quotes know ``\\n`` and the like, and both may go over several
    lines.  Without quotes a value ends before " #".  Raises Refused (code "env") naming file and line.
    """
    known = dict(env or {})
    found: dict[str, str] = {}
    position, line, size = 0, 1, 0
    while position < len(text):
        end = _line_end(text, position)
        row = text[position:end]
        if not row.strip() or row.lstrip().startswith("#"):
            position, line = end + 1, line + 1
            continue
        assignment = _ASSIGNMENT.match(row)
        if assignment is None:
            raise _bad_line(file, line, f"{row.strip()[:40]!r} is not NAME=value")
        start = position + assignment.start(2)
        value, stop = _value(text, start, known, f"{file}:{line}")
        size += len(value)
        if size > MAX_CHARACTERS:
            raise _bad_line(file, line, f"the values are longer than {MAX_CHARACTERS:,} characters together")
        found[assignment[1]] = known[assignment[1]] = value
        line += text.count("\n", position, stop) + 1
        position = stop + 1
    return found


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _value(text: str, start: int, known: Mapping[str, str], where: str) -> tuple[str, int]:
    """The value that begins at ``start``, and where its line ends."""
    quote = text[start : start + 1]
    if quote in ("'", '"'):
        quoted = (_SINGLE if quote == "'" else _DOUBLE).match(text, start)
        if quoted is None:
            raise Refused(f"{where}: a quote is opened and not closed", code="env")
        end = _line_end(text, quoted.end())
        rest = text[quoted.end() : end].strip()
        if rest and not rest.startswith("#"):
            raise Refused(f"{where}: {rest[:40]!r} follows the closing quote", code="env")
        if quote == "'":
            return quoted[1], end
        unescaped = _ESCAPE.sub(lambda each: _ESCAPES.get(each[1], each[1]), quoted[1])
        return _expanded(unescaped, known, where), end
    end = _line_end(text, start)
    return _expanded(_COMMENT.sub("", text[start:end], count=1).strip(), known, where), end


def _expanded(value: str, known: Mapping[str, str], where: str) -> str:
    try:
        return interpolate(value, known)
    except Refused as error:
        raise Refused(f"{where}: {error}", code="env", hint="single quotes keep a '$' as it is") from None


def _bad_line(file: str, line: int, reason: str) -> Refused:
    return Refused(f"{file}:{line}: {reason}", code="env", hint="a comment begins with '#'")


# --- the form of an app ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SecretHint:
    """How to make up a secret.  ``length`` 0 and an empty ``charset``: as usual; not ``generate``: it comes
    from somewhere else and has to be set."""

    length: int = 0
    charset: str = ""
    generate: bool = True


@dataclass(frozen=True, slots=True)
class Field:
    """One variable to fill in.  ``optional``: it is commented out in the sample, and so not set unless
    somebody does.  ``required``: a compose file does not do without it (``${NAME:?}``).  ``secret``: it is
    the version of a secret."""

    name: str
    default: str = ""
    help: str = ""
    required: bool = False
    optional: bool = False
    secret: SecretHint | None = None


def form(recipe: Recipe) -> tuple[Field, ...]:
    """What an app of this recipe can be told, in the order of its .env.sample.

    The comment directly above a variable is its help.  Raises Refused (code "env").
    """
    text = recipe.text(SAMPLE)
    defaults = read_env(text)
    required = {
        name
        for path, content in recipe.files.items()
        if path.endswith((".yml", ".yaml"))
        for name in _REQUIRED.findall(content)
    }
    fields: dict[str, Field] = {}
    above: list[str] = []
    for row in map(str.strip, text.splitlines()):
        commented = _COMMENTED_OUT.fullmatch(row)
        assignment = commented or (None if row.startswith("#") else _ASSIGNMENT.fullmatch(row))
        if assignment is None:
            above = [*above, row.lstrip("# ").rstrip()] if row.startswith("#") else []
            continue
        name, value = assignment[1], assignment[2]
        comment = value.partition(" #")[2]
        help_text, hints = _without_hints([*above, comment])
        above = []
        if commented and name in defaults:
            continue
        fields[name] = Field(
            name,
            _COMMENT.sub("", value).strip().strip("\"'") if commented else defaults.get(name, ""),
            help_text,
            required=name in required,
            optional=commented is not None,
            secret=_hint(hints) if _is_secret(name) else None,
        )
    for name in sorted(required - fields.keys()):
        fields[name] = Field(name, required=True)
    return tuple(fields.values())


def secret_hints(recipe: Recipe) -> dict[str, SecretHint]:
    """The hints by variable, such as "SECRET_DB_PASSWORD_VERSION".  Raises Refused (code "env")."""
    return {field.name: field.secret for field in form(recipe) if field.secret is not None}


def _is_secret(name: str) -> bool:
    return name.startswith("SECRET_") and name.endswith("_VERSION")


def _without_hints(comments: list[str]) -> tuple[str, dict[str, str]]:
    """What comments say to people, and what to us."""
    hints: dict[str, str] = {}
    said = []
    for comment in comments:
        hints |= dict(_HINT.findall(comment))
        said.append(_HINT.sub("", comment).strip())
    return " ".join(filter(None, said)), hints


def _hint(words: Mapping[str, str]) -> SecretHint:
    length = words.get("length", "")
    return SecretHint(
        int(length) if re.fullmatch(r"[0-9]{1,4}", length) else 0,
        words.get("charset", ""),
        words.get("generate", "") != "false",
    )
