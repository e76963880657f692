"""What compiling a recipe gives: an app that lacks only what a recipe cannot know.

A `Draft` is made by `hub.apps.compile`.  Who deploys it pins its images, puts in the secrets and the
configs it asks for, and so has the manifest that goes into an order.  Values only; nothing here decides
anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agent.wire.order import MAX_FILE_BYTES, App

SIZE_HINT = "a comment or an empty line is enough; what is large belongs into an image or a volume"
Judgement = Literal["supported", "emulated", "ignored", "refused", "warned"]
"""What becomes of a key.  "warned": it is honoured, and there is something to know about this value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one key of a compose file: ``key`` is its path, such as "services.web.ports[0]"."""

    file: str
    line: int
    key: str
    verdict: Judgement
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SecretNeed:
    """A secret that some service of the app uses.

    ``name`` is what compose calls it, ``external_name`` what it is called outside ("blog_db_password_v1").
    ``version`` is what makes it another secret ("v1"), and ``version_variable`` the variable of the app's
    env that says so, empty where the recipe has none.  ``length`` (0: not said), ``charset`` and
    ``generate`` are the hints of .env.sample.  What is in it is never in a recipe, which is kept in clear.
    """

    name: str
    external_name: str
    version_variable: str = ""
    version: str = "v1"
    length: int = 0
    charset: str = ""
    generate: bool = True


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """A file for containers.  ``content`` is final, unless ``is_template``: then
    `hub.apps.templates.render` makes it so, and needs the ``secrets`` that it refers to.
    ``file`` is where it stands in the recipe, for errors.
    """

    name: str
    content: str = field(repr=False)
    is_template: bool = False
    secrets: tuple[str, ...] = ()
    file: str = ""


def size_fault(text: str) -> str:
    """Why a text cannot be a secret or a config, which Podman keeps; "" when it can."""
    size = len(text.encode())
    if not size:
        return "is empty, and a board cannot give an empty file"
    return f"has {size} bytes, and {MAX_FILE_BYTES} is the most" if size > MAX_FILE_BYTES else ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A compiled recipe.

    ``app`` is whole but for this: each service's ``image`` is a full reference with a tag
    ("docker.io/library/nginx:1.25"), or with the digest that the recipe gives, and still has to be
    pinned; ``app.secrets`` and ``app.configs`` are empty.  ``placement``: labels that the board must have.
    """

    app: App
    secrets: tuple[SecretNeed, ...] = ()
    configs: tuple[ConfigDraft, ...] = ()
    placement: dict[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    version: str = ""
