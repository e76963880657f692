"""Apps in the store: a page of them is a page for the database, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hub.apps.view import AppPicture, page_of
from hub.store import apps, placements
from hub.store.apps import RevisionRow
from hub.store.boards import add_board
from hub.store.database import Store, Tx
from hub.store.placements import Placement

BOARD = "b" * 16


def names(pictures: Sequence[AppPicture]) -> list[str]:
    return [picture.name for picture in pictures]


async def add_app(tx: Tx, recipe: str, name: str, *, on: str = "") -> None:
    boards = (on,) if on else ()
    row = RevisionRow(name, 1, 5, "ada", "deploy", "", "", recipe, {}, {}, {}, {}, False, boards)
    await apps.add_revision(tx, row, ["+ line"] * 2000)
    if on:
        await placements.place(tx, [Placement(name, on, 1, {})])


async def test_a_page_of_apps_reads_no_more_than_it_shows(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "hub.db") as store:
        async with store.write() as tx:
            await add_board(tx, id=BOARD, name="pump", log_key="", seal_key="", joined_ms=1)
            recipe = await apps.save_recipe(tx, {"compose.yml": ""})
            for number in range(30):
                await add_app(tx, recipe, f"gone-{number:02}")
                await add_app(tx, recipe, f"here_{number:02}", on=BOARD)
        async with store.read() as tx:
            rows = await apps.list_apps(tx, limit=2, placed=True)
            assert [row.app for row in rows] == ["here_00", "here_01"]
            assert names(await page_of(tx, 9, limit=2)) == ["here_00", "here_01"]
            assert names(await page_of(tx, 9, limit=1, after="gone-03", with_gone=True)) == ["gone-04"]
            assert names(await page_of(tx, 9, limit=50, search="E_1")) == [f"here_{n}" for n in range(10, 20)]
            differences = await apps.read_differences(tx, "gone-00", [1, 2])
            assert differences == {1: ("+ line",) * 2000}
