"""Log records on their way: lines for people, datagrams for journald."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base import journal
from agent.wire.errors import ConfigError


def record(message: str = "board joined", level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("hub.fleet", level, "/src/hub/fleet/x.py", 7, message, None, None, "join")
    made.created = 1_700_000_000.25
    vars(made).update(fields)
    return made


def with_traceback() -> logging.LogRecord:
    try:
        raise KeyError("nothing")
    except KeyError:
        made = record()
        made.exc_info = sys.exc_info()
        return made


def fields(datagram: bytes) -> dict[str, str]:
    """What journald reads in a datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + length], datagram[9 + length :]
        found[key.decode()] = value.decode()
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "so"', '"say \\"so\\""'),
        ("a=b", '"a=b"'),
        ("line\nbreak", '"line\\nbreak"'),
        (0.5, "0.5"),
        (None, "None"),
        ("Grüße", "Grüße"),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\x9b31m", '"\\u009b31m"'),
    ],
)
def test_a_line_can_be_taken_apart_again(value: object, text: str) -> None:
    line = journal.KeyValue().format(record(board=value))
    assert line == (
        f'time=2023-11-14T22:13:20.250Z level=info from=hub.fleet message="board joined" board={text}'
    )


def test_a_traceback_follows_its_line() -> None:
    first, *others = journal.KeyValue().format(with_traceback()).splitlines()
    assert first.startswith("time=")
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == "    KeyError: 'nothing'"


def test_a_datagram_has_every_field() -> None:
    found = fields(journal.datagram(record(board="k3yd", **{"odd-näme": 3, "_hidden": 1})))
    assert found["MESSAGE"] == "board joined"
    assert found["PRIORITY"] == "6"
    assert found["LOGGER"] == "hub.fleet"
    assert (found["CODE_FILE"], found["CODE_LINE"], found["CODE_FUNC"]) == (
        "/src/hub/fleet/x.py",
        "7",
        "join",
    )
    assert (found["BOARD"], found["ODD_N_ME"], found["HIDDEN"]) == ("k3yd", "3", "1")


def test_a_field_cannot_replace_what_journald_relies_on() -> None:
    assert fields(journal.datagram(record(priority="0")))["PRIORITY"] == "6"


def test_a_datagram_carries_line_breaks() -> None:
    found = fields(journal.datagram(with_traceback()))
    assert found["MESSAGE"].splitlines()[-1] == "KeyError: 'nothing'"
    assert found["LOGGER"] == "hub.fleet"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (50, "2")],
)
def test_levels_become_priorities(level: int, priority: str) -> None:
    assert fields(journal.datagram(record(level=level)))["PRIORITY"] == priority


@pytest.fixture
def listening(short_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(short_path / "journal"))
        server.settimeout(5)
        yield server


def test_records_reach_the_socket(listening: socket.socket) -> None:
    handler = journal.Journal(Path(listening.getsockname()))
    handler.emit(record(board="k3yd"))
    handler.close()
    assert fields(listening.recv(65536))["BOARD"] == "k3yd"


def test_a_record_that_the_journal_does_not_take_goes_to_stderr(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = journal.Journal(short_path / "missing")
    handler.emit(record(board="k3yd"))
    handler.close()
    assert capsys.readouterr().err.endswith("board=k3yd\n")


def test_a_process_without_systemd_writes_lines() -> None:
    script = (
        "import logging, warnings\nfrom agent.base import journal\n"
        "journal.setup('warning')\n"
        "logging.getLogger('x').info('unseen')\n"
        "logging.getLogger('x').warning('seen', extra={'board': 'k3yd'})\n"
        "warnings.warn('careful')\n"
    )
    # Inherited from a service, but stderr is a pipe of ours: it must not be believed.
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"JOURNAL_STREAM": "1:2"},
        cwd=Path(__file__).parents[3],
    )
    first, second, *_ = done.stderr.splitlines()
    assert first.endswith("level=warning from=x message=seen board=k3yd")
    assert "from=py.warnings" in second


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="'loud' is not one of debug, info, warning, error"):
        journal.setup("loud")
