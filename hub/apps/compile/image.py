"""Images: what a recipe calls one, as the full reference that a registry is asked for."""

from __future__ import annotations

import re
from typing import Literal

from hub.apps.tree import Node

DOCKER_HUB = "docker.io"

# The grammar of references in the distribution project, without addresses in brackets.
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
MAX_CHARACTERS = 255

Pull = Literal["missing", "always", "never"]


def image(service: Node) -> str:
    """The reference of a service's image with registry and tag, and the digest if the recipe has one.

    "nginx" -> "docker.io/library/nginx:latest".
    """
    node = service["image"]
    written = node.text().strip()
    if not written:
        raise (node if node.is_given else service).refused("a service needs an 'image'")
    host, rest = _split(written)
    found = _REFERENCE.fullmatch(rest)
    if not found or len(written) > MAX_CHARACTERS or not re.fullmatch(_HOST, host):
        raise node.refused(
            f"{written[:128]!r} is no image",
            hint="such as docker.io/library/nginx:1.27; names are lower-case",
        )
    name = found["name"]
    if host == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    digest = found["digest"]
    tag = found["tag"] or ("" if digest else "latest")
    return f"{host.lower()}/{name}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _split(written: str) -> tuple[str, str]:
    """Registry and rest.  As Docker has it, a first part without dot or port is no registry."""
    first, slash, rest = written.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return ("docker.io" if first == "index.docker.io" else first), rest
    return DOCKER_HUB, written


def pull_policy(service: Node) -> Pull:
    """When the board pulls.  As images are pinned, one that is there is always the right one."""
    node = service["pull_policy"]
    match node.text():
        case "always" | "never" as policy:
            return policy
        case "build":
            raise node.refused("boards do not build", hint="push the image to a registry")
    return "missing"
