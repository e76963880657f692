"""The agent as a process: its configuration read, its journal set up, its watchdog answered.

Called by `agent.__main__` and by `agent.commandline`.  What runs is `agent.app`.
"""

from __future__ import annotations

from agent import config as configuration
from agent.app import Agent
from agent.base import journal, process
from agent.clock import Clock

M_ARENA_MAX = -8
"""Of mallopt(3)."""


def run(path: str | None) -> int:
    """Sample and report until stopped, by the configuration at ``path``, or where one lies.  Exit status."""
    running: list[Agent] = []

    async def work() -> None:
        config = configuration.load(configuration.find(path))
        journal.setup(config.log.level)
        running.append(Agent(config, Clock.system()))
        await running[0].run()

    async def watch() -> None:
        for each in running:
            await each.watch()

    _share_memory()
    return process.run(work, watch=watch)


def _share_memory() -> None:
    """Let threads share one heap, as only one of them runs at a time.

    glibc gives each a heap of its own, and what one has freed no other uses: 1.2 MB of a board with apps.
    """
    import ctypes  # which the clock needs, too

    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_ARENA_MAX, 1)
