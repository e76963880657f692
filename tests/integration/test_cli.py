"""`lichen` as an operator types it: the real command against a real hub with a real board."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from support.homehub import HomeHub, website
from support.lab import ADMIN, PASSWORD, Board, Lab, Process, free_ports, script
from support.source import ROOT

pytestmark = pytest.mark.slow

CONFIG = {
    "report": {"every_s": 0.5, "commit_every_s": 0.2},
    "sensors": [
        {
            "name": "room",
            "kind": "file",
            "path": "/proc/loadavg",
            "pattern": r"^(\S+)",
            "unit": "Cel",
            "interval_s": 0.2,
        }
    ],
}


class Operator:
    """Somebody at a shell with a login file of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.login = home / "cli.toml"

    async def type(self, *args: str, status: int = 0, stdin: str = "") -> tuple[str, str]:
        """Run ``lichen ARGS``; returns what it printed on stdout and stderr."""
        child = await asyncio.create_subprocess_exec(
            script("lichen"), *args, env={"LICHEN_CONFIG": str(self.login), "HOME": str(self.home)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, err = await child.communicate(stdin.encode())
        assert child.returncode == status, f"{args}: {child.returncode}\n{out.decode()}{err.decode()}"
        return out.decode(), err.decode()

    async def json(self, *args: str) -> Any:
        out, _ = await self.type(*args, "--json")
        return json.loads(out)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        await lab.start_hub()
        yield lab


@pytest.fixture
async def operator(lab: Lab, tmp_path: Path) -> Operator:
    operator = Operator(tmp_path)
    operator.login.write_text(tomli_w.dumps({"url": lab.url, "token": lab.api_token}))
    return operator


@pytest.fixture
async def board(lab: Lab) -> Board:
    board = await lab.add_board("pump", **CONFIG)
    await board.start()
    await lab.until(lambda: board.joined and board.stored() > 3, "readings are stored")
    return board


async def test_login_by_password_by_link_and_with_neither(lab: Lab, tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    _, err = await operator.type("board", "ls", status=78)
    assert "not logged in" in err
    assert "lichen login" in err
    _, err = await operator.type("login", lab.url, "--password-file", "-", stdin="wrong\n", status=77)
    assert "do not belong together" in err
    await operator.type("login", lab.url, "--name", ADMIN, "--password-file", "-", stdin=PASSWORD + "\n")
    assert operator.login.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in operator.login.read_text()
    link = (await lab.command("lichen-hub", "login-link", "--dir", str(lab.hub_dir))).split()[-1]
    told = await operator.json("login", link)
    assert told == {"url": lab.url, "login_file": str(operator.login)}
    _, err = await operator.type("login", link, status=77)
    assert "has been used" in err
    await operator.type("board", "ls")


async def test_login_over_https_trusts_the_hubs_own_authority_only_when_told(
    lab: Lab, tmp_path: Path
) -> None:
    operator = Operator(tmp_path)
    url = f"https://127.0.0.1:{lab.board_port}"
    password = ("--password-file", "-")
    _, err = await operator.type("login", url, "--ca-sha256", "0" * 64, *password, stdin=PASSWORD, status=77)
    assert "is it your hub?" in err
    right = (await lab.new_token())["join_file"]["ca_sha256"]
    await operator.type("login", url, "--ca-sha256", right, *password, stdin=PASSWORD)
    assert (await operator.json("board", "ls"))["boards"] == []


async def test_tokens(operator: Operator, tmp_path: Path) -> None:
    out, _ = await operator.type("token", "new", "--name", "pump-07", "--label", "site=north", "--ttl", "6h")
    assert tomllib.loads(out).keys() == {"hub_url", "hub_key", "ca_sha256", "token"}
    file = tmp_path / "lichen-join.toml"
    await operator.type("token", "new", "--uses", "20", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    _, err = await operator.type("token", "new", "-o", str(file), status=78)
    assert "exists already" in err
    listed = (await operator.json("token", "ls"))["tokens"]
    assert {(row["name"], row["uses"]) for row in listed} == {("pump-07", 1), ("", 20)}
    id = str(next(row["id"] for row in listed if row["uses"] == 20))
    await operator.type("token", "revoke", id)
    out, _ = await operator.type("token", "ls")
    assert "revoked" in out
    _, err = await operator.type("token", "revoke", "4711", status=77)
    assert "4711" in err
    await operator.type("token", "new", "--ttl", "soon", status=2)


async def test_boards(operator: Operator, board: Board) -> None:
    out, _ = await operator.type("board", "ls")
    assert "pump" in out
    out, _ = await operator.type("board", "show", "pump")
    assert board.id in out
    assert "room" in out
    assert "°C" in out
    await operator.type("board", "rename", board.id, "cellar")
    await operator.type("board", "label", "cellar", "site=north", "spare=")
    out, _ = await operator.type("board", "label", "cellar", "spare-")
    assert "site=north" in out
    assert "spare" not in out
    assert [
        row["name"] for row in (await operator.json("board", "ls", "--label", "site=north"))["boards"]
    ] == ["cellar"]
    _, err = await operator.type("board", "show", "cellr", status=77)
    assert "cellar" in err
    await operator.type("board", "label", "cellar", "nonsense", status=2)


async def test_readings(operator: Operator, board: Board) -> None:
    out, _ = await operator.type("readings", "pump", "room", "--since", "1h", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) > 2
    assert {row["sensor"] for row in rows} == {"room"}
    assert all(float(row["value"]) >= 0 for row in rows)
    assert len((await operator.json("readings", "pump"))["readings"]) > 2
    out, _ = await operator.type("readings", "pump")
    assert "°C" in out
    _, err = await operator.type("readings", "pump", "rom", status=77)
    assert "room" in err
    await operator.type("readings", "pump", "--since", "99999d")
    _, err = await operator.type("readings", "pump", "--csv", "--json", status=2)
    assert "exclude each other" in err


async def test_a_reader_who_has_seen_enough_is_no_failure(operator: Operator, board: Board) -> None:
    watch = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", f"{script('lichen')} watch | head -1",
        env={"LICHEN_CONFIG": str(operator.login), "PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await watch.communicate()
    assert (watch.returncode, err, out.count(b"\n")) == (0, b"", 1)


async def test_watch_prints_values_as_they_arrive(operator: Operator, board: Board, tmp_path: Path) -> None:
    log = tmp_path / "watch.log"
    watch = Process(
        "watch", ["env", f"LICHEN_CONFIG={operator.login}", script("lichen"), "watch", "pump"], log
    )
    await watch.start()
    try:
        await board.lab.until(
            lambda: log.exists() and log.read_text().count("room") > 3, "values are printed"
        )
        await board.lab.hub.stop()
        assert watch.child is not None
        async with asyncio.timeout(10):
            assert await watch.child.wait() == 75
    finally:
        await watch.kill()
    assert "°C" in log.read_text()
    assert "has stopped" in watch.tail()


async def test_a_hub_that_is_away_is_said_so(lab: Lab, operator: Operator) -> None:
    await lab.hub.stop()
    _, err = await operator.type("board", "ls", status=75)
    assert "is the hub running?" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion(shell: str, tmp_path: Path) -> None:
    out, _ = await Operator(tmp_path).type("completion", shell)
    assert "_LICHEN_COMPLETE" in out


async def test_help_teaches(tmp_path: Path) -> None:
    out, _ = await Operator(tmp_path).type("--help")
    assert "lichen token new" in out


# --- letting boards in and putting them out ------------------------------------------------------------


async def test_a_board_is_put_out_when_the_operator_says_so_twice(operator: Operator, board: Board) -> None:
    _, err = await operator.type("board", "revoke", "pump", status=130)
    assert "Nothing was revoked. Where nobody can be asked, add --yes." in err
    out, err = await operator.type("board", "revoke", "pump", status=130, stdin="n\n")
    assert f"Revoke pump ({board.id}) for good?" in err
    assert out == ""
    assert (await operator.json("board", "show", "pump"))["revoked_ms"] is None
    out, _ = await operator.type("board", "revoke", "pump", "--yes")
    assert out == f"pump ({board.id}) is revoked.\n"
    assert (await operator.json("board", "revoke", "pump", "--yes"))["revoked_ms"]
    _, err = await operator.type("board", "revoke", "pmp", "--yes", status=77)
    assert "no board 'pmp'" in err


async def test_a_token_for_a_replacement_names_the_board(operator: Operator, board: Board) -> None:
    made = await operator.json("token", "new", "--replaces", "pump")
    assert (made["name"], made["replaces"], made["uses"]) == ("pump", board.id, 1)
    for words in (("--name", "x"), ("--uses", "2"), ("--label", "a=b")):
        _, err = await operator.type("token", "new", "--replaces", "pump", *words, status=77)
        assert "takes that one's name and labels" in err
    _, err = await operator.type("token", "new", "--replaces", "pmup", status=77)
    assert "did you mean 'pump'?" in err


async def test_a_join_file_is_shown_as_a_code(operator: Operator) -> None:
    out, _ = await operator.type("token", "new", "--qr")
    file, code = out.split("\n█", 1)
    assert tomllib.loads(file)["token"]
    assert 30 < len(code.splitlines()) < 45
    await operator.type("token", "new", "--qr", "--json", status=2)


async def test_an_id_that_is_no_id_reaches_nothing_else(operator: Operator) -> None:
    for id in ("../boards/pump", "1?x", "a b"):
        _, err = await operator.type("token", "revoke", id, status=77)
        assert "no join token" in err


async def test_a_login_looks_for_the_hub_before_it_asks_for_a_password(
    operator: Operator, short_path: Path
) -> None:
    [port] = free_ports(1)
    for scheme in ("http", "https"):
        out, err = await operator.type("login", f"{scheme}://127.0.0.1:{port}", status=75)
        assert "cannot reach the hub" in err
        assert "Password" not in out + err
    context = HomeHub(short_path / "ca").authority.server_context()
    garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for page in (b"<html>", garbage.encode()):
        with website(context, {"GET /ca.pem": (200, page)}) as site:
            _, err = await operator.type("login", site.url, status=77)
        assert "is no hub" in err


async def test_a_command_that_nobody_has_names_the_nearest(tmp_path: Path) -> None:
    _, err = await Operator(tmp_path).type("bord", "ls", status=2)
    assert "Did you mean 'board'?" in err


async def test_a_command_is_not_kept_waiting_for_the_modules_of_others() -> None:
    program = (
        "import sys\n"
        "from hub.cli.root import lichen\n"
        "lichen(['board', 'ls', '--help'], standalone_mode=False)\n"
        "print(*(name for name in sys.modules if name.startswith('hub.cli.')))\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    loaded = set(out.decode().splitlines()[-1].split())
    assert "hub.cli.boards" in loaded
    assert not loaded & {"hub.cli.apps", "hub.cli.recipes", "hub.cli.usage", "hub.cli.usage_files"}
