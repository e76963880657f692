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
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from agent.wire.errors import Refused
from hub.apps.recipe import SAMPLE, Field, Recipe, form, inside, read_env
from hub.web.api.recipes import MAX_RECIPE
from hub.web.pages.forms import Posted, read_parts

COMPOSE = "compose.yml"
ENV = ".env"
_NAME = re.compile(r"""^name:[ \t]+["']?([a-z0-9][a-z0-9_-]{0,39})["']?[ \t]*$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Typed:
    """The form as it was sent.  ``given`` are variables of fields, ``more`` the text of the others;
    ``left_out`` says of uploaded files why they are not taken; ``has_new_file`` asks for room for
    one more."""

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
        """All variables.  Raises Refused (code "env").

        A field that may stay empty and does sets nothing.
        """
        found = read_env(self.more, file="More variables")
        for each in self.fields():
            value = self.given.get(each.name, "" if each.optional else each.default)
            if value or not (each.optional or each.required):
                found[each.name] = value
        return found


async def read_typed(request: web.Request) -> Typed:
    """What was posted.  Raises Refused."""
    posted = await read_parts(request, max_bytes=2 * MAX_RECIPE)
    texts = {name: value for name, value in posted if isinstance(value, str)}
    files = _typed_files(posted)
    uploaded, left_out = _uploads(posted)
    given = {name.removeprefix("env."): text for name, text in texts.items() if name.startswith("env.")}
    given |= read_env(uploaded.pop(ENV, ""), file=ENV)
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


def with_others(given: Mapping[str, str], fields: tuple[Field, ...], more: str) -> str:
    """``more`` with the variables for which the recipe has no field (any more), so that none is lost."""
    names = {each.name for each in fields}
    others = [f"{name}='{value}'" for name, value in given.items() if name not in names and value]
    return "\n".join([*filter(None, [more.rstrip()]), *others])


def proposed_name(files: Mapping[str, str]) -> str:
    """What the recipe calls itself, by TYPE in its .env.sample or ``name:`` in its compose file; or empty."""
    try:
        kind = read_env(files.get(SAMPLE, "")).get("TYPE", "")
    except Refused:
        kind = ""
    found = next((match[1] for text in files.values() if (match := _NAME.search(text))), "")
    return kind or found


def _typed_files(posted: Posted) -> dict[str, str]:
    pairs = zip(_texts(posted, "path"), _texts(posted, "text"), strict=False)
    return {path.strip(): text.replace("\r\n", "\n") for path, text in pairs if path.strip()}


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
