"""Take docs/img/board.png of a running hub: `.venv/bin/python docs/screenshot.py`.

Starts what `make run` starts, in a folder of its own, lets it measure for a while, and looks at
the board's page as a visitor with the login link does.  Needs chromium-headless-shell.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "img" / "board.png"
PROGRAMS = Path(sys.executable).parent
PORT = 8520
NAME = "pump-07"
MEASURE_S = 300
SETTLE_S = 3
MAX_BYTES = 150_000
WIDTH, HEIGHT = 1100, 890


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """The demo in ``folder``; gives its login link."""
    command = [str(PROGRAMS / "lichen-hub"), "demo", "--dir", str(folder), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        try:
            yield next(link[0] for line in demo.stdout if (link := re.search(r"http\S+code=\S+", line)))
        finally:
            demo.send_signal(signal.SIGINT)


def lichen(folder: Path, *args: str) -> str:
    """What a command says, as the demo in ``folder`` has logged it in."""
    environment = {**os.environ, "LICHEN_CONFIG": str(folder / "cli.toml")}
    command = [str(PROGRAMS / "lichen"), *args]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def take(link: str) -> None:
    """Log in by the link, open the board's page, and save what it shows after a while."""
    with sync_playwright() as play:
        chromium = shutil.which("chromium-headless-shell")
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(link)
        page.get_by_role("button").first.click()
        page.get_by_role("link", name=NAME).first.click()
        page.wait_for_timeout(MEASURE_S * 1000)
        page.reload()
        page.wait_for_timeout(SETTLE_S * 1000)
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    """Run, look, stop."""
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lichen-") as name, running(folder := Path(name)) as link:
        board = json.loads(lichen(folder, "board", "ls", "--json"))["boards"][0]["id"]
        lichen(folder, "board", "rename", board, NAME)
        lichen(folder, "board", "label", NAME, "site=north")
        take(link)
    size = PICTURE.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{PICTURE} has {size:,} bytes, over {MAX_BYTES:,}: make the picture smaller")


if __name__ == "__main__":
    main()
