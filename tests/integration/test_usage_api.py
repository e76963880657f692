"""Usage logs in the API, and as an operator types: what there is and was used, copies, proofs, imports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from agent.base.logfolder import KEYS, Keys, keys_text
from agent.usage.peek import export, peek
from agent.wire.canonical import to_base64
from agent.wire.errors import EXIT_CODES, ConfigError, Corrupt, Refused
from agent.wire.note import Signer, Verifier, generate
from agent.wire.package import Package
from hub.store import boards, usage
from hub.web.api import ROUTES
from hub.web.openapi import describe
from support.api import Api
from support.bills import metered
from support.boardlog import HOUR_MS, WALL_MS, BoardLog, began, delivered, offered, used
from support.ledgers import Bench
from support.logs import UsageLog
from support.shell import Shell
from support.webhub import ADMIN, WebHub

BAD, REFUSED, WRONG = EXIT_CODES[Corrupt], EXIT_CODES[Refused], EXIT_CODES[ConfigError]
SIZE = 300


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[WebHub]:
    """A hub at the end of the records."""
    async with WebHub.open(tmp_path) as hub:
        hub.skew_ms = WALL_MS + SIZE * HOUR_MS - hub.now_ms
        yield hub


@pytest.fixture
async def log(hub: WebHub) -> BoardLog:
    containers = (used(at, app="shop" if at % 3 == 0 else "blog") for at in range(SIZE - 3))
    return await metered(hub, "pump", began(), offered(1), delivered(2), *containers)


@pytest.fixture
async def api(hub: WebHub) -> AsyncIterator[Api]:
    token = await hub.access.new_api_token(ADMIN, "test")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        yield Api(http, hub.url, describe(ROUTES, version="0.1.0"))


@pytest.fixture
async def shell(hub: WebHub, tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    return Shell(home, hub.url, await hub.access.new_api_token(ADMIN, "shell"))


# --- the API ---------------------------------------------------------------------------------------


async def test_logs_are_listed_with_how_they_stand(hub: WebHub, api: Api, log: BoardLog) -> None:
    [shown] = (await api.call("GET", "/usage/logs"))["logs"]
    assert (shown["origin"], shown["name"], shown["is_current"]) == (log.origin, "pump", True)
    assert (shown["size"], shown["claimed"], shown["behind"], shown["receipt_size"]) == (SIZE, SIZE, 0, SIZE)
    assert (shown["lost"], shown["conflicts"], shown["conflict_ms"]) == (0, 0, None)
    # The board says that it has more, loses some of it, and forks.
    log.grow(10)
    await hub.parts.witness.take(log.board, log.package(SIZE, 6, of=SIZE + 10, lost=4))
    [shown] = (await api.call("GET", "/usage/logs?board=pump"))["logs"]
    assert (shown["size"], shown["behind"], shown["lost"]) == (SIZE + 6, 10, 4)
    fork = log.fork(SIZE)
    fork.grow(20)
    states = [(await hub.parts.witness.take(log.board, fork.package(SIZE + 6, 14))).state for _ in "12"]
    assert states[-1] == "conflict"
    [shown] = (await api.call("GET", "/usage/logs"))["logs"]
    assert (shown["conflicts"], shown["conflict_ms"] is None) == (1, False)
    await api.refuses("GET", "/usage/logs?board=nobody", 404, "not-found")
    await api.refuses("GET", "/usage/logs?after=x", 422, "invalid")


async def test_logs_come_in_pages(hub: WebHub, api: Api) -> None:
    logs = [await metered(hub, f"board-{number}", began()) for number in range(3)]
    first = await api.call("GET", "/usage/logs?limit=2")
    second = await api.call("GET", f"/usage/logs?limit=2&after={first['next']}")
    assert [each["origin"] for each in first["logs"] + second["logs"]] == [log.origin for log in logs]
    assert "next" not in second
    found = await api.call("GET", "/usage/logs", headers={"Accept": "text/csv"})
    assert len(found.splitlines()) == 4


async def test_records_are_found_by_what_they_say(hub: WebHub, api: Api, log: BoardLog) -> None:
    await metered(hub, "other", began(), used(0, app="blog"))
    every = await api.call("GET", "/usage/records?limit=1000&board=pump")
    assert [each["seq"] for each in every["records"]] == list(range(SIZE))
    shop = await api.call("GET", "/usage/records?app=shop&board=pump&limit=1000")
    assert len(shop["records"]) == (SIZE - 3) // 3
    assert {each["cpu_us"] for each in shop["records"]} == {1000}
    assert shop["records"][0]["io_r"] is None, "what is not counted is not 0"
    newest = await api.call("GET", "/usage/records?newest=1&limit=2")
    assert [each["seq"] for each in newest["records"]] == [SIZE - 1, SIZE - 2]
    assert "next" not in newest
    kinds = await api.call("GET", "/usage/records?type=board&type=sensor")
    assert [each["type"] for each in kinds["records"]] == ["board", "sensor"]
    for query in ("payer=nobody", "workspace=nothing", "app=none", f"from_ms={2**53}"):
        assert (await api.call("GET", f"/usage/records?{query}"))["records"] == []
    await api.refuses("GET", "/usage/records?type=bill", 422, "invalid")
    await api.refuses("GET", "/usage/records?after=7", 422, "invalid")
    found = await api.call("GET", "/usage/records?app=shop", headers={"Accept": "text/csv"})
    assert found.startswith("origin,seq,board,type,")


async def test_records_come_in_pages_over_all_logs(hub: WebHub, api: Api, log: BoardLog) -> None:
    await metered(hub, "other", began(), used(0))
    found, after = [], ""
    while True:
        page = await api.call("GET", f"/usage/records?limit=128&after={after}")
        found += [(each["origin"], each["seq"]) for each in page["records"]]
        if not (after := page.get("next", "")):
            break
    assert len(found) == len(set(found)) == SIZE + 2


async def test_sums_over_time_are_those_of_the_records(hub: WebHub, api: Api, log: BoardLog) -> None:
    every = f"from_ms={WALL_MS}&to_ms={WALL_MS + SIZE * HOUR_MS}"
    for by, keys in (("app", ["blog", "shop"]), ("board", [log.board]), ("workspace", ["default"])):
        sums = await api.call("GET", f"/usage/sums?by={by}&{every}&points=50")
        assert [each["key"] for each in sums["series"]] == keys
        points = [point for each in sums["series"] for point in each["points"]]
        assert sum(point[1] for point in points) == SIZE - 3
        assert sum(point[2] for point in points) == 1000 * (SIZE - 3)
        assert {point[4] for point in points} == {None}
        assert {point[0] % sums["step_ms"] for point in points} == {0}
        assert len({point[0] for point in points}) <= 51
    named = await api.call("GET", f"/usage/sums?by=board&{every}")
    assert named["series"][0]["name"] == "pump"
    assert (await api.call("GET", f"/usage/sums?board=pump&app=none&{every}"))["series"] == []
    await api.call("GET", "/usage/sums")
    await api.refuses("GET", "/usage/sums?from_ms=5&to_ms=5", 422, "invalid")


async def test_reading_tokens_are_made_listed_and_ended(api: Api) -> None:
    wanted = {"name": "hub south", "scope": "peer"}
    made = await api.call("POST", "/usage/tokens", status=201, json=wanted)
    assert made["token"].startswith("lichen_read_")
    [listed] = (await api.call("GET", "/usage/tokens"))["tokens"]
    assert (listed["id"], listed["scope"], listed["author"]) == (made["id"], "peer", ADMIN)
    assert made["token"] not in json.dumps(listed)
    await api.refuses("POST", "/usage/tokens", 422, "invalid", json={**wanted, "payer": "x"})
    await api.refuses("POST", "/usage/tokens", 422, "invalid", json={**wanted, "scope": "admin"})
    await api.call("DELETE", f"/usage/tokens/{made['id']}", status=204)
    await api.refuses("DELETE", f"/usage/tokens/{made['id']}", 404, "not-found")


def body_of(package: Package) -> dict[str, object]:
    return {
        "origin": package.origin,
        "start": package.start,
        "checkpoint": package.checkpoint,
        "entries": [entry.decode() for entry in package.entries],
        "proof": [to_base64(each) for each in package.proof],
        "lost": [to_base64(each) for each in package.lost],
    }


async def test_imported_entries_are_believed_as_their_board_is(hub: WebHub, api: Api, log: BoardLog) -> None:
    log.grow(5)
    good = log.package(SIZE, 5)
    entries = (*good.entries[:4], good.entries[4].replace(b"1000", b"1001"))
    forged = body_of(good) | {"entries": [entry.decode() for entry in entries]}
    answer = await api.call("POST", "/usage/import", json=forged)
    assert (answer["state"], answer["size"]) != ("ok", SIZE + 5)
    await api.refuses("POST", "/usage/import", 422, "invalid", json=body_of(good) | {"checkpoint": "x"})
    await api.refuses("POST", "/usage/import", 422, "invalid", json={"origin": "x", "start": 0})
    stranger = BoardLog()
    stranger.grow(3)
    await api.refuses("POST", "/usage/import", 400, "unknown-board", json=body_of(stranger.package(0, 3)))


# --- the command line ------------------------------------------------------------------------------


async def test_an_operator_looks_at_logs_and_records(shell: Shell, log: BoardLog) -> None:
    out, _ = await shell.type("usage", "ls")
    assert out.splitlines()[1].split()[:4] == ["pump", log.epoch, str(SIZE), "0"]
    out, _ = await shell.type("usage", "show", "pump", "--app", "shop", "--last", "3")
    rows = out.splitlines()
    assert "network in / out" in rows[0]
    assert [row.split()[1] for row in rows[1:]] == ["291", "294", "297"]
    assert "shop/web" in rows[1]
    found = await shell.json("usage", "show", "--type", "board", "--type", "sensor")
    assert {each["type"] for each in found["records"]} == {"board", "sensor"}
    _, err = await shell.type("usage", "show", "--since", "1s", "--app", "none")
    assert "No records" in err


async def test_a_board_a_copy_and_a_proof_are_verified(
    shell: Shell, hub: WebHub, log: BoardLog, tmp_path: Path
) -> None:
    out, _ = await shell.type("usage", "verify", "pump")
    assert f"records     {SIZE} good" in out
    assert f"receipt     size {SIZE}, by {hub.parts.id}/receipt" in out
    await shell.type("usage", "fetch", "pump", "copy")
    out, err = await shell.type("usage", "proof", "pump", "7", "-o", "7.tlog-proof")
    keys = dict(line.split("  ") for line in err.splitlines())
    given = ("--log-key", keys["log key"], "--hub-key", keys["hub key"])
    # From here on there is no hub and no login.
    (shell.folder / "cli.toml").unlink()
    for extra in ((), given):
        out, _ = await shell.type("usage", "verify", "copy", *extra)
        assert f"{SIZE} good" in out
    out, _ = await shell.type("usage", "verify", "7.tlog-proof", *given)
    assert f"record      7 of {SIZE}" in out
    assert log.entries[7].decode() in out
    await shell.type("usage", "verify", "7.tlog-proof", status=WRONG)
    await shell.type("usage", "verify", "./nothing", status=WRONG)
    await shell.type("usage", "verify", "copy", *given[2:], status=2)
    proof = shell.folder / "7.tlog-proof"
    proof.write_bytes(proof.read_bytes().replace(b"index 7", b"index 6"))
    await shell.type("usage", "verify", "7.tlog-proof", *given, status=BAD)
    bundle = shell.folder / "copy" / "tile" / "entries" / "000"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    _, err = await shell.type("usage", "verify", "copy", status=BAD)
    assert "lichen: record " in err


async def test_a_proof_under_the_checkpoint_that_a_statement_names(shell: Shell, log: BoardLog) -> None:
    found = await shell.json("usage", "proof", "pump", "7", "--size", "256")
    assert f"\n{log.origin}\n256\n" in found["proof"]
    _, err = await shell.type("usage", "proof", "pump", "7", "--size", "255", status=REFUSED)
    assert "no checkpoint of 255 entries" in err
    await shell.type("usage", "proof", "pump", str(SIZE), status=REFUSED)
    await shell.type("usage", "proof", "pump", "7", "--epoch", "z" * 16, status=REFUSED)


async def test_the_log_of_a_board_without_network_is_carried_to_its_hub(
    shell: Shell, hub: WebHub, tmp_path: Path
) -> None:
    bench = Bench(tmp_path / "usage", generate())
    async with hub.store.write() as tx:
        await boards.add_board(
            tx, id=bench.log_key.name, name="cellar", log_key=bench.log_key.vkey, seal_key="", joined_ms=1
        )
    folder = shell.folder / "stick"

    async def carry(count: int) -> None:
        async with bench.open() as ledger:
            await ledger.hub_size_known(0)
            await ledger.append(bench.records(count))
        with_keys = peek(bench.folder)
        export(with_keys, folder)
        keys = Keys(Verifier(with_keys.origin, bench.log_key.public_key))
        (folder / KEYS).write_text(keys_text(keys))
        with_keys.close()

    await carry(600)
    out, _ = await shell.type("usage", "import", "stick")
    assert out.startswith("601 records")
    assert "holds 601 of 601" in out
    assert (await shell.json("usage", "import", "stick"))["imported"] == 0
    await carry(3)
    assert (await shell.json("usage", "import", "stick"))["imported"] == 3
    out, _ = await shell.type("usage", "verify", "cellar")
    assert "records     604 good" in out
    assert "receipt     size 604" in out


async def test_a_second_history_on_a_stick_is_no_import(
    shell: Shell, hub: WebHub, log: BoardLog, tmp_path: Path
) -> None:
    folder = shell.folder / "stick"
    liar = log.fork(SIZE - 10)
    liar.grow(20)
    lies = UsageLog(Signer(liar.origin, liar.key.seed))
    lies.extend(liar.entries)
    lies.export()
    for path, data in lies.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    _, err = await shell.type("usage", "import", "stick", "--log-key", log.key.vkey, status=BAD)
    assert "two histories" in err
    async with hub.store.read() as tx:
        assert (await usage.get_log(tx, log.origin)).size == SIZE
        assert len(await usage.conflicts(tx)) == 1


async def test_an_import_needs_what_lies_between(shell: Shell, hub: WebHub, log: BoardLog) -> None:
    await shell.type("usage", "fetch", "pump", "stick")
    bundle = shell.folder / "stick" / "tile" / "entries" / "000"
    bundle.unlink()  # as where a board has pruned
    async with hub.store.write() as tx:
        for table in ("packages", "tiles", "checkpoints", "records"):
            await tx.execute(text(f"DELETE FROM usage_{table}"))
        await tx.execute(text("UPDATE usage_logs SET size = 0, claimed = 0, frontier = x''"))
    _, err = await shell.type("usage", "import", "stick", status=REFUSED)
    assert "records 0 to 255 are neither at the hub nor in this folder" in err


async def test_readers_are_made_at_the_shell(shell: Shell) -> None:
    out, _ = await shell.type("usage", "token", "new", "south", "--peer")
    assert out.startswith("lichen_read_")
    await shell.type("usage", "token", "new", "customer", "--payer", "customer-12", "--ttl", "7d")
    await shell.type("usage", "token", "new", "both", "--peer", "--payer", "x", status=2)
    out, _ = await shell.type("usage", "token", "ls")
    assert "payer customer-12" in out
    [first, _] = (await shell.json("usage", "token", "ls"))["tokens"]
    await shell.type("usage", "token", "rm", first["id"])
    await shell.type("usage", "token", "rm", first["id"], status=REFUSED)
