"""`lichen app` against a real hub: what a board says of its apps is fed in as ingest would."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from agent.wire.apps import AppState, ContainerState, Failure, Progress
from hub.apps.loader import DEFAULT_FILES
from hub.apps.recipe import MAX_FILE_CHARACTERS, MAX_FILES
from hub.apps.view import AppPicture, picture_of
from hub.cli import recipes as local
from hub.cli.root import command_line
from hub.store.app_secrets import list_secrets
from hub.store.apps import find_app
from support.apps import failed, push_image, recipe, running, updating
from support.registry import Registry, registry
from support.shell import Shell
from support.webhub import ADMIN, WebHub

pytestmark = pytest.mark.slow

FAILURE = Failure(
    revision=2,
    at_ms=5,
    step="starting demo_web.0.1a2b3c4d",
    reason="web has ended 3 times",
    service="web",
    exit_code=1,
    code="exited",
    log="listening\nBREAK is set\x1b[2J, so this is the end",
    rolled_back_to=1,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def image(shop: Registry) -> str:
    return push_image(shop, "demo", "1", "arm64")


@pytest.fixture
async def hub(tmp_path: Path, shop: Registry) -> AsyncIterator[WebHub]:
    async with WebHub.open(tmp_path, plain_http=[shop.address]) as hub:
        await hub.add_board("pump", labels={"site": "north"})
        await hub.presence("pump", "online")
        yield hub


@pytest.fixture
async def shell(hub: WebHub, tmp_path: Path, image: str) -> Shell:
    """At home there is a recipe in the folder demo."""
    home = tmp_path / "home"
    write(home / "demo", recipe(image))
    return Shell(home, hub.url, await hub.access.new_api_token(ADMIN, "shell"))


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


async def picture(hub: WebHub) -> AppPicture:
    async with hub.store.read() as tx:
        return await picture_of(tx, "demo", hub.now_ms)


async def until_asked(hub: WebHub, revision: int) -> int:
    """Wait until a revision was asked for; the generation of the order that has it."""
    async with asyncio.timeout(20):
        while True:
            async with hub.store.read() as tx:
                row = await find_app(tx, "demo")
            if row is not None and row.number == revision:
                return max(place.generation for place in (await picture(hub)).boards)
            await asyncio.sleep(0.01)


async def come_up(hub: WebHub, shell: Shell, *args: str, revision: int, **state: Any) -> tuple[str, str]:
    """Type a command that waits, and let the board do what is asked."""
    typed = await shell.start("app", *args, "--wait")
    generation = await until_asked(hub, revision)
    await hub.say_apps("pump", generation, running("demo", revision, **state))
    return await typed.end()


# --- deploying, both ways ----------------------------------------------------------------------------


async def test_a_deployment_is_followed_until_it_runs(hub: WebHub, shell: Shell) -> None:
    typed = await shell.start("app", "deploy", "demo", "--board", "pump", "--wait", "-m", "at last")
    generation = await until_asked(hub, 1)
    await hub.say_apps("pump", generation, replace(updating("demo", 1), progress=Progress(430, 1000, "By")))
    await typed.says("pump: pulling the image of web: 43 % of 1.00 kB\n")
    await hub.say_apps("pump", generation, running("demo", 1, notes=("stop-first, because of its volume",)))
    out, err = await typed.end()
    assert out.splitlines() == [
        "Made up the secret password.",
        "demo: revision 1 runs on pump.",
        "Note: stop-first, because of its volume",
    ]
    assert err.splitlines()[-2:] == ["pump: pulling the image of web: 43 % of 1.00 kB", "pump: running"]
    listed = (await shell.json("app", "ls"))["apps"]
    assert [(each["name"], each["state"], each["boards"]) for each in listed] == [
        ("demo", "running", ["pump"])
    ]
    out, _ = await shell.type("app", "history", "demo")
    assert "at last" in out
    assert "pump: running" in out


async def test_a_version_that_is_rolled_back_fails_and_the_reason_stays(hub: WebHub, shell: Shell) -> None:
    await come_up(hub, shell, "deploy", "demo", "--board", "pump", revision=1)
    typed = await shell.start("app", "deploy", "demo", "--set", "GREETING=bye", "--wait")
    generation = await until_asked(hub, 2)
    await hub.say_apps("pump", generation, replace(failed("demo", 2, back_to=1), failure=FAILURE))
    out, err = await typed.end(77)
    assert out == ""
    assert err.endswith(
        "pump: it failed at: starting demo_web.0.1a2b3c4d (exited, exit code 1)\n"
        "The last lines of web:\n"
        "  | listening\n"
        "  | BREAK is set\ufffd[2J, so this is the end\n"
        "lichen: demo: revision 2 failed on pump: web has ended 3 times;"
        " rolled back to revision 1, which runs\n"
        "  hint: `lichen app show demo` keeps what is known of it\n"
    )
    shown = await shell.json("app", "show", "demo")
    assert (shown["has_failed"], shown["boards"][0]["reported"]["failure"]["exit_code"]) == (True, 1)
    out, _ = await shell.type("app", "show", "demo")
    assert "rolled back to revision 1, which runs" in out
    assert "  | listening" in out
    # What somebody asks for next begins from what runs.
    out, _ = await shell.type("app", "deploy", "demo", "--dry-run")
    assert "GREETING" not in out


async def test_a_first_version_that_fails_leaves_nothing(hub: WebHub, shell: Shell) -> None:
    typed = await shell.start("app", "deploy", "demo", "--board", "pump", "--wait", "--json")
    await hub.say_apps("pump", await until_asked(hub, 1), failed("demo", 1))
    out, err = await typed.end(77)
    assert json.loads(out)["app"]["has_failed"], "the document comes whatever happened"
    assert json.loads(out)["generated"] == ["password"]
    assert err == (
        "lichen: demo: revision 1 failed on pump: web never got healthy; nothing of it runs\n"
        "  hint: look at its log\n"
    )


async def test_a_board_that_does_not_want_it(hub: WebHub, shell: Shell) -> None:
    await come_up(hub, shell, "deploy", "demo", "--board", "pump", revision=1)
    typed = await shell.start("app", "restart", "demo", "--wait")
    generation = await until_asked(hub, 2)
    reason, hint = "this board's policy does not allow web to be privileged", "allow it by `privileged`"
    await hub.say_apps(
        "pump", generation - 1, running("demo", 1), refused=generation, reason=reason, hint=hint
    )
    _, err = await typed.end(77)
    told = f"{reason}; revision 1 stays as it is\n  hint: {hint}\n"
    assert err.endswith(f"\nlichen: demo: revision 2 was refused by pump: {told}")
    assert "\n\n" not in err
    _, err = await shell.type("app", "ls", "--board", "pump")
    assert f"It refuses order {generation}: {reason}" in err


async def test_nobody_waits_for_a_board_that_is_away_unless_told(hub: WebHub, shell: Shell) -> None:
    await hub.presence("pump", "offline")
    hub.skew_ms = 3 * 3_600_000
    out, _ = await shell.type("app", "deploy", "demo", "--board", "pump")
    away = "pump: offline for 3 h; it takes revision 1 when it is back"
    assert f"demo: {away}.\nLook at it with: lichen app show demo\n" in out
    _, err = await shell.type("app", "restart", "demo", "--wait", status=75)
    assert (
        "revision 2 is not everywhere yet: pump: offline for 3 h; it takes revision 2 when it is back" in err
    )
    assert "--offline-too" in err
    typed = await shell.start("app", "restart", "demo", "--offline-too")
    generation = await until_asked(hub, 3)
    await typed.says("pump: offline")
    await hub.presence("pump", "online")
    await hub.say_apps("pump", generation, running("demo", 3))
    await typed.end()


async def test_patience_ends_and_says_how_it_goes_on(hub: WebHub, shell: Shell) -> None:
    _, err = await shell.type(
        "app", "deploy", "demo", "--board", "pump", "--wait", "--timeout", "1s", status=75
    )
    assert "lichen: demo is not done after 1 s (pump: the order is on its way); it goes on" in err
    assert "may lack Podman" in err


async def test_who_stops_waiting_is_told_that_it_goes_on(hub: WebHub, shell: Shell) -> None:
    typed = await shell.start("app", "deploy", "demo", "--board", "pump", "--wait")
    await typed.says("on its way")
    typed.interrupt()
    _, err = await typed.end(130)
    assert "it goes on. Look: lichen app show demo" in err
    assert "lichen app cancel demo" in err
    assert (await picture(hub)).boards[0].is_pending


async def test_a_change_that_another_one_overtakes(hub: WebHub, shell: Shell) -> None:
    typed = await shell.start("app", "deploy", "demo", "--board", "pump", "--wait")
    await typed.says("on its way")
    await shell.type("app", "cancel", "demo")
    _, err = await typed.end(77)
    assert "admin has changed demo meanwhile (cancel, revision 2), so revision 1 counts no more" in err
    await hub.say_apps("pump", await until_asked(hub, 2))
    _, err = await shell.type("app", "cancel", "demo", status=77)
    assert "no change of demo is under way" in err


async def test_a_hub_that_restarts_meanwhile_is_asked_again(hub: WebHub, shell: Shell) -> None:
    typed = await shell.start("app", "deploy", "demo", "--board", "pump", "--wait")
    await typed.says("on its way")
    port = int(hub.url.rpartition(":")[2])
    await hub.stop()
    await hub.start(port)
    await hub.say_apps("pump", await until_asked(hub, 1), running("demo", 1))
    await typed.end()


async def test_on_a_terminal_a_line_for_each_board_is_drawn_anew(hub: WebHub, shell: Shell) -> None:
    screen = await shell.on_a_terminal("app", "deploy", "demo", "--board", "pump", "--wait")
    generation = await until_asked(hub, 1)
    for step in ("pulling the image of web", "waiting for web to become healthy"):
        await hub.say_apps("pump", generation, replace(updating("demo", 1), step=step))
        await screen.shows(step)
    await hub.say_apps("pump", generation, running("demo", 1))
    shown = await screen.end()
    assert "pulled · healthy in " in shown
    assert "demo: revision 1 runs on pump." in shown


# --- what is deployed --------------------------------------------------------------------------------


async def test_variables_and_boards_stay_unless_somebody_says_otherwise(hub: WebHub, shell: Shell) -> None:
    (shell.folder / "my.env").write_text("GREETING='good day'\nSECRET_PASSWORD_VERSION=v1\nOLD=1\n")
    await come_up(hub, shell, "deploy", "demo", "--label", "site=north", "--env-file", "my.env", revision=1)
    assert (await picture(hub)).env["GREETING"] == "good day"
    await come_up(hub, shell, "upgrade", "demo", "--set", "A=b=c", "--unset", "OLD", revision=2)
    env = (await picture(hub)).env
    assert (env["GREETING"], env["A"], "OLD" in env) == ("good day", "b=c", False)
    (shell.folder / "my.env").write_text("GREETING='good day\n")
    _, err = await shell.type("app", "upgrade", "demo", "--env-file", "my.env", status=77)
    assert "the env file:1: a quote is opened and not closed" in err
    _, err = await shell.type("app", "upgrade", "other", status=77)
    assert "there is no app 'other'" in err
    await shell.type("app", "upgrade", "demo", "--set", "nonsense", status=2)


async def test_the_name_is_that_of_the_recipe_of_the_folder_or_of_the_option(
    hub: WebHub, shell: Shell, image: str
) -> None:
    compose = f"services:\n  web:\n    image: {image}\n"
    write(shell.folder / "a", {"compose.yml": f"name: blog   # ours\n{compose}"})
    write(shell.folder / "b", {"wiki.yml": compose})
    write(shell.folder / "Not so", {"compose.yml": compose})
    write(shell.folder / "c", {"compose.yml": compose, ".env.sample": "", "notes.txt": ""})
    for path, name in (("a", "blog"), ("b/wiki.yml", "wiki"), ("c/compose.yml", "c")):
        assert (await shell.json("app", "check", path))["app"] == name
    _, err = await shell.type("app", "check", "c/compose.yml")
    assert "Not uploaded: what lies beside compose.yml (name the folder to take it along)" in err
    _, err = await shell.type("app", "check", "Not so", status=78)
    assert "'Not so' is not lower-case letters" in err
    assert "--name blog" in err
    await shell.type("app", "check", "Not so", "--name", "so")
    _, err = await shell.type("app", "check", "nowhere", status=78)
    assert "there is no nowhere" in err


async def test_only_the_text_of_a_recipe_goes_to_the_hub(hub: WebHub, shell: Shell) -> None:
    demo = shell.folder / "demo"
    write(demo / ".git", {"config": "x"})
    write(demo, {".env": "TOKEN=secret"})
    (demo / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (demo / "outside").symlink_to("/etc/passwd")
    (demo / "large.txt").write_text("x" * 600_000)
    _, err = await shell.type("app", "deploy", "demo", "--board", "pump")
    assert err == (
        "Not uploaded: .git/ (hidden), .env (hidden), large.txt (larger than 512 KiB), logo.png (no text),"
        " outside (a link that leads out of the folder)\n"
    )
    async with hub.store.read() as tx:
        row = await find_app(tx, "demo")
        assert row is not None
        files = await hub.parts.desk.changes.read(tx, row)
    assert sorted(files.files) == [".env.sample", "compose.yml", "plain.txt", "private.tmpl"]
    write(demo / "many", {f"{number:03}.txt": "" for number in range(300)})
    _, err = await shell.type("app", "deploy", "demo", status=78)
    assert "more than 256 text files" in err
    _, err = await shell.type("app", "deploy", ".", status=78)
    assert ". has no compose file" in err


def test_both_sides_mean_the_same_by_a_recipe() -> None:
    assert set(local.COMPOSE) == set(DEFAULT_FILES)
    assert (local.MOST_FILES, local.MOST_BYTES) == (MAX_FILES, MAX_FILE_CHARACTERS)


async def test_a_check_says_what_becomes_of_each_key(hub: WebHub, shell: Shell, image: str) -> None:
    out, _ = await shell.type("app", "check", "demo", "--board", "pump")
    assert out.endswith("The secret password (v1) will be made up.\ndemo 1.2 can be deployed on pump.\n")
    assert "services.web.image" not in out
    out, _ = await shell.type("app", "check", "demo", "--all")
    assert re.search(r"compose.yml:4 +services.web.image +supported", out)
    compose = f"services:\n  web:\n    image: {image}\n    privileged: true\n    build: .\n"
    write(shell.folder / "bad", {"compose.yml": compose})
    out, _ = await shell.type("app", "check", "bad", status=1)
    assert "compose.yml:5" in out
    assert (
        "bad cannot be deployed like this:\n  compose.yml:5: services.web.build: boards do not build" in out
    )
    write(shell.folder / "bad", {"compose.yml": "services:\n  web: [\n"})
    _, err = await shell.type("app", "check", "bad", status=77)
    assert "lichen: compose.yml:3:" in err
    _, err = await shell.type("app", "check", "demo", "--board", "pmup", status=77)
    assert "did you mean 'pump'?" in err


async def test_a_dry_run_changes_nothing_and_shows_the_difference(hub: WebHub, shell: Shell) -> None:
    await come_up(hub, shell, "deploy", "demo", "--board", "pump", revision=1)
    (shell.folder / "demo/plain.txt").write_text("nothing at all\n")
    out, _ = await shell.type("app", "deploy", "demo", "--dry-run", "--set", "GREETING=hi")
    assert "  - GREETING=hello\n  + GREETING=hi\n" in out
    assert "  -nothing to hide\n  +nothing at all\n" in out
    await hub.add_board("roof")
    await hub.presence("roof", "offline")
    out, _ = await shell.type("app", "deploy", "demo", "--dry-run", "--board", "roof")
    assert "  - board pump\n  + board roof\n" in out
    assert "roof is offline: it gets the app when it is back." in out
    assert (await picture(hub)).revision == 1


# --- what else is done to an app ---------------------------------------------------------------------


async def test_an_app_through_its_life(hub: WebHub, shell: Shell) -> None:
    await come_up(hub, shell, "deploy", "demo", "--board", "pump", revision=1)
    container = ContainerState(
        "web", "demo_web.0.1a2b3c4d", "running", revision=1, health="healthy", started_ms=hub.now_ms - 90_000,
        restarts=2, cpu_milli=125, memory_bytes=28_000_000,
    )  # fmt: skip
    ended = ContainerState("job", "demo_job.0.00aa", "ended", exit_code=137, oom=True)
    out, _ = await come_up(hub, shell, "scale", "demo", "web=2", revision=2, containers=(container, ended))
    assert out == "demo: revision 2 runs on pump.\n"
    out, _ = await shell.type("app", "ps", "demo")
    assert "demo_web.0.1a2b3c4d  running, healthy" in out
    assert "1 min  2     13 %  28.0 MB" in out
    assert "ended with 137, out of memory" in out
    await come_up(hub, shell, "upgrade", "demo", "--set", "GREETING=hi", revision=3)
    await come_up(hub, shell, "rollback", "demo", revision=4)
    assert (await picture(hub)).env["GREETING"] == "hello"
    out, _ = await come_up(hub, shell, "stop", "demo", revision=5, state="stopped")
    assert out == "demo: revision 5 is stopped on pump.\n"
    _, err = await shell.type("app", "stop", "demo", status=77)
    assert "demo is stopped already" in err
    await come_up(hub, shell, "start", "demo", "-m", "spring", revision=6)
    out, _ = await shell.type("app", "history", "demo", "3")
    assert "+ GREETING=hi" in out
    _, err = await shell.type("app", "history", "demo", "99", status=77)
    assert "demo has no revision 99" in err
    assert [each["action"] for each in (await shell.json("app", "history", "demo"))["revisions"]] == [
        "start", "stop", "rollback", "deploy", "scale", "deploy",
    ]  # fmt: skip
    typed = await shell.start("app", "undeploy", "demo", "--wait", "--volumes")
    generation = await until_asked(hub, 7)
    removing = AppState("demo", 7, 0, "removing", step="removing demo_web.0.1a2b3c4d")
    await hub.say_apps("pump", generation, removing)
    await typed.says("pump: removing demo_web.0.1a2b3c4d")
    await hub.say_apps("pump", generation)
    out, _ = await typed.end()
    assert out == "demo is gone from pump.\n"
    out, _ = await shell.type("app", "ls")
    assert out.startswith("No apps here.")
    out, _ = await shell.type("app", "ls", "--gone")
    assert "demo" in out
    _, err = await shell.type("app", "scale", "demo", "web", status=2)
    assert "is not SERVICE=NUMBER" in err


async def test_one_change_at_a_time(hub: WebHub, shell: Shell) -> None:
    await shell.type("app", "deploy", "demo", "--board", "pump")
    await hub.say_apps("pump", await until_asked(hub, 1), updating("demo", 1))
    _, err = await shell.type("app", "restart", "demo", status=75)
    assert "admin has been changing demo for" in err
    assert "cancel it: lichen app cancel demo" in err
    await shell.type("app", "cancel", "demo")


# --- secrets -----------------------------------------------------------------------------------------


async def test_secrets_come_in_unseen_and_never_out(hub: WebHub, shell: Shell) -> None:
    out, _ = await shell.type("secret", "set", "demo", "password", stdin="correct horse\n")
    assert "A running app gets it with: lichen app restart demo" in out
    (shell.folder / "key.pem").write_text("-----\nabc\n")
    await shell.type("secret", "set", "demo", "key", "--file", "key.pem", "--version", "v2")
    await shell.type("secret", "set", "demo", "token", "--generate")
    found = (await shell.json("secret", "ls", "demo"))["secrets"]
    assert {(each["name"], each["version"], each["state"]) for each in found} == {
        ("password", "v1", "unused"), ("key", "v2", "unused"), ("token", "v1", "unused"),
    }  # fmt: skip
    async with hub.store.read() as tx:
        rows = await list_secrets(tx, "demo")
    values = {row.name: hub.parts.desk.secrets._opened(row) for row in rows}
    assert (values["password"], values["key"]) == ("correct horse", "-----\nabc\n")
    out, _ = await come_up(hub, shell, "deploy", "demo", "--board", "pump", revision=1)
    assert "Made up" not in out, "the one that was set is taken"
    out, _ = await shell.type("secret", "ls", "demo")
    assert "correct" not in out
    _, err = await shell.type("secret", "rm", "demo", "password", status=77)
    assert "demo uses the secret password (v1)" in err
    await shell.type("secret", "rm", "demo", "token")
    for stdin, said in ((b"", "is empty"), (b"\xff\xfe", "is no text")):
        _, err = await shell.type("secret", "set", "demo", "password", stdin=stdin, status=78)
        assert said in err
    _, err = await shell.type("secret", "set", "demo", "key", "--file", "none", status=78)
    assert "none cannot be read" in err
    await shell.type("secret", "set", "demo", "key", "--file", "key.pem", "--generate", status=2)


async def test_a_secret_is_typed_without_being_shown(hub: WebHub, shell: Shell) -> None:
    screen = await shell.on_a_terminal("secret", "set", "demo", "password")
    await screen.shows("Value of password:")
    screen.type("correct horse\n")
    shown = await screen.end()
    assert "is set" in shown
    assert "correct" not in shown


async def test_logins_at_registries(hub: WebHub, shell: Shell) -> None:
    out, _ = await shell.type("registry", "ls")
    assert out.startswith("No logins")
    await shell.type("registry", "set", "ghcr.io", "--user", "ada", stdin="a token\n")
    out, _ = await shell.type("registry", "ls")
    assert "ghcr.io" in out
    assert "token" not in out
    assert (await shell.json("registry", "ls"))["registries"][0]["user"] == "ada"
    await shell.type("registry", "set", "ghcr.io", stdin="x", status=2)
    await shell.type("registry", "rm", "ghcr.io")
    _, err = await shell.type("registry", "rm", "ghcr.io", status=77)
    assert "ghcr.io" in err


# --- help --------------------------------------------------------------------------------------------


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        yield f"{path} {name}", command


def test_every_help_about_apps_has_an_example_that_can_be_typed() -> None:
    found = dict(commands(command_line(), "lichen"))
    for path, command in found.items():
        if path.split()[1] not in ("app", "secret", "registry"):
            continue
        example = next(
            (line for line in (command.help or "").splitlines() if line.strip().startswith(path)), None
        )
        assert example, f"{path} --help shows no example"
