"""`lichen`: the hub operator's command line.

It speaks only the HTTP API, so it proves that the API is enough; it imports neither the
store nor the web pages.  `main` is the console script; commands live beside, by noun.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its status."""
    from hub.cli.root import run

    run()
