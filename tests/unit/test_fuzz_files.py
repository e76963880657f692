"""Whatever stands in a file or in a request, it is understood or refused by name; nothing else happens.

Configurations of both sides, the identity's small files, the status that an agent leaves, and the
certificates and keys that boards send: `unit/wire/test_fuzz.py` has what travels over MQTT.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from agent import config as agent_config
from agent import status
from agent.identity import read_document, read_membership, trusting
from agent.status import Status
from agent.wire.decode import decode, dumps, plain
from agent.wire.errors import ConfigError, Corrupt, Refused
from agent.wire.messages import About, Problem
from agent.wire.note import Signer, generate
from hub import config as hub_config
from hub.fleet import certificates
from support.drawing import any_text, changed, plain_data, toml_data

pytestmark = pytest.mark.soak

SENSORS = """
[[sensors]]
name = "capacity"
kind = "capacity"
[[sensors]]
name = "tank"
kind = "file"
path = "/run/tank"
unit = "Cel"
deadband = 0.5
heartbeat_s = 900
scale = 2
offset = -1
minimum = 0
maximum = 9
tags = { room = "cellar" }
[[sensors]]
name = "load"
kind = "command"
command = ["uptime"]
[[sensors]]
name = "flow"
kind = "w1"
device = "28-0316a27983fd"
[[sensors]]
name = "room"
kind = "iio"
chip = "bme280"
channel = "temp"
[[sensors]]
name = "fan"
kind = "hwmon"
chip = "it8728"
feature = "fan1"
[[sensors]]
name = "cpu"
kind = "thermal"
type = "cpu-thermal"
[[sensors]]
name = "door"
kind = "gpio"
device = "button"
line = 17
channels = { state = { deadband = 0 }, count = { deadband = 0 } }
[[sensors]]
name = "battery"
kind = "gpio"
device = "mcp3008"
spi = "0.0"
channel = 0
"""
AGENT = {**tomllib.loads(agent_config.show(agent_config.parse("sensors = []"))), **tomllib.loads(SENSORS)}
HUB = tomllib.loads(hub_config.show(hub_config.parse('name = "north"')))
STATUS = json.loads(
    dumps(
        Status(
            board="k3yd5q7c2n4xw6ba",
            running=True,
            sensors=(status.SensorState("room", "Cel", 21.5, 1_700_000_000_000, 10_000),),
            problems=(decode(Problem, {"code": "disk-low", "sentence": "little room"}),),
        )
    )
)
REQUEST = "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n"
PUBLIC = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
SIGNER: Signer = generate()


def test_what_is_changed_was_right_before() -> None:
    assert len(agent_config.parse(tomli_w.dumps(AGENT)).sensors) == 9
    assert hub_config.parse(tomli_w.dumps(HUB)).name == "north"
    assert decode(Status, STATUS).sensors[0].value == 21.5


@given(changed(AGENT, toml_data))
def test_an_agent_configuration_with_something_wrong(table: Any) -> None:
    text = as_toml(table)
    try:
        config = agent_config.parse(text, "/etc/lichen/agent.toml", {})
        told = ""
    except ConfigError as error:
        told = str(error)
    if told:
        assert told.startswith("/etc/lichen/agent.toml: ")
        assert len(told) < 1500
    else:
        again = agent_config.parse(agent_config.show(config), "/etc/lichen/agent.toml", {})
        assert again == config


@given(changed(HUB, toml_data))
def test_a_hub_configuration_with_something_wrong(table: Any) -> None:
    text = as_toml(table)
    try:
        hub_config.parse(text)
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert told.startswith("hub.toml: ")
    assert len(told) < 1500


@given(any_text)
def test_text_that_is_no_configuration(text: str) -> None:
    for parse in (agent_config.parse, hub_config.parse):
        with contextlib.suppress(ConfigError):
            parse(text)


def as_toml(table: Any) -> str:
    """What tomli_w writes; what it cannot write, no file says."""
    return tomli_w.dumps(table if isinstance(table, dict) else {"name": table})


@given(changed(STATUS))
def test_a_status_file_is_read_or_is_none(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "status"
    folder.mkdir(exist_ok=True)
    (folder / status.FILE).write_bytes(json.dumps(value).encode())
    found = status.read_status(folder)
    if found is not None:
        check_lines(found, 1_700_000_000_000)
        assert decode(Status, plain(found)) == found


@given(changed(STATUS), st.integers(-(2**63), 2**63))
def test_a_status_is_told_in_lines(value: Any, now_ms: int) -> None:
    try:
        found = decode(Status, value)
    except Refused:
        return
    check_lines(found, now_ms)


def check_lines(found: Status, now_ms: int) -> None:
    lines = list(status.describe(found, now_ms))
    assert len(lines) >= 4
    assert all(line.isprintable() for line in lines), lines
    assert found.well in (True, False)


@given(any_text)
def test_small_files_of_the_identity(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "board.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with contextlib.suppress(Corrupt, ConfigError):
        read_membership(path)
    with pytest.raises((Corrupt, Refused)):
        read_document(text, SIGNER.verifier)
    with pytest.raises(Corrupt):
        trusting(text, "synced")


@given(any_text | st.binary().map(lambda raw: raw.hex()), st.sampled_from(["{}", REQUEST, PUBLIC]))
def test_requests_and_keys_that_boards_send(text: str, frame: str) -> None:
    for read in (certificates.request_key, certificates.public_key):
        with pytest.raises(Refused):
            read(frame.format(text))


@given(plain_data)
def test_an_about_is_whole_or_refused(value: Any) -> None:
    said = {"board": "k3yd5q7c2n4xw6ba", "version": "", "log_key": "", "seal_key": "", "boot": "b" * 32}
    try:
        about = decode(About, {**said, "started_ms": 0, "sensors": [value], "problems": [value]})
    except Refused:
        return
    assert decode(About, plain(about)) == about
