"""`make bench`: measures against the budgets, prints a table, writes bench.json.

    .venv/bin/python tests/bench [--only agent apps field hub usage] [--page docs/figures.md]

With ``--only`` the other parts stay in bench.json, and on the page, as they were measured before.
Exits with 1 when a budget is missed, or could not be measured.  Real processes throughout, on this
machine; nothing else should be busy meanwhile.  Apps, and what is counted on the link and on the card,
need root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench import apps, board, field, hub, ledger, metering, syncing, usage  # noqa: E402
from bench.budget import Row, page, read, table, write  # noqa: E402

PARTS = ("agent", "apps", "field", "hub", "usage")


async def measure(options: argparse.Namespace) -> dict[str, list[Row]]:
    """Every row that was asked for, one part after the other."""
    parts: dict[str, list[Row]] = {}
    if "agent" in options.only:
        print(f"agent: about {options.seconds + 90:.0f} s ...", file=sys.stderr)
        parts["agent"] = await _apart(lambda folder: board.measure(folder, options.seconds, options.starts))
    if "apps" in options.only:
        print(f"apps: about {options.seconds + 120:.0f} s ...", file=sys.stderr)
        parts["apps"] = await _apart(
            lambda folder: apps.measure(folder, options.seconds, options.updates, options.starts)
        )
    if "field" in options.only:
        print(f"link and card: about {options.minutes + 4:.0f} minutes ...", file=sys.stderr)
        parts["field"] = await _apart(lambda folder: field.measure(folder, options.minutes))
    if "hub" in options.only:
        parts["hub"] = []
        for count in options.boards:
            print(f"hub with {count:,} boards: about {options.load_seconds + 45:.0f} s ...", file=sys.stderr)
            part = await _apart(lambda folder, n=count: hub.measure(folder, n, options.load_seconds))  # type: ignore[misc]
            parts["hub"] += part
    if "usage" in options.only:
        print("usage log: about five minutes ...", file=sys.stderr)
        measures = (metering.measure, ledger.measure, usage.measure, syncing.measure)
        parts["usage"] = [row for measure in measures for row in await _apart(measure)]
    return parts


async def _apart(part: Callable[[Path], Awaitable[list[Row]]]) -> list[Row]:
    """Run a part in a folder of its own; its path is short, for a Unix socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="lichen-bench-") as folder:
        return await part(Path(folder))


def prepare() -> None:
    """Compiled modules and enough descriptors, as an installed system has them."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "agent", "hub"], cwd=ROOT, check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Options in, table out, and whether all budgets are kept."""
    parser = argparse.ArgumentParser(prog="tests/bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seconds",
        type=float,
        default=120,
        help="how long the agent at rest is watched, with and without apps",
    )
    parser.add_argument("--starts", type=int, default=5, help="how often the agent and an app are started")
    parser.add_argument("--updates", type=int, default=20, help="how often an app is updated under load")
    parser.add_argument("--load-seconds", type=float, default=30, help="how long the hub is under load")
    parser.add_argument("--boards", type=int, nargs="+", default=[1_000, 10_000], help="simulated boards")
    parser.add_argument("--minutes", type=float, default=15, help="how long link and card are counted")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="these parts alone")
    parser.add_argument("--output", type=Path, default=ROOT / "bench.json")
    parser.add_argument("--page", type=Path, help="write the figures as a page, too")
    options = parser.parse_args()
    prepare()
    measured = asyncio.run(measure(options))
    rows = [row for part in measured.values() for row in part]
    print(table(rows))
    known = read(options.output) | measured
    known = {part: known[part] for part in PARTS if part in known}
    write(known, options.output)
    if options.page:
        options.page.write_text(page([row for part in known.values() for row in part]))
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
