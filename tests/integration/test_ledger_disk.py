"""A disk that is really full, or that the kernel has made read-only, under a usage log.

With file systems of their own, which takes root: a small tmpfs, and ext4 in a file.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.wire.errors import Refused
from support.ledgers import DAY_MS, Bench, numbers, segments, whole

pytestmark = pytest.mark.slow


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@contextmanager
def mounted(folder: Path, *how: str) -> Iterator[Path]:
    folder.mkdir()
    run("mount", *how, str(folder))
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


def fill(folder: Path, *, but: int = 0) -> None:
    """Take all room that there is, but for so many bytes."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
        if but:
            file.truncate(file.tell() - but)


@pytest.mark.parametrize("free", [0, 4096], ids=["full", "nearly full"])
async def test_a_full_disk_takes_nothing_of_a_batch_and_loses_nothing(tmp_path: Path, free: int) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        bench = Bench(disk / "usage")
        async with bench.open() as ledger:
            await ledger.hub_size_known(0)
            await ledger.append(bench.records(3))
            fill(disk, but=free)
            refused = 0
            while refused < 3:
                kept, entries = (await ledger.root(), segments(bench.folder)[-1].stat().st_size), ledger.size
                try:
                    await ledger.append(bench.records(40))
                except Refused as error:
                    refused += 1
                    assert error.code == "disk-full"  # noqa: PT017  which of them it is, is not known before
                    assert (await ledger.root(), segments(bench.folder)[-1].stat().st_size) == kept
                    assert ledger.size == entries
            with pytest.raises(Refused):
                await ledger.new_epoch("no room for it", carry=0)
            assert ledger.size == entries
            bench.wait(8 * DAY_MS)
            with pytest.raises(Refused):
                await ledger.append(bench.records(1))  # nor for a segment
            (disk / "filler").unlink()
            await ledger.append(bench.records(1))
            found = await whole(ledger)
            assert (numbers(found)[:3], numbers(found)[-1]) == ([1, 2, 3], bench.made)
        async with bench.open() as ledger:
            assert await whole(ledger) == found


async def test_a_start_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        bench = Bench(disk / "usage")
        for _ in range(2):
            fill(disk)
            with pytest.raises(Refused) as refused:
                async with bench.open():
                    pass
            assert refused.value.code == "disk-full"
            (disk / "filler").unlink()
            bench.folder.mkdir(exist_ok=True)  # the next time there is not even room for the lock
        async with bench.open() as ledger:
            await ledger.append(bench.records(3))
            found = await whole(ledger)
        fill(disk)
        async with bench.open() as ledger:  # what is there can be read
            assert await whole(ledger) == found
            with pytest.raises(Refused):
                await ledger.append(bench.records(400))
        (disk / "filler").unlink()
        async with bench.open() as ledger:
            assert await whole(ledger) == found


async def test_a_card_that_the_kernel_makes_read_only_keeps_what_it_has(tmp_path: Path) -> None:
    image = tmp_path / "card"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    run("mkfs.ext4", "-q", str(image))
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        bench = Bench(disk / "usage")
        async with bench.open() as ledger:
            await ledger.append(bench.records(3))
            found = await whole(ledger)
            run("mount", "-o", "remount,abort", str(disk))  # as the kernel does when a card fails
            for _ in range(2):
                with pytest.raises(Refused) as refused:
                    await ledger.append(bench.records(2))
                assert refused.value.code == "disk-read-only"
            assert await whole(ledger) == found
        with pytest.raises(Refused) as refused:
            async with bench.open():
                pass
        assert refused.value.code == "disk-read-only"
    with mounted(tmp_path / "again", "-o", "loop", str(image)) as disk:
        bench.folder = disk / "usage"
        async with bench.open() as ledger:
            assert (await whole(ledger))[: len(found)] == found
            await ledger.append(bench.records(1))
