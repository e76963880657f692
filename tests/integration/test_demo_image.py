"""`make demo-image` and the app of images/demo-app: what it makes, starts, and takes away again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.containers.podman import Podman
from hub.apps.compile import compile_draft
from hub.apps.recipe import Recipe, read_env
from support.broker import free_port
from support.podman import Stand, stand, until
from support.source import ROOT

RECIPE = ROOT / "images/demo-app"


class Checkout:
    """A project folder with the script and the recipe, and a port for its registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        shutil.copytree(ROOT / "images", folder / "images")

    def run(self, action: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "images/demo-image", action],
            env={"PATH": os.environ["PATH"], "REGISTRY_PORT": str(self.port), **environment},
            text=True,
            capture_output=True,
            check=False,
        )

    @property
    def pid(self) -> int:
        return int((self.folder / ".run/registry/pid").read_text())

    @property
    def image(self) -> str:
        return f"127.0.0.1:{self.port}/lichen/demo"

    def digest(self) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/lichen/demo/manifests/1", method="HEAD"
        )
        request.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "checkout")
    yield made
    made.run("stop")


def test_it_starts_a_registry_once_and_stops_it_by_its_pid(checkout: Checkout) -> None:
    first = checkout.run("start")
    assert first.returncode == 0, first.stderr
    assert "a registry answers at" in first.stdout
    pid, digest = checkout.pid, checkout.digest()
    again = checkout.run("start")
    assert again.stdout == f"lichen: pushed {checkout.image}:1\n"
    assert (checkout.pid, checkout.digest()) == (pid, digest), "the same files make the same image"
    assert checkout.run("stop").returncode == 0
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not (checkout.folder / ".run/registry").exists()
    assert checkout.run("stop").stdout == "", "there is nothing to stop"


def test_another_port_moves_the_registry(checkout: Checkout) -> None:
    assert checkout.run("start").returncode == 0
    before = checkout.pid
    checkout.port = free_port()
    moved = checkout.run("start")
    assert moved.returncode == 0, moved.stderr
    assert not Path(f"/proc/{before}/exe").exists()
    assert checkout.digest()


def test_a_port_that_somebody_else_has_is_said(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.run("start").returncode == 0
    other = Checkout(tmp_path / "other")
    refused = other.run("start", REGISTRY_PORT=str(checkout.port))
    assert refused.returncode == 1
    assert "REGISTRY_PORT=8426 make demo-image" in refused.stderr
    assert other.run("stop").stdout == ""
    assert checkout.digest(), "and that of the other goes on"


def test_the_recipe_compiles_without_a_word_of_warning_but_for_its_interval() -> None:
    files = {str(path.relative_to(RECIPE)): path.read_text() for path in RECIPE.rglob("*") if path.is_file()}
    recipe = Recipe(files)
    draft = compile_draft(recipe, read_env(recipe.text(".env.sample")), app="demo-app")
    web, diary = draft.app.services
    assert (web.image, web.update.order, diary.update.order) == (
        "127.0.0.1:8425/lichen/demo:1",
        "start-first",
        "stop-first",
    )
    assert [(need.length, need.charset) for need in draft.secrets] == [(32, "hex")]
    odd = {each.verdict: each.key for each in draft.verdicts if each.verdict not in ("supported", "emulated")}
    assert odd == {"warned": "services.web.healthcheck.interval"}


@asynccontextmanager
async def demo(podman: Stand, checkout: Checkout) -> AsyncIterator[tuple[Podman, str]]:
    """An engine that has the demo's image, and its reference."""
    assert checkout.run("start").returncode == 0
    reference = f"{checkout.image}@{checkout.digest()}"
    async with podman.engine() as engine:
        await engine.pull(reference, plain_http=True)
        yield engine, reference


@pytest.mark.slow
async def test_the_image_does_what_the_recipe_says(checkout: Checkout) -> None:
    with stand() as podman:
        async with demo(podman, checkout) as (engine, reference):
            app, port = podman.app("demo"), free_port()
            await engine.create_network(app, {})
            await engine.create_secret(f"{app}-key", b"hush", {"lichen.app": app})
            await engine.create_secret(f"{app}-greeting", b"Good day.\n", {"lichen.app": app})
            await engine.create_volume(app, {})
            common: dict[str, Any] = {
                "image": reference,
                "netns": {"nsmode": "bridge"},
                "networks": {app: {}},
            }
            diary = await engine.create(
                {
                    **common,
                    "name": f"{app}-diary",
                    "command": ["diary"],
                    "volumes": [{"Name": app, "Dest": "/diary"}],
                }
            )
            web = await engine.create(
                {
                    **common,
                    "name": f"{app}-web",
                    "command": ["web"],
                    "portmappings": [{"container_port": 8080, "host_port": port}],
                    "volumes": [{"Name": app, "Dest": "/diary", "Options": ["ro"]}],
                    "secrets": [
                        {"source": f"{app}-key", "target": "/run/secrets/key", "mode": 0o400},
                        {"source": f"{app}-greeting", "target": "/www/greeting.txt", "mode": 0o444},
                    ],
                    "healthconfig": {"Test": ["CMD", "/bin/healthy"], "Timeout": 5 * 10**9},
                }
            )
            await engine.start(diary)
            await engine.start(web)
            await until(lambda: _healthy(engine, web))
            page = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/")
            assert page.startswith("Good day.\ncontainer: ")
            # sha256 of the secret
            assert "signed:    dc8331bcb2283e89" in page
            assert "diary:" in page
            await engine.stop(diary, 2)
            ended = podman.podman("inspect", "--format={{.State.ExitCode}}", diary).strip()
            assert ended == "0", "it listens to TERM"


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "code"), [("1", 3), ("health", None)])
async def test_a_broken_version_ends_or_never_becomes_healthy(
    checkout: Checkout, broken: str, code: int | None
) -> None:
    with stand() as podman:
        async with demo(podman, checkout) as (engine, reference):
            name = podman.app("demo")
            body = {"name": name, "image": reference, "command": ["web"], "env": {"BREAK": broken}}
            checks = {
                "healthconfig": {"Test": ["CMD", "/bin/healthy"], "Timeout": 5 * 10**9},
                "netns": {"nsmode": "none"},
            }
            await engine.create({**body, **checks, "labels": {"lichen.app": name}})
            await engine.start(name)
            if code is None:
                check = await engine.check(name)
                assert not check.healthy
                assert "BREAK=health" in check.output
            else:
                assert await until(lambda: _exit_code(engine)) == code
                assert "BREAK=1" in [line.text for line in await engine.logs(name)][-1]


async def _healthy(engine: Podman, id: str) -> bool:
    return (await engine.check(id)).healthy


async def _exit_code(engine: Podman) -> int | None:
    [container] = await engine.containers()
    return container.exit_code


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
