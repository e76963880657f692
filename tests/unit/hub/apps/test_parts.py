"""The small rules of deploying: secrets, images, boards' machines, differences."""

from __future__ import annotations

import string

import pytest

from agent.wire.errors import Refused
from hub.apps.content import MOST_LINES, Content, difference
from hub.apps.images import (
    askable,
    choose,
    digest_of,
    is_index,
    pinned,
    platform_name,
    platforms_of,
    read_index,
    untagged,
)
from hub.apps.secrets import CHARSETS, LARGEST_BYTES, check_value, made_up
from hub.apps.wish import Wish, check_name, wanted

D = "sha256:" + "d" * 64
E = "sha256:" + "e" * 64


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_a_secret_is_made_of_what_the_hint_says(charset: str) -> None:
    value = made_up(200, charset)
    assert len(value) == 200
    assert set(value) <= set(CHARSETS[charset])
    assert value != made_up(200, charset)


def test_without_a_hint_it_is_32_letters_and_digits() -> None:
    assert len(made_up(0, "")) == 32
    assert CHARSETS[""] == string.ascii_letters + string.digits


def test_hints_that_are_none() -> None:
    with pytest.raises(Refused, match="charset=emoji") as caught:
        made_up(8, "emoji")
    assert "hex" in caught.value.hint
    with pytest.raises(Refused, match="length=9999"):
        made_up(9999, "")


def test_values_have_bounds_and_are_not_told() -> None:
    check_value("x", "ü" * 10)
    for value in ("", "tell" * LARGEST_BYTES):
        with pytest.raises(Refused) as caught:
            check_value("x", value)
        assert "telltell" not in str(caught.value)


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("docker.io/library/nginx:1.25", "docker.io/library/nginx"),
        ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a"),
        (f"ghcr.io/a/b:1@{D}", "ghcr.io/a/b"),
    ],
)
def test_references(image: str, name: str) -> None:
    assert untagged(image) == name
    assert pinned(image, E) == f"{name}@{E}"
    assert askable(image) == (f"{name}@{D}" if digest_of(image) else image)


@pytest.mark.parametrize(
    ("arch", "there", "digest"),
    [
        ("aarch64", {"arm64": D, "arm/v7": E}, D),
        ("aarch64", {"arm/v7": D, "amd64": E}, ""),
        ("armv7l", {"arm/v6": D, "arm/v7": E}, E),
        ("armv7l", {"arm/v6": D, "arm64": E}, D),
        ("armv6l", {"arm/v7": D}, ""),
        ("x86_64", {"amd64": D}, D),
        ("pdp11", {"amd64": D}, ""),
        ("", {"amd64": D}, ""),
    ],
)
def test_a_machine_gets_the_best_build_that_it_can_run(arch: str, there: dict[str, str], digest: str) -> None:
    assert choose(there, arch) == digest


def test_names_of_platforms() -> None:
    assert platform_name("arm64", "v8") == platform_name("arm64") == "arm64"
    assert platform_name("arm") == "arm/v7"
    assert platform_name("arm", "v6") == "arm/v6"
    assert platforms_of("armv8l")[0] == "arm/v7"


def test_an_index_is_read_with_caution() -> None:
    def entry(digest: object = D, **platform: object) -> dict[str, object]:
        return {"digest": digest, "platform": {"os": "linux", **platform}}

    document = {
        "manifests": [
            entry(architecture="amd64"),
            entry(E, architecture="arm64", variant="v8"),
            entry(architecture="unknown", os="unknown"),  # an attestation
            entry(architecture="amd64", os="windows"),
            entry("sha256:short", architecture="riscv64"),
            {"digest": D},
            "nonsense",
            entry(E, architecture="amd64"),  # the first counts
        ]
    }
    assert is_index(document)
    assert read_index(document) == {"amd64": D, "arm64": E}
    empties: list[dict[str, object]] = [{"manifests": []}, {"manifests": "x"}, {}]
    for empty in empties:
        with pytest.raises(Refused, match="no build for Linux"):
            read_index(empty)


# --- what is new -----------------------------------------------------------------------------------


def content(**changes: object) -> Content:
    whole: dict[str, object] = {
        "files": {"compose.yml": "a\nb\nc\n"},
        "env": {"X": "1"},
        "boards": ("b1",),
        "pins": {"web:1": {"arm64": D}},
    }
    return Content(**(whole | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"env": {"X": "2"}}, ["- X=1", "+ X=2"]),
        ({"env": {}}, ["- X=1"]),
        ({"env": {"X": "1", "EMPTY": ""}}, ["+ EMPTY="]),
        ({"boards": ("b1", "b2")}, ["+ board roof"]),
        ({"scale": {"web": 3}}, ["+ replicas of web=3"]),
        ({"restarted": {"web": 1}}, ["+ restarts of web=1"]),
        ({"stopped": True}, ["+ stopped=yes"]),
        ({"pins": {"web:1": {"arm64": E}}}, [f"- image web:1 arm64={D}", f"+ image web:1 arm64={E}"]),
        (
            {"files": {"compose.yml": "a\nB\nc\n"}},
            ["--- compose.yml", "+++ compose.yml", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"],
        ),
        (
            {"files": {}},
            ["--- compose.yml", "+++ /dev/null", "@@ -1,3 +0,0 @@", "-a", "-b", "-c"],
        ),
    ],
)
def test_a_difference_names_what_has_changed(changes: dict[str, object], lines: list[str]) -> None:
    assert difference(content(), content(**changes), {"b2": "roof"}) == lines


def test_a_difference_has_bounds() -> None:
    long = content(files={"x": "y" * 10_000, "many": "\n".join(map(str, range(MOST_LINES * 2)))})
    lines = difference(None, long, {})
    assert len(lines) == MOST_LINES
    assert lines[-1].endswith("more lines")
    assert max(map(len, lines)) < 600


def test_a_name_is_what_an_app_can_be_called() -> None:
    assert check_name("blog-2") == "blog-2"
    for name in ("", "UPPER", "a" * 41, "a b", "../x"):
        with pytest.raises(Refused):
            check_name(name)


def test_a_wish_for_a_new_app_is_filled_up_from_its_sample() -> None:
    files = {"compose.yml": "", ".env.sample": "A=1\nB=2\n#C=3\n"}
    assert wanted(None, Wish(files), ()).env == {"A": "1", "B": "2"}
    assert wanted(None, Wish(files, set={"A": None, "D": "4"}), ()).env == {"B": "2", "D": "4"}
    assert wanted(None, Wish(files, env={"Z": "9"}), ()).env == {"Z": "9"}
    with pytest.raises(Refused, match="needs the files"):
        wanted(None, Wish(), ())
