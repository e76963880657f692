"""`lichen-agent`: run the agent, join a hub, and look at a board.

What a service types, ``run`` with or without a configuration, is understood here; everything else by
`agent.commandline`, for which a running agent has no use: its parser takes 0.4 MB.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def main() -> int:
    """Run one command; the exit status is that of `agent.wire.errors`."""
    if is_run(sys.argv[1:]):
        spare()
        from agent import service

        return service.run(sys.argv[3] if len(sys.argv) > 3 else None)
    from agent.commandline import Command, parser

    args = parser().parse_args()
    command: Command = args.command
    return command(args)


def is_run(words: Sequence[str]) -> bool:
    """Whether these are ``run`` or ``run --config FILE``, and nothing else.

    >>> is_run(["run"]), is_run(["run", "--config", "agent.toml"]), is_run(["run", "--help"])
    (True, True, False)
    """
    match words:
        case ["run"]:
            return True
        case ["run", "--config", path]:
            return not path.startswith("-")
    return False


def spare() -> None:
    """Keep ipaddress from being loaded: pathlib loads urllib.parse, and that this, for what is in brackets.

    0.3 MB.  Who does look there, or needs it for something else, gets the real one.
    """
    name = "ipaddress"
    if name in sys.modules or "urllib.parse" in sys.modules:
        return
    stand_in = ModuleType(name)

    def find(attribute: str) -> Any:
        return getattr(import_module(name), attribute)

    stand_in.__dict__["__getattr__"] = find
    sys.modules[name] = stand_in
    import_module("urllib.parse")
    del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
