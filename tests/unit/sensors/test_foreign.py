"""Kinds that other packages bring, found by the real importlib.metadata: good ones and broken ones.

A package is what pip leaves behind: a module, and beside it a ``.dist-info`` with entry points.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import parse, show
from agent.sensors import foreign
from agent.sensors.blocking import Threads
from agent.sensors.driver import Environment, Unloadable, load_kind, read_sensor
from agent.sensors.probe import Probe
from agent.sensors.scan import scan
from agent.wire.errors import ConfigError, LichenError, Refused

EXAMPLE = (Path(__file__).parents[2] / "packages/lichen_psi/lichen_psi.py").read_text()
MISSING = "ModuleNotFoundError: No module named 'lichen_nowhere'"
TABLE = {"name": "disks", "kind": "psi", "resource": "io"}


class Site:
    """A folder of installed packages, on the path while a test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, module: str, text: str, *, kind: str = "psi", package: str = "lichen-psi") -> None:
        """A package with one module and one entry point."""
        (self.folder / f"{module}.py").write_text(text)
        info = self.folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{foreign.GROUP}]\n{kind} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


async def answer(table: dict[str, object], tmp_path: Path) -> object:
    """What a sensor answers when it is asked as the agent asks it."""
    threads = Threads()
    probe = Probe(read_sensor(table, "sensors[0]"), Environment(tmp_path, tmp_path, threads.lane()))
    try:
        (said,) = (await probe.ask()).values()
    finally:
        await probe.close()
        threads.close()
    return said


async def test_the_example_is_a_kind_like_any_other(site: Site, tmp_path: Path) -> None:
    site.install("lichen_psi", EXAMPLE)
    (tmp_path / "io").write_text("some avg10=12.70 avg60=8.01 avg300=9.98 total=1\nfull avg10=0.00\n")
    table = TABLE | {"folder": str(tmp_path), "maximum": 100, "tags": {"where": "here"}}
    assert await answer(table, tmp_path) == 12.7
    (tmp_path / "io").write_text("nothing\n")
    assert isinstance(said := await answer(table, tmp_path), Refused)
    assert str(said) == f"{tmp_path}/io: it has no average of 10 s"


def test_its_keys_are_checked_like_any_other(site: Site) -> None:
    site.install("lichen_psi", EXAMPLE)
    with pytest.raises(ConfigError) as raised:
        read_sensor(TABLE | {"resource": "disk"}, "sensors[0]")
    assert str(raised.value) == "sensors[0].resource: 'disk' is not one of 'cpu', 'memory', 'io'"
    with pytest.raises(ConfigError, match=r"'pis' is not one of .*'psi'; did you mean 'psi'"):
        read_sensor(TABLE | {"kind": "pis"}, "sensors[0]")


def test_a_scan_asks_installed_packages_too(site: Site, tmp_path: Path) -> None:
    site.install("lichen_psi", EXAMPLE.replace('Path("/proc/pressure")', f"Path({str(tmp_path)!r})"))
    site.install("lichen_broken", "import lichen_nowhere", kind="broken", package="lichen-broken")
    site.install(
        "lichen_blind", EXAMPLE.replace("    found =", "    1 / 0\n    found ="), kind="blind", package="lb"
    )
    (tmp_path / "memory").touch()
    tables, failures = scan(tmp_path)
    assert {"name": "waiting-for-memory", "kind": "psi", "resource": "memory"} in tables
    assert failures == [
        "the driver of 'blind' cannot look: ZeroDivisionError: division by zero",
        f"the driver of 'broken' (lichen-broken) cannot be imported: {MISSING}",
    ]


