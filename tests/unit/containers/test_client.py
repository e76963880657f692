"""What is made of answers of Podman that nobody expects; those it gives: tests/contract/test_podman.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.containers.client import Client, find_image
from agent.wire.errors import LinkDown, Refused

WEB = "registry.example/web@sha256:" + "0" * 64


class Answer:
    """As requests has them."""

    def __init__(self, status: int, text: str) -> None:
        self.status_code, self.text = status, text

    def json(self) -> Any:
        return json.loads(self.text)


class Api:
    """An API that answers what it was told to."""

    def __init__(self, image: Answer, storage: Path) -> None:
        self.image, self.storage = image, storage

    def get(self, path: str, **_: Any) -> Answer:
        store = {"graphRoot": str(self.storage), "graphDriverName": "overlay"}
        return Answer(200, json.dumps({"store": store})) if path == "/info" else self.image

    post = delete = get


@pytest.fixture
def listening(short_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_path / "podman.sock"))
        yield short_path / "podman.sock"


def stored(folder: Path, images: list[dict[str, Any]], layers: list[dict[str, Any]]) -> Path:
    for kind, content in (("images", images), ("layers", layers)):
        (folder / f"overlay-{kind}").mkdir()
        (folder / f"overlay-{kind}/{kind}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("said", ["permission denied", "database is locked", "no space left on device"])
def test_an_odd_answer_says_nothing_of_an_image(listening: Path, tmp_path: Path, said: str) -> None:
    client = Client(Api(Answer(500, said), tmp_path), listening)
    with pytest.raises(Refused, match=said):
        find_image(client, WEB)


LOST = Answer(500, 'loading "x": top layer of image "abc" not found: layer not known')
THEIRS = {"id": "1", "names": ["localhost/theirs:1"], "layer": "lost"}


@pytest.mark.parametrize(
    ("images", "layers", "expected"),
    [
        ([THEIRS], [], None),  # it is not ours that lacks a layer, and ours is not there
        ([THEIRS, {"id": "2", "names": [WEB], "layer": "lost"}], [], "2"),
        ([{"id": "2", "names": [WEB], "layer": "top"}], [{"id": "top", "parent": "lost"}], "2"),
    ],
)
def test_the_storage_says_which_image_is_broken(
    listening: Path, tmp_path: Path, images: list[Any], layers: list[Any], expected: str | None
) -> None:
    client = Client(Api(LOST, stored(tmp_path, images, layers)), listening)
    found = find_image(client, WEB)
    assert (found.id if found is not None else None) == expected
    assert found is None or found.broken


def test_an_image_whose_layers_are_there_is_not_broken_whatever_is_said(
    listening: Path, tmp_path: Path
) -> None:
    layers = [{"id": "top", "parent": "base"}, {"id": "base"}]
    storage = stored(tmp_path, [THEIRS, {"id": "2", "names": [WEB], "layer": "top"}], layers)
    with pytest.raises(Refused):
        find_image(Client(Api(LOST, storage), listening), WEB)


def test_a_storage_that_cannot_be_read_condemns_nothing(listening: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        find_image(Client(Api(LOST, tmp_path), listening), WEB)


@pytest.mark.parametrize("text", ["", '{"Id": "12'])
def test_an_answer_that_is_cut_short_is_a_lost_link(listening: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(LinkDown, match="cut short") as error:
        find_image(Client(Api(Answer(200, text), tmp_path), listening), WEB)
    assert error.value.code == "podman-down"
