"""What somebody has typed, pasted or uploaded into the deploy form, and the form filled in again from it.

Owns the names of its fields.  Pure but for reading the request; what it would do is looked at in
`hub.web.pages.apps.look`.

    path, text           one pair for each file of the recipe
    upload               files to put among them, a whole folder or one by one
    env.NAME             a variable that .env.sample has; `more` is a .env file with the others
    board, labels        ids of chosen boards; labels of further ones
    secret.NAME          the value of a secret that somebody has to set
    seen                 what was on the screen when the button was pressed
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from agent.wire.errors import Refused
from hub.apps.recipe import SAMPLE, Field, Recipe, form, inside, read_env
from hub.web.api.recipes import MAX_RECIPE
from hub.web.pages.forms import Posted, read_parts

COMPOSE = "compose.yml"
ENV = ".env"
_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=", re.MULTILINE)
_SPECIAL = re.compile(r'[\\"$]')
_NAME = re.compile(r"""^name:[ \t]+["']?([a-z0-9][a-z0-9_-]{0,39})["']?[ \t]*$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Typed:
    """The form as it was sent.  ``given`` are variables of fields, ``more`` the text of the others;
    ``left_out`` says of uploaded files why they are not taken; ``has_new_file`` asks for room for
    one more; ``was`` are the variables of an app that is there."""

    name: str = ""
    files: Mapping[str, str] = field(default_factory=lambda: {COMPOSE: ""}, repr=False)
    given: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    boards: tuple[str, ...] = ()
    labels: str = ""
    find: str = ""
    message: str = ""
    has_new_file: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    seen: str = ""
    with_images: bool = False
    left_out: tuple[str, ...] = ()
    was: Mapping[str, str] | None = None

    def listed(self) -> list[tuple[str, str]]:
        """The files as the form shows them: compose files first, a new one without a path last."""
        found = sorted(
            self.files.items(), key=lambda each: (not each[0].endswith((".yml", ".yaml")), each[0])
        )
        return [*found, ("", "")] if self.has_new_file else found

    def fields(self) -> tuple[Field, ...]:
        """The variables of the recipe.  Raises Refused."""
        return form(Recipe(self.files))

    def env(self) -> dict[str, str]:
        """All variables.  Raises Refused (code "env")."""
        fields = self.fields()
        found = read_env(self.others(fields), file="More variables")
        for each in fields:
            value = self.given.get(each.name, "" if each.optional else each.default)
            if value or self._may_be_empty(each):
                found[each.name] = value
        return found

    def _may_be_empty(self, each: Field) -> bool:
        """Whether an empty field sets its variable, to nothing, or leaves it out as it was."""
        if self.was is not None:
            return each.name in self.was
        return not (each.optional or each.required)

    def others(self, fields: Iterable[Field]) -> str:
        """`more`, with the variables for which there is no field (any more), so that none is lost."""
        named = {each.name for each in fields} | set(_ASSIGNED.findall(self.more))
        lines = [f"{name}={quoted(text)}" for name, text in self.given.items() if text and name not in named]
        return "\n".join([*filter(None, [self.more.rstrip()]), *lines])


async def read_typed(request: web.Request) -> Typed:
    """What was posted.  Raises Refused."""
    posted = await read_parts(request, max_bytes=2 * MAX_RECIPE)
    texts = {name: value for name, value in posted if isinstance(value, str)}
    files = _typed_files(posted)
    uploaded, left_out = _uploads(posted)
    given = {name.removeprefix("env."): text for name, text in texts.items() if name.startswith("env.")}
    try:
        given |= read_env(uploaded.pop(ENV, ""), file=ENV)
    except Refused as error:
        left_out = (*left_out, f"{ENV} ({error})")
    if uploaded:
        files = {path: text for path, text in files.items() if text} | uploaded
    files.pop(texts.get("drop", ""), None)
    more = texts.get("more", "").replace("\r\n", "\n")
    return Typed(
        name=texts.get("name", "").strip(),
        files=files or {COMPOSE: ""},
        given=given,
        more=more,
        boards=tuple(dict.fromkeys(_texts(posted, "board"))),
        labels=texts.get("labels", "").strip(),
        find=texts.get("find", "").strip()[:64],
        has_new_file="add" in texts,
        message=texts.get("message", "").strip(),
        secrets={
            name.removeprefix("secret."): text.replace("\r\n", "\n")
            for name, text in texts.items()
            if name.startswith("secret.") and text
        },
        seen=texts.get("seen", ""),
        with_images="images" in texts,
        left_out=left_out,
    )


def quoted(value: str) -> str:
    """A value for a .env file, which reads as it is whatever is in it.

    >>> [read_env(f"X={quoted(text)}")["X"] == text for text in ("a b", "it's $5", 'C:\\"x"\\n', "a\\nb")]
    [True, True, True, True]
    """
    if "'" not in value:
        return f"'{value}'"
    return '"' + _SPECIAL.sub(r"\\\g<0>", value) + '"'


def proposed_name(files: Mapping[str, str]) -> str:
    """What the recipe calls itself, by TYPE in its .env.sample or ``name:`` in its compose file; or empty."""
    try:
        kind = read_env(files.get(SAMPLE, "")).get("TYPE", "")
    except Refused:
        kind = ""
    found = next((match[1] for text in files.values() if (match := _NAME.search(text))), "")
    return kind or found


def _typed_files(posted: Posted) -> dict[str, str]:
    """The files by path; a text without one is kept, and refused when it is looked at."""
    pairs = zip(_texts(posted, "path"), _texts(posted, "text"), strict=False)
    return {path.strip(): text.replace("\r\n", "\n") for path, text in pairs if path.strip() or text.strip()}


def _texts(posted: Posted, name: str) -> list[str]:
    """What was sent under a name."""
    return [value for each, value in posted if each == name and isinstance(value, str)]


def _uploads(posted: Posted) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files that were uploaded, by their path in the recipe, and what of them is not taken."""
    given = [each for _, each in posted if isinstance(each, web.FileField) and each.filename]
    names = [each.filename.replace("\\", "/") for each in given]
    folders = {name.partition("/")[0] for name in names if "/" in name}
    top = f"{folders.pop()}/" if len(folders) == 1 and all("/" in name for name in names) else ""
    files: dict[str, str] = {}
    left_out = []
    for name, each in zip(names, given, strict=True):
        path = name.removeprefix(top)
        with each.file as file:
            content = file.read()
        is_hidden = any(part.startswith(".") for part in path.split("/")) and path not in (SAMPLE, ENV)
        if is_hidden or path != inside(path):
            left_out.append(f"{path} (hidden)")
            continue
        try:
            files[path] = content.decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            left_out.append(f"{path} (not text)")
    return files, tuple(left_out)
