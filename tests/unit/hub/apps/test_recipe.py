"""Recipes as folders, .env files, and the form that .env.sample is."""

from __future__ import annotations

import pytest

from agent.wire.errors import Refused
from hub.apps.recipe import MAX_FILES, Field, Recipe, SecretHint, form, inside, read_env, secret_hints


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../../b", "", ".", "~/a", "a\\b", "a/../b", "./a", "a//b", "a\0", "a\nb"]
)
def test_a_path_that_is_no_plain_one_is_refused(path: str) -> None:
    with pytest.raises(Refused) as caught:
        Recipe({path: ""})
    assert caught.value.code == "recipe"


def test_paths_in_a_compose_file_may_have_detours() -> None:
    recipe = Recipe({"conf/a.conf": "x"})
    assert "./conf/../conf/a.conf" in recipe
    assert recipe.text("./conf/a.conf") == "x"
    assert "../conf/a.conf" not in recipe
    assert recipe.text("nowhere") == inside("../x") == ""


def test_a_recipe_has_its_limits() -> None:
    with pytest.raises(Refused, match="257 files"):
        Recipe({f"f{number}": "" for number in range(MAX_FILES + 1)})
    with pytest.raises(Refused, match="600,000 characters"):
        Recipe({"a": "x" * 600_000})
    with pytest.raises(Refused, match="together"):
        Recipe({f"f{number}": "x" * 500_000 for number in range(9)})
    with pytest.raises(Refused, match="is no text"):
        Recipe({"a": "\ud800"})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\n# comment\n   \n", {}),
        ("A=1\nB = 2 \nexport C=3", {"A": "1", "B": "2", "C": "3"}),
        ("A=\nB=  # nothing", {"A": "", "B": ""}),
        ("A=x # comment\nB=x#y\nC=a b", {"A": "x", "B": "x#y", "C": "a b"}),
        ("A='$B \"x\" # y' # z", {"A": '$B "x" # y'}),
        ('A="a\\nb\\t\\"c\\" \\$d \\\\"', {"A": 'a\nb\t"c" $d \\'}),
        ("A=\"two\nlines\"\nB='two\nlines'\nC=1", {"A": "two\nlines", "B": "two\nlines", "C": "1"}),
        ('A=1\nB="$A:${A}"\nC=${B:-x}${D:-y}', {"A": "1", "B": "1:1", "C": "1:1y"}),
        ("A=${OUTER}", {"A": "outside"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A={{ .Domain }}", {"A": "{{ .Domain }}"}),
        ("A=x\r\nB=y\r\n", {"A": "x", "B": "y"}),
        ("URL=postgres://u:p@h/d?x=y", {"URL": "postgres://u:p@h/d?x=y"}),
    ],
)
def test_an_env_file(text: str, values: dict[str, str]) -> None:
    assert read_env(text, env={"OUTER": "outside"}) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A=1\nwhat is this", "x.env:2: 'what is this' is not NAME=value"),
        ("1A=1", "x.env:1: '1A=1' is not NAME=value"),
        ("A='x\n\nB=1", "x.env:1: a quote is opened and not closed"),
        ('A="x" y', "x.env:1: 'y' follows the closing quote"),
        ('A="two\nlines"\n\nB=${', "x.env:4: no '}' ends '${'"),
        ("A=p$$w0rd$9", "x.env:1: no name follows the '$' in '$9'"),
    ],
)
def test_an_env_file_that_is_none(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        read_env(text, file="x.env")
    assert (str(caught.value), caught.value.code) == (reason, "env")


def test_an_env_file_does_not_grow_without_end() -> None:
    with pytest.raises(Refused, match="longer than"):
        read_env("A=x\n" + "A=$A$A\n" * 40)
    with pytest.raises(Refused, match="longer than 4,194,304 characters together"):
        read_env(f"A={'x' * 100_000}\n" + "B=$A\n" * 100)


SAMPLE = """\
TYPE=blog
# Section that explains nothing.

# Where it is reached,
# without a scheme.
DOMAIN=blog.example.com  # a name in DNS
TITLE="A blog"

#MAIL_HOST=mail.example.com
# Sentence = not a variable
SECRET_DB_PASSWORD_VERSION=v1  # length=32 charset=hex
# The key of the provider.
# generate=false
SECRET_API_KEY_VERSION=v1
#SECRET_SMTP_VERSION=v1 # length=20
COMPOSE_FILE="compose.yml"
#COMPOSE_FILE="$COMPOSE_FILE:compose.smtp.yml"
"""


def test_the_sample_is_a_form() -> None:
    compose = "services: {a: {image: '${IMAGE:?which one}', command: '${DOMAIN?} $${NOT:?}'}}"
    fields = form(Recipe({".env.sample": SAMPLE, "compose.yml": compose, "notes.md": "${NOTES:?}"}))
    assert fields == (
        Field("TYPE", "blog"),
        Field(
            "DOMAIN",
            "blog.example.com",
            "Where it is reached, without a scheme. a name in DNS",
            required=True,
        ),
        Field("TITLE", "A blog"),
        Field("MAIL_HOST", "mail.example.com", optional=True),
        Field(
            "SECRET_DB_PASSWORD_VERSION",
            "v1",
            "Sentence = not a variable",
            secret=SecretHint(32, "hex", True),
        ),
        Field("SECRET_API_KEY_VERSION", "v1", "The key of the provider.", secret=SecretHint(generate=False)),
        Field("SECRET_SMTP_VERSION", "v1", optional=True, secret=SecretHint(20)),
        Field("COMPOSE_FILE", "compose.yml"),
        Field("IMAGE", required=True),
    )


def test_hints_are_found_by_variable() -> None:
    hints = secret_hints(Recipe({".env.sample": SAMPLE}))
    assert list(hints) == ["SECRET_DB_PASSWORD_VERSION", "SECRET_API_KEY_VERSION", "SECRET_SMTP_VERSION"]
    assert form(Recipe({})) == ()
