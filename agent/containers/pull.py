"""One pull: run in a thread of `podman`, told about and cut from the loop.

A pull that fails is answered with 200 and a line that says so, and one that is cut may end without any:
so each line is read, silence is bounded, and in the end the image has to be there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from agent.containers import answers
from agent.containers.client import Client, find_image
from agent.containers.engine import Image, Login
from agent.wire.apps import Progress
from agent.wire.errors import LinkDown, Refused

TELL_EVERY_S = 0.25


class Pull:
    """One pull: run in a thread, cut from the loop."""

    def __init__(
        self,
        reference: str,
        login: Login | None,
        plain_http: bool,
        stall_s: float,
        told: Callable[[Progress], object],
    ) -> None:
        self._reference = reference
        self._login = login
        self._plain_http = plain_http
        self._stall_s = stall_s
        self._told = told
        self._is_cut = False
        self._answer: Any = None

    def cut(self) -> None:
        """Stop it, if it goes on."""
        self._is_cut = True
        answer = self._answer
        if answer is not None:
            # The thread waits in a read, which ends when the socket is shut down under it.  Where it has
            # ended already that is an error; a urllib3 before 2.3 cannot, and then it ends when it stalls.
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                answer.raw.shutdown()

    def run(self, client: Client) -> Image:
        """Pull; in a thread.  Raises as `Engine.pull` does."""
        params: dict[str, Any] = {"reference": self._reference, "compatMode": True}
        if self._plain_http:
            params["tlsVerify"] = False
        headers = {"X-Registry-Auth": _header(self._login)} if self._login is not None else {}
        self._answer = client.ask(
            "POST",
            f"pulling {self._reference}",
            "/images/pull",
            params=params,
            headers=headers,
            stream=True,
            limit_s=self._stall_s,
        )
        try:
            if self._is_cut:
                raise LinkDown(f"{self._reference}: the pull was given up", code="podman-down")
            said = self._follow()
        finally:
            answer, self._answer = self._answer, None
            answer.close()
        if said.error:
            raise answers.pull_failure(self._reference, said.error)
        return self._verify(client)

    def _follow(self) -> answers.PullWords:
        words = answers.PullWords()
        told_s = heard_s = time.monotonic()
        try:
            for line in self._answer.iter_lines():
                heard_s = time.monotonic()
                progress = words.read(line)
                if progress is not None and heard_s - told_s >= TELL_EVERY_S and not self._is_cut:
                    told_s = heard_s
                    self._told(progress)
        except OSError as error:
            if time.monotonic() - heard_s < self._stall_s:
                reason = f"{self._reference}: Podman went away in the pull"
                raise LinkDown(reason, code="podman-down") from error
            reason = f"{self._reference}: nothing came from the registry for {self._stall_s:g} s"
            raise LinkDown(reason, code="registry") from error
        return words

    def _verify(self, client: Client) -> Image:
        """A pull that says nothing wrong may have been cut, or have brought something else."""
        image = find_image(client, self._reference)
        if image is None:
            raise Refused(f"{self._reference} cannot be had: the pull ended without it", code="image")
        if image.broken:
            raise Refused(f"{self._reference} lacks a layer: remove it and pull again", code="image")
        digest = self._reference.rpartition("@")[2]
        if not any(name.endswith(f"@{digest}") for name in image.names):
            raise Refused(f"{self._reference} cannot be had: {image.names} came instead", code="image")
        return image


def _header(login: Login) -> str:
    """X-Registry-Auth: the login travels in the request, and is nowhere else."""
    pair = json.dumps({"username": login.user, "password": login.password})
    return base64.urlsafe_b64encode(pair.encode()).decode()
