"""A pull that fails on the board, as whoever deploys sees it: command, API and pages of a hub that runs.

What Podman makes of each fault: tests/contract/test_podman.py.  It answers a pull that fails with 200 and
a line that says so; here the layers come through a door that spoils them.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.lab import ADMIN, PASSWORD
from support.podman import Stand, stand
from support.registry import Door
from support.shell import Shell
from support.site import Site
from support.visitor import HTML, texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
RECIPE = """
services:
  web:
    image: ${IMAGE}
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 1s}}
x-lichen: {timeout: "${TIMEOUT:-1m}"}
"""


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        yield made


@pytest.fixture
def door(podman: Stand) -> Iterator[Door]:
    with Door(podman.registry) as made:
        yield made


@pytest.fixture
async def site(short_path: Path, podman: Stand, door: Door) -> AsyncIterator[Site]:
    async with Site.open(short_path, podman, door.address) as site:
        yield site


def shell_at(site: Site, name: str) -> Shell:
    """A shell at whose home there is the recipe of an app."""
    folder = site.lab.dir / "home" / name
    folder.mkdir(parents=True)
    (folder / "compose.yml").write_text(RECIPE)
    return Shell(folder.parent, site.lab.url, site.lab.api_token)


def image(door: Door, tag: str) -> str:
    """A new image, of which nothing is on the board yet."""
    door.behind.push("pulled", files={"noise": os.urandom(300_000)}, tag=tag)
    return f"{door.address}/pulled:{tag}"


async def pages(site: Site, *paths: str) -> list[str]:
    """What a reader sees there."""
    jar = aiohttp.CookieJar(unsafe=True)  # also of an address without a name
    async with aiohttp.ClientSession(site.lab.url, cookie_jar=jar, headers=HTML) as http:
        form = {"name": ADMIN, "password": PASSWORD}
        async with http.post("/login", data=form, headers={"Origin": site.lab.url}) as answer:
            assert answer.status == 200
        found = []
        for path in paths:
            async with http.get(path) as answer:
                found.append(texts(html.unescape(await answer.text())))
        return found


async def failure(site: Site, name: str) -> dict[str, Any]:
    """What the API says of the board on which a version did not come up."""
    picture = await site.until_over(name)
    assert (picture["state"], picture["has_failed"], picture["boards"][0]["running"]) == ("failed", True, 1)
    found: dict[str, Any] = picture["boards"][0]["reported"]["failure"]
    assert (found["revision"], found["service"], found["rolled_back_to"]) == (picture["revision"], "web", 1)
    return found


async def test_a_pull_that_fails_is_told_to_all_and_the_same_words_try_again(
    site: Site, door: Door, podman: Stand
) -> None:
    name = podman.app("pulled")
    shell = shell_at(site, name)
    one, two = (f"IMAGE={image(door, tag)}" for tag in ("1", "2"))
    await shell.type("app", "deploy", name, "--wait", "--set", one, "--board", "board")
    deploy = ("app", "deploy", name, "--wait", "--set", two)
    went_back = "rolled back to revision 1, which runs\n"

    door.fault = "mangle"
    _, err = await shell.type(*deploy, status=77)
    told = await failure(site, name)
    assert (told["code"], told["step"]) == ("image", "pulling the image of web")
    assert re.search(r"cannot be had: Digest did not match, expected \S+, got \S+$", told["reason"])
    assert "board: it failed at: pulling the image of web (image)\n" in err
    assert f"{name}: revision 2 failed on board: {told['reason']}; {went_back}" in err
    for seen in await pages(site, "/apps", f"/apps/{name}", f"/apps/{name}/history", "/boards/board"):
        assert told["reason"] in seen

    door.fault = "cut"
    _, err = await shell.type(*deploy, "--set", "TIMEOUT=4s", status=77)
    told = await failure(site, name)
    assert told["code"] == "timeout"
    assert re.fullmatch(r"web was not made within 4 s: \S+ cannot be had: unexpected EOF", told["reason"])
    assert re.search(r"board: trying again: \S+ cannot be had: unexpected EOF\n", err)
    assert f"revision 3 failed on board: {told['reason']}; {went_back}" in err

    door.fault = "deny"  # the hub knows the images already, and asks nobody
    _, err = await shell.type("app", "rollback", name, "--to", "3", "--wait", status=77)
    told = await failure(site, name)
    assert told["code"] == "denied"
    assert err.endswith(f"\n  hint: {told['hint']}\n")
    assert "`lichen registry set` says who the hub is there; then deploy again" in told["hint"]

    door.fault = ""
    out, _ = await shell.type(*deploy)
    assert out == f"{name}: revision 5 runs on board.\n"
    [seen] = await pages(site, f"/apps/{name}")
    assert "cannot be had" not in seen
