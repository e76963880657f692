"""What `make run` refuses, before it has touched anything.  The rest of it is the README's test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.base.lock import held
from agent.wire.errors import EXIT_CODES, Busy, ConfigError
from support.lab import script


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


@pytest.mark.parametrize("port", [0, -1, 65_534, 80_000])
def test_what_is_no_port_is_said(tmp_path: Path, port: int) -> None:
    status, said = demo(tmp_path, port)
    assert status == EXIT_CODES[ConfigError]
    assert f"{port} is no port for the page" in said
    assert not list(tmp_path.iterdir())