NO_OPTIONS = "async def open(options, env): ...\ndef scan(sysfs): return []\n"
BAD_CHANNELS = EXAMPLE.replace('return (Channel(self.name, "%", "waiting"),)', "return 1 / 0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import lichen_nowhere", f"(lichen-psi) cannot be imported: {MISSING}"),
        ("raise SystemExit('bye')", "(lichen-psi) cannot be imported: SystemExit: bye"),
        ("x = (", "(lichen-psi) cannot be imported: SyntaxError: "),
        ("x = 1", "(lichen-psi) has no Options, a subclass of SensorConfig"),
        (f"class Options: ...\n{NO_OPTIONS}", "(lichen-psi) has no Options, a subclass of SensorConfig"),
        (EXAMPLE.replace("def scan", "def look"), "(lichen-psi) has no scan()"),
        (BAD_CHANNELS, "cannot read its configuration: ZeroDivisionError: division by zero"),
        (
            EXAMPLE.replace('Literal["cpu", "memory", "io"]', "set[str]"),
            "cannot read its configuration: TypeE",
        ),
    ],
)
async def test_a_broken_driver_costs_its_sensor_and_says_why(
    site: Site, tmp_path: Path, text: str, reason: str
) -> None:
    site.install("lichen_psi", text)
    said = await answer(TABLE, tmp_path)
    assert isinstance(said, LichenError)
    assert str(said).startswith(f"the driver of 'psi' {reason}")
    # The board goes on with the others, and what the file says stays what it says.
    config = parse('[[sensors]]\nname = "c"\nkind = "capacity"\n[[sensors]]\n' + _toml(TABLE))
    assert [sensor.name for sensor in config.sensors] == ["c", "disks"]
    assert isinstance(config.sensors[1], Unloadable)
    assert parse(show(config)).sensors == config.sensors


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        ("()", "has no channel"),
        ('(Channel(self.name + ".T 1"),)', "has a bad channel: name: 'disks.T 1' is not "),
        ("(Channel(self.name, 7),)", "has a bad channel: unit: "),
        ('(Channel(self.name, "x" * 257),)', "has a bad channel: unit: "),
        ("(Channel(self.name), Channel(self.name))", "has channels of one name: disks, disks"),
        ('(Channel("other"),)', "has channels that are not of 'disks': other"),
        ('("x",)', "cannot read its configuration: TypeError: "),
        ("None", "cannot read its configuration: TypeError: "),
    ],
)
def test_a_driver_with_impossible_channels_costs_its_sensor(site: Site, channels: str, reason: str) -> None:
    site.install("lichen_psi", EXAMPLE.replace('(Channel(self.name, "%", "waiting"),)', channels))
    (sensor,) = parse("[[sensors]]\n" + _toml(TABLE)).sensors
    assert isinstance(sensor, Unloadable)
    assert sensor.reason.startswith(f"the driver of 'psi' {reason}")


def _toml(table: dict[str, str]) -> str:
    return "".join(f'{key} = "{value}"\n' for key, value in table.items())


def test_the_common_keys_of_a_broken_driver_must_be_right(site: Site) -> None:
    site.install("lichen_psi", "import lichen_nowhere")
    with pytest.raises(ConfigError, match=r"interval_s: 0\.0 is not within"):
        read_sensor(TABLE | {"interval_s": 0}, "sensors[0]")


def test_two_packages_of_one_kind_are_not_guessed_between(site: Site) -> None:
    site.install("lichen_psi", EXAMPLE)
    site.install("other_psi", EXAMPLE, package="other-psi")
    sensor = read_sensor(TABLE, "sensors[0]")
    assert isinstance(sensor, Unloadable)
    assert sensor.reason == "several packages bring the kind 'psi': lichen-psi, other-psi"


def test_no_package_replaces_a_built_in_kind(site: Site) -> None:
    site.install("lichen_psi", EXAMPLE, kind="thermal")
    assert load_kind("thermal").__name__ == "agent.sensors.thermal"  # type: ignore[attr-defined]
    assert "thermal" not in foreign.kinds()


def test_a_kind_that_nobody_brings_is_refused() -> None:
    with pytest.raises(Refused, match="no installed package brings the kind 'psi'"):
        load_kind("psi")
