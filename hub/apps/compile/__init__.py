"""Recipes to drafts: what a compose file says, as the manifest of an app.

    recipe + env -> load (YAML, interpolation, merge, schema) -> verdicts -> one function per noun -> Draft

Owns the order in which that happens.  Called by whoever checks or deploys an app; never asks a
registry, a board or the store, so the same recipe and env always give the same draft.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.apps.draft import Draft, Verdict
from hub.apps.recipe import Recipe


def compile_draft(recipe: Recipe, env: Mapping[str, str], *, app: str) -> Draft:
    """The draft of an app called ``app``.  Takes milliseconds to a second of processor time.

    Raises Refused (code "compose") for the first thing that is wrong, naming file, line and key.
    """
    raise NotImplementedError


def check(recipe: Recipe, env: Mapping[str, str], *, app: str) -> tuple[Verdict, ...]:
    """What becomes of each key, in the order of the file, refused ones among them.

    Raises Refused (code "compose") for what is wrong beyond a key that is refused.
    """
    raise NotImplementedError


def proposed_name(recipe: Recipe, env: Mapping[str, str]) -> str:
    """The name that the recipe gives itself (``name:``), or empty.  Raises Refused (code "compose")."""
    raise NotImplementedError
