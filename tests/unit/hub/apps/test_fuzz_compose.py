"""Whatever a recipe holds, it is compiled or refused; nothing else happens, and it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.decode import decode, dumps, loads, plain
from agent.wire.errors import Refused
from agent.wire.order import App
from hub.apps import tree
from hub.apps.compile import check, compile_draft
from hub.apps.draft import ConfigDraft
from hub.apps.interpolate import interpolate
from hub.apps.parser import parse
from hub.apps.recipe import Recipe, form, read_env
from hub.apps.templates import render, uses
from support.composing import FOLDER, read_case
from support.drawing import any_text, changed, plain_data

pytestmark = pytest.mark.soak

T = TypeVar("T")


def written_with(*words: str) -> st.SearchStrategy[str]:
    """Text that is made of the words of a grammar, and of anything else."""
    return st.lists(st.sampled_from(words) | st.text(max_size=3), max_size=30).map("".join)


def tried(call: Callable[[], T]) -> T | Refused:
    """What comes of it, be it that it is refused in a sentence."""
    try:
        return call()
    except Refused as error:
        assert_sentence(error)
        return error


def assert_sentence(error: Refused) -> None:
    assert 0 < len(str(error)) < 1500
    assert "\n" not in str(error)


variables = written_with("$", "${", "}", "$$", "A", "B", ":-", "-", ":?", "?", ":+", "+", ":", "_", "1")
env_texts = st.dictionaries(st.sampled_from("ABCD"), any_text, max_size=3)


@given(variables | any_text, env_texts)
def test_variables_of_anything(text: str, env: dict[str, str]) -> None:
    value = tried(lambda: interpolate(text, env))
    assert "$" in text or value == text


@given(written_with("A=", "B=", "'", '"', "\n", "#", " ", "\\", "$A", "${B:-", "}", "export ") | any_text)
def test_env_files_of_anything(text: str) -> None:
    values = tried(lambda: read_env(text))
    if isinstance(values, Refused):
        return
    assert all(name.isidentifier() for name in values)
    fields = tried(lambda: form(Recipe({".env.sample": text})))
    assert isinstance(fields, Refused) or {field.name for field in fields} >= values.keys()


templates = written_with(
    "{{", "}}", "{{- ", " -}}", ' env "A" ', ' secret "s" ', " if ", " else ", " end ", " eq ", "(", ")",
    '"x"', "`", '"', "\\", "/*", "*/", "\n", '{{ if env "A" }}', "{{ else }}", "{{ end }}",
    '{{ secret "s" }}',
)  # fmt: skip


@given(templates | any_text, env_texts)
def test_templates_of_anything(text: str, env: dict[str, str]) -> None:
    found = tried(lambda: uses(text, env))
    if isinstance(found, Refused):
        assert found.code == "template"
        return
    config = ConfigDraft("x", f"{text}|", is_template=True)  # never empty, which is refused
    rendered = render(config, env, dict.fromkeys(found.secrets, "s"))
    assert "{{" in text or rendered == config.content


@given(
    written_with(
        "a",
        ": ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "<<",
        "!",
        "|",
        ">",
        '"',
        "'",
        "?",
        "%",
    )
    | any_text
)
def test_yaml_of_anything(text: str) -> None:
    node = tried(lambda: parse(text, "f.yml"))
    if isinstance(node, Refused):
        assert str(node).startswith("f.yml:")
    else:
        assert tree.plain(tree.with_paths(node)) == tree.plain(node)


RECIPES = [read_case(path) for path in sorted(FOLDER.glob("recipe-*.txt"))]
DOCUMENTS = [
    (case, name, tree.plain(parse(text, name)))
    for case in RECIPES
    for name, text in case.recipe.files.items()
    if name.endswith((".yml", ".yaml"))
]
odd_values = (
    plain_data
    | variables
    | st.sampled_from(["0", "-1", "1s", "64m", "80:80", "a:/b", "host", "service:app", "none"])
)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[Recipe, dict[str, str]]:
    """A realistic recipe with something wrong somewhere inside of its compose files."""
    case, name, document = draw(st.sampled_from(DOCUMENTS))
    value: Any = draw(changed(document, odd_values))
    text = json.dumps(value)  # which is YAML, too
    try:
        return Recipe({**case.recipe.files, name: text}), case.env
    except Refused:
        return case.recipe, case.env


@given(recipes())
def test_recipes_with_something_wrong(drawn: tuple[Recipe, dict[str, str]]) -> None:
    recipe, env = drawn
    draft = tried(lambda: compile_draft(recipe, env, app="demo"))
    if isinstance(draft, Refused):
        assert draft.code in ("compose", "env")
        return
    assert check(recipe, env, app="demo") == draft.verdicts
    pinned = [{**each, "image": "r.example/b@sha256:" + "0" * 64} for each in plain(draft.app)["services"]]
    sent = dumps({**plain(draft.app), "services": pinned})
    assert plain(decode(App, loads(sent, max_bytes=10**7))) == {**plain(draft.app), "services": pinned}


@given(plain_data | st.dictionaries(st.sampled_from(["services", "volumes", "x-lichen", "name"]), plain_data))
def test_documents_of_anything(document: Any) -> None:
    with pytest.raises(Refused):
        check(Recipe({"compose.yml": json.dumps(document)}), {}, app="demo")
