"""Files that are either old or new."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent.base.files import exists, make_directory, write_file
from agent.wire.errors import ConfigError


def test_a_file_is_written_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        write_file(tmp_path / "key", b"secret")
        write_file(tmp_path / "page", b"public", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "page").stat().st_mode & 0o7777 == 0o644


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_file(path, b"a long first version")
    reader = path.open("rb")
    with reader:
        write_file(path, b"second", sync=False)
        # Whoever has the old one open reads it to its end.
        assert reader.read() == b"a long first version"
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_what_a_crash_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".key.new").write_bytes(b"half of someth")
    write_file(tmp_path / "key", b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / ".key.new").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError):
        write_file(tmp_path / "key", b"secret")
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory") as caught:
        write_file(tmp_path / "nowhere" / "key", b"")
    assert str(tmp_path / "nowhere" / "key") in str(caught.value)
    assert caught.value.hint


def test_a_write_that_fails_leaves_the_old_file() -> None:
    """A limit on the size of files makes write(2) fail half way, as a full disk does."""
    script = (
        "import resource, signal, sys, tempfile\n"
        "from pathlib import Path\n"
        "from agent.base.files import write_file\n"
        "from agent.wire.errors import LichenError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    path = Path(folder) / 'state'\n"
        "    write_file(path, b'old')\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))\n"
        "    try:\n"
        "        write_file(path, b'x' * 5000)\n"
        "    except LichenError as error:\n"
        "        print(error.code, path.read_bytes(), [each.name for each in Path(folder).iterdir()])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "config b'old' ['state']\n"


def test_what_may_pass_is_no_bad_configuration() -> None:
    """Nobody starts an agent again that ended because of its configuration."""
    script = (
        "import resource, tempfile\n"
        "from pathlib import Path\n"
        "from agent.base.files import write_file\n"
        "from agent.wire.errors import Refused\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))\n"
        "    try:\n"
        "        write_file(Path(folder) / 'state', b'x')\n"
        "    except Refused as error:\n"
        "        print(error)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("state cannot be written: Too many open files\n")


def test_what_nobody_may_look_at_is_neither_there_nor_missing(tmp_path: Path) -> None:
    assert exists(tmp_path)
    assert not exists(tmp_path / "missing")
    assert not exists(Path(__file__) / "below a file")
    with pytest.raises(ConfigError, match="cannot be looked at") as caught:
        exists(tmp_path / ("x" * 300))
    assert "sudo" in caught.value.hint


def test_a_directory_is_made_private(tmp_path: Path) -> None:
    made = make_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o7777 == 0o700
    made.chmod(0o755)
    assert make_directory(made).stat().st_mode & 0o7777 == 0o700


def test_a_directory_in_use_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "somebody.pid").touch()
    make_directory(shared)
    assert shared.stat().st_mode & 0o7777 == 0o755
    empty = tmp_path / "tmp"
    empty.mkdir()
    empty.chmod(0o1777)
    make_directory(empty)
    assert empty.stat().st_mode & 0o7777 == 0o1777


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        make_directory(tmp_path / "file")
