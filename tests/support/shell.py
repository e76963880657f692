"""`lichen` as an operator types it, at a shell that does not wait for it unless it is told to.

shell = Shell(tmp_path, url, token)
out, err = await shell.type("app", "ls")
typed = await shell.start("app", "deploy", "blog", "--wait")
await typed.says("pulling")
out, err = await typed.end()
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import tomli_w

from support.lab import script

PATIENCE_S = 30
LICHEN = ("env", "--default-signal=INT", script("lichen"))
"""The command, which hears Ctrl-C also where these tests run in the background of a shell."""


class Shell:
    """Somebody who is logged in; ``folder`` is the home and the working directory."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        (folder / "cli.toml").write_text(tomli_w.dumps({"url": url, "token": token}))

    async def start(self, *args: str, stdin: str | bytes = b"") -> Typed:
        """Type ``lichen ARGS``."""
        child = await asyncio.create_subprocess_exec(
            *LICHEN, *args, cwd=self.folder, env=self._environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        child.stdin.write_eof()
        return Typed(args, child)

    async def type(self, *args: str, status: int = 0, stdin: str | bytes = b"") -> tuple[str, str]:
        """Type it and wait for its end; returns what it printed on stdout and stderr."""
        return await (await self.start(*args, stdin=stdin)).end(status)

    async def json(self, *args: str, status: int = 0) -> Any:
        """What it prints with ``--json``."""
        out, _ = await self.type(*args, "--json", status=status)
        return json.loads(out)

    async def on_a_terminal(self, *args: str) -> Screen:
        """Type it where standard input, output and error are a terminal."""
        ours, theirs = pty.openpty()
        child = await asyncio.create_subprocess_exec(
            *LICHEN, *args, cwd=self.folder, stdin=theirs, stdout=theirs, stderr=theirs,
            env={**self._environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )  # fmt: skip
        os.close(theirs)
        return Screen(child, ours)

    @property
    def _environment(self) -> dict[str, str]:
        return {"LICHEN_CONFIG": str(self.folder / "cli.toml"), "HOME": str(self.folder)}


class Typed:
    """A command that runs."""

    def __init__(self, args: tuple[str, ...], child: asyncio.subprocess.Process) -> None:
        self.args, self.child = args, child
        self.said = ""

    async def says(self, text: str) -> None:
        """Wait until it has said something on standard error."""
        assert self.child.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.said:
                line = await self.child.stderr.readline()
                assert line, f"{self.args} never said {text!r}: {self.said}"
                self.said += line.decode()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.child.send_signal(signal.SIGINT)

    async def end(self, status: int = 0) -> tuple[str, str]:
        """What it printed in all, once it has ended."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.child.communicate()
        self.said += err.decode()
        assert self.child.returncode == status, (
            f"{self.args}: {self.child.returncode}\n{out.decode()}{self.said}"
        )
        return out.decode(), self.said


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, child: asyncio.subprocess.Process, terminal: int) -> None:
        self.child, self._terminal = child, terminal
        self.shown = ""
        self._news = asyncio.Event()
        os.set_blocking(terminal, False)
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux says so when nobody has the other end any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._terminal)
        self.shown += data.decode(errors="replace")
        self._news.set()

    async def shows(self, text: str) -> None:
        """Wait until something was shown."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.shown:
                self._news.clear()
                await self._news.wait()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    async def end(self, status: int = 0) -> str:
        """Everything that was shown, once the command has ended."""
        async with asyncio.timeout(PATIENCE_S):
            await self.child.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        self._drain()
        os.close(self._terminal)
        assert self.child.returncode == status, self.shown
        return self.shown

    def _drain(self) -> None:
        try:
            while data := os.read(self._terminal, 65536):
                self.shown += data.decode(errors="replace")
        except OSError:
            return
