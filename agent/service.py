"""The agent as a process: its configuration read, its journal set up, its watchdog answered.

Called by `agent.__main__` and by `agent.commandline`.  What runs is `agent.app`.
"""

from __future__ import annotations

from agent import config as configuration
from agent.app import Agent
from agent.base import journal, process
from agent.clock import Clock


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

    return process.run(work, watch=watch)
