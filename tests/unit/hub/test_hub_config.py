"""hub.toml: every mistake is named with its file, its key and the nearest right one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.wire.errors import ConfigError
from hub import config
from hub.config import Config, Directory


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "hub.toml")
    return f"{caught.value} {caught.value.hint}"


def test_a_name_is_enough() -> None:
    assert config.parse('name = "north"') == Config(name="north")


def test_the_addresses_follow_from_host_and_ports() -> None:
    found = config.parse('name = "north"\nhost = "hub.example.org"\nboard_port = 9001\npage_port = 9000')
    assert (found.board_url, found.page_url) == ("https://hub.example.org:9001", "http://127.0.0.1:9000")
    assert Config(name="six", host="fd00::5").board_url == "https://[fd00::5]:8421"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["hub.toml: name", "missing"]),
        ('name = "n"\npage_prot = 1', ["hub.toml: page_prot", "page_port"]),
        ('name = "n"\nmqtt_port = 0', ["hub.toml: mqtt_port: 0"]),
        ('name = "n"\nmqtt_port = "8422"', ["hub.toml: mqtt_port", "'8422'"]),
        ('name = ""', ["hub.toml: name"]),
        ('name = "n"\nhost = "a b"', ["hub.toml: host: 'a b'", "host name"]),
        ('name = "n"\n[log]\nlevel = "loud"', ["hub.toml: log.level: 'loud'", "'info'"]),
        ("name = ", ["hub.toml: not TOML"]),
        ('name = "n"\nboard_port = 8420', ["board_port: 8420 is page_port already"]),
        ('name = "n"\npage_host = "0.0.0.0"', ["page_host: '0.0.0.0'", "loopback", "board_port (8421)"]),
        ('name = "n"\npage_host = "hub.example"', ["page_host", "loopback"]),
    ],
)
def test_mistakes(text: str, words: list[str]) -> None:
    said = complaint(text)
    assert [word for word in words if word not in said] == [], said


def test_a_missing_hub_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Directory(tmp_path / "none"))
    assert f"lichen-hub init {tmp_path}/none" in caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"hub\.toml cannot be read"):
        config.load(Directory(tmp_path))


def test_what_is_shown_reads_back() -> None:
    shown = Config(name="north", host="::1", mqtt_port=1)
    assert config.parse(config.show(shown)) == shown


def test_finding_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "src" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert config.find(None, {}) == Directory(config.SYSTEM)
    (tmp_path / ".run/hub").mkdir(parents=True)
    assert config.find(None, {}) == Directory(tmp_path / ".run/hub")
    assert config.find(None, {config.ENVIRONMENT: "/b"}) == Directory(Path("/b"))
    assert config.find("there", {config.ENVIRONMENT: "/b"}) == Directory(inner / "there")


def test_a_directory_of_somebody_else_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".run/hub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert config.find(None, {}, owner=os.getuid() + 1) == Directory(config.SYSTEM)
