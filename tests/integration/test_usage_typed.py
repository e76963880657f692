"""The usage log as people type it, over a real hub, agent and Podman; and Go believes the proof."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from agent.wire.errors import EXIT_CODES, Corrupt
from support import goverify
from support.lab import free_ports
from support.podman import Stand, stand
from support.shell import Shell
from support.site import Site

PERIOD_S = 10
BAD = EXIT_CODES[Corrupt]
RECIPE = """
services:
  web:
    image: {image}
    command: ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    ports: ["127.0.0.1:{port}:80"]
    stop_grace_period: 2s
    deploy: {{update_config: {{monitor: 1s}}}}
"""
CARD = """
name = "house"
currency = "EUR"
valid_from = "2020-01-01"
[prices]
cpu_hour = "2"
memory_gib_hour = "3"
network_in_gb = "5"
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def podman() -> Iterator[Stand]:
    with stand() as made:
        yield made


class Typist:
    """Somebody at the hub, and somebody at the board."""

    def __init__(self, site: Site, folder: Path) -> None:
        folder.mkdir()
        self.site, self.hub = site, Shell(folder, site.lab.url, site.lab.api_token)

    async def at_board(self, *words: str, status: int = 0) -> str:
        config = ("--config", str(self.site.board.config_file))
        return await self.site.lab.command("lichen-agent", "usage", *words, *config, status=status)

    async def records(self) -> int:
        found = await self.hub.json("usage", "show", "--app", "demo", "--last", "1000")
        return len(found["records"])

    async def until_records(self, count: int) -> None:
        async def are_there() -> bool:
            return await self.records() >= count

        await self.site.lab.until(are_there, f"{count} records", within_s=60, every_s=0.5)


async def test_as_it_is_typed(short_path: Path, podman: Stand) -> None:
    usage = {"period_s": PERIOD_S, "mem_sample_s": 1}
    async with Site.open(short_path, podman, usage=usage) as site:
        typist = Typist(site, short_path / "home")
        await _deploy(site, typist)
        await typist.until_records(1)
        await typist.until_records(await typist.records() + 1)  # a new one each period
        out, _ = await typist.hub.type("usage", "show")
        assert "demo/web" in out
        await _look_at_the_board(typist, short_path)
        await _prove(typist, short_path)
        await _bill(typist)
        await site.lab.api("DELETE", "/apps/demo", params={"volumes": "1"})


async def _deploy(site: Site, typist: Typist) -> None:
    registry = site.podman.registry
    registry.push("metered", files={"www/index.html": b"x"}, tag="1")
    site.podman.app("demo")
    recipe = typist.hub.folder / "demo"
    recipe.mkdir()
    (port,) = free_ports(1)
    text = RECIPE.format(image=f"{registry.address}/metered:1", port=port)
    (recipe / "compose.yml").write_text(text)
    await typist.hub.type("app", "deploy", "demo/", "--board", "board", "--wait")


async def _look_at_the_board(typist: Typist, folder: Path) -> None:
    """Show, verify, export; and one byte of the export is changed by hand."""
    assert "demo/web" in await typist.at_board("show")
    said = await typist.at_board("verify")
    assert "checkpoint  size " in said
    assert "receipt     size " in said
    export = folder / "export"
    await typist.at_board("export", str(export))
    copy = shutil.copytree(export, folder / "elsewhere")
    assert "receipt     size " in await typist.at_board("verify", str(copy))
    (bundle,) = (copy / "tile" / "entries").rglob("*.p/*")
    data = bytearray(bundle.read_bytes())
    data[-10] ^= 1
    bundle.write_bytes(data)
    await typist.at_board("verify", str(copy), status=BAD)
    _, err = await typist.hub.type("usage", "verify", str(copy), status=BAD)
    assert "lichen: record " in err
    out, _ = await typist.hub.type("usage", "import", str(export))
    assert out.startswith("0 records")


async def _prove(typist: Typist, folder: Path) -> None:
    """A record that the page of the statement names, to somebody with a program of another kind."""
    out, _ = await typist.hub.type("usage", "verify", "board")
    assert "receipt     size " in out
    statement = await typist.hub.json("usage", "statement")
    line = next(line for line in statement["lines"] if line["app"] == "demo")
    index = line["leaves"].split(",")[0].split("-")[0]
    file = typist.hub.folder / "record.tlog-proof"
    _, err = await typist.hub.type("usage", "proof", "board", index, "-o", str(file))
    keys = dict(each.split("  ") for each in err.splitlines())
    program = goverify.build(folder)
    [said] = goverify.verify(program, [file.read_bytes()], keys["log key"], keys["hub key"])
    assert said.startswith(f"good {index} ")
    changed = file.read_bytes().replace(b"index ", b"index 1")
    [said] = goverify.verify(program, [changed], keys["log key"], keys["hub key"])
    assert said.startswith("bad ")
    record = json.loads((await typist.hub.json("usage", "verify", str(file), *_given(keys)))["entry"])
    assert (record["app"], record["seq"]) == ("demo", int(index))


def _given(keys: dict[str, str]) -> tuple[str, ...]:
    return ("--log-key", keys["log key"], "--hub-key", keys["hub key"])


async def _bill(typist: Typist) -> None:
    """A statement and its FOCUS file say the same sum, which is that of its lines."""
    (typist.hub.folder / "house.toml").write_text(CARD)
    await typist.hub.type("rate", "set", "house.toml")
    [month] = {(await typist.hub.json("usage", "statement"))["period"]}

    async def are_equal() -> bool:
        statement = await typist.hub.json("usage", "statement", "--period", month, "--focus", "focus.csv")
        amounts = [charge["amount"] for line in statement["lines"] for charge in line["charges"]]
        [total] = statement["totals"]
        assert total["amount"] == sum(amounts) > 0
        with (typist.hub.folder / "focus.csv").open(newline="") as file:
            billed = [Decimal(row["BilledCost"]) for row in csv.DictReader(file)]
        return sum(billed) == Decimal(total["amount"]) / 1_000_000

    # The file is drawn up a moment after the statement: a record may have come in between.
    await typist.site.lab.until(are_equal, "both say the same sum", within_s=30)
