"""Registries, asked through Debian's `skopeo`.

Owns the child process: its arguments, the file in which it finds a password (0600, in a folder of its
own, gone when it has ended; never an argument, which every user of the machine could read), its timeout,
and what its errors mean.  `hub.apps.registry` asks; nothing is pulled here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.base.files import write_file
from agent.wire.decode import dumps
from agent.wire.errors import LichenError, LinkDown, Refused
from hub.apps.images import registry_of
from hub.apps.secret_texts import RegistryLogin

PROGRAM = "skopeo"
TIMEOUT_S = 30.0
MAX_BYTES = 4 * 1024 * 1024
"""Largest answer taken: what registries themselves take as a manifest."""

# Whatever else goes wrong, the registry could not be asked.
_DEFINITE = re.compile(
    r"manifest unknown|name unknown|repository name not known|not found|unauthorized|denied"
    r"|authentication required|invalid reference format|incorrect username or password",
    re.IGNORECASE,
)
# What a server has written is nobody's business: whoever may name an image can have the hub ask any address.
_BODY = re.compile(r"(StatusCode: [0-9]+|body|value)[,:] .*", re.DOTALL)
LONGEST_REASON = 200
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


async def inspect(
    image: str,
    *,
    config: bool = False,
    login: RegistryLogin | None = None,
    plain_http: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """The manifest or index of an image as its registry has it; ``config``: the image's own words instead.

    ``image`` has a tag or a digest, not both.  Raises Refused (code "image") when the registry says that
    there is no such image or that we may not have it, LinkDown (code "registry") when it cannot be asked.
    """
    with tempfile.TemporaryDirectory(prefix="lichen-registry-") as folder:
        auth = Path(folder) / "auth.json"
        write_file(auth, _auth(login), sync=False)
        words = [PROGRAM, "inspect", "--raw", "--no-tags", "--authfile", str(auth)]
        words += ["--config"] if config else []
        words += ["--tls-verify=false"] if plain_http else []
        # Without a home nothing of the user who runs the hub has a say: no registries.conf, no login.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "XDG_RUNTIME_DIR": folder}
        proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        return await _run([*words, f"docker://{image}"], environment | proxies, image, timeout_s)


async def _run(words: Sequence[str], environment: dict[str, str], image: str, timeout_s: float) -> bytes:
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment
        )
    except FileNotFoundError as error:
        raise LinkDown(
            "skopeo is not installed, and the hub asks registries with it",
            code="registry",
            hint="apt-get install --no-install-recommends skopeo",
        ) from error
    try:
        async with asyncio.timeout(timeout_s):
            answer, complaint = await child.communicate()
    except TimeoutError:
        raise LinkDown(
            f"the registry {registry_of(image)} has not answered within {timeout_s:g} s", code="registry"
        ) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        raise _explained(image, complaint.decode("utf-8", "replace"))
    if len(answer) > MAX_BYTES:
        raise Refused(f"what the registry says of {image} is over {MAX_BYTES:,} bytes", code="image")
    return answer


def _explained(image: str, complaint: str) -> LichenError:
    """What went wrong, from the last message that skopeo has written."""
    said = _MESSAGE.findall(complaint) or [complaint.strip().rpartition("\n")[2]]
    whole = said[-1].replace('\\"', '"')
    reason = _shown(whole) or "skopeo does not say why"
    if _DEFINITE.search(whole):
        return Refused(
            f"{image}: {reason}",
            code="image",
            hint="look at name and tag; for a private registry: lichen registry set",
        )
    hint = ""
    if "server gave HTTP response" in whole:
        hint = f'to ask it by plain HTTP: [registries] plain_http = ["{registry_of(image)}"] in hub.toml'
    return LinkDown(
        f"the registry {registry_of(image)} cannot be asked: {reason}", code="registry", hint=hint
    )


def _shown(said: str) -> str:
    """What may be told of an error: no more of a server's answer than what kind of answer it is."""
    plain = "".join(each if each.isprintable() else " " for each in _BODY.sub(r"\1 (not shown)", said))
    # The cause stands at the end, after all that was being done.
    return plain if len(plain) <= LONGEST_REASON else f"...{plain[-LONGEST_REASON:]}"


def _auth(login: RegistryLogin | None) -> bytes:
    if login is None:
        return b'{"auths":{}}'
    pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    return dumps({"auths": {login.registry: {"auth": pair}}})
