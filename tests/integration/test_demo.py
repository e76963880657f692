"""What `make run` starts: twice the same, and refused before anything is touched."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent.base.lock import held
from agent.wire.errors import EXIT_CODES, Busy, ConfigError
from hub.cli.client import connect, load_login
from support.lab import Process, free_ports, script


def demo(directory: Path, port: int) -> tuple[int, str]:
    done = subprocess.run(
        [script("lichen-hub"), "demo", "--dir", str(directory), "--port", str(port)],
        stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_second_one_leaves_the_first_alone(tmp_path: Path) -> None:
    config = tmp_path / "hub" / "hub.toml"
    config.parent.mkdir()
    config.write_text("page_port = 8420\n")
    with held(tmp_path / "run.lock", "the first"):
        status, said = demo(tmp_path, 9420)
    assert status == EXIT_CODES[Busy]
    assert f"running in {tmp_path} already, as process {os.getpid()}" in said
    assert config.read_text() == "page_port = 8420\n"
    assert not (tmp_path / "cli.toml").exists()


async def until_it_runs(demo: Process, times: int) -> None:
    async with asyncio.timeout(60):
        while demo.log.read_text().count("Lichen is running") < times:
            assert demo.running, demo.tail()
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_second_start_finds_the_same_board_and_needs_no_old_login(short_path: Path) -> None:
    port = free_ports(3)[0]
    argv = [script("lichen-hub"), "demo", "--dir", str(short_path), "--port", str(port)]
    demo = Process("demo", argv, short_path / "demo.log")
    ids, cards = [], []
    try:
        for start in (1, 2):
            await demo.start()
            await until_it_runs(demo, start)
            login = load_login(short_path / "cli.toml")
            async with connect(login.url, token=login.token) as hub:
                ids += [board["id"] for board in (await hub.call("GET", "/boards"))["boards"]]
                cards += [card["id"] for card in (await hub.call("GET", "/rates"))["rates"]]
                [token] = (await hub.call("GET", "/api-tokens"))["tokens"]
                await hub.call("DELETE", f"/api-tokens/{token['id']}")
            asked_at = time.monotonic()
            assert await demo.stop(signal.SIGINT) == 0
            assert time.monotonic() - asked_at < 3
    finally:
        if demo.running:
            await demo.stop()
    assert cards == ["example@2026-01-01"] * 2
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert len(re.findall("joining this machine", demo.log.read_text())) == 1


@pytest.mark.parametrize("port", [0, -1, 65_534, 80_000])
def test_what_is_no_port_is_said(tmp_path: Path, port: int) -> None:
    status, said = demo(tmp_path, port)
    assert status == EXIT_CODES[ConfigError]
    assert f"{port} is no port for the page" in said
    assert not list(tmp_path.iterdir())
