"""References to images, and what registries say of them.  Pure.

Owns which builds of an image run on a board: `platforms_of` names them for its architecture, the best
first, and `read_index` finds them in an index (OCI image index, or Docker's manifest list).

>>> platforms_of("armv7l"), platforms_of("aarch64")
(('arm/v7', 'arm/v6', 'arm/v5'), ('arm64',))
>>> registry_of("registry.example:5000/team/web:1.2"), registry_of("docker.io/library/nginx:1.25")
('registry.example:5000', 'docker.io')
>>> pinned("docker.io/library/nginx:1.25", "sha256:" + "0" * 64)[:36]
'docker.io/library/nginx@sha256:00000'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.wire.errors import Refused

LARGEST = 2**50
"""Bytes; a registry that says more of an image says nothing."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)

# What machines call themselves (uname -m), and what images call that: the best first.
_ARM = ("arm/v7", "arm/v6", "arm/v5")
PLATFORMS: Mapping[str, tuple[str, ...]] = {
    "aarch64": ("arm64",),
    "arm64": ("arm64",),
    "armv8l": _ARM,
    "armv7l": _ARM,
    "armv6l": _ARM[1:],
    "armv5l": _ARM[2:],
    "x86_64": ("amd64",),
    "amd64": ("amd64",),
    "i686": ("386",),
    "i586": ("386",),
    "i386": ("386",),
    "riscv64": ("riscv64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
    "loongarch64": ("loong64",),
}

ALL_PLATFORMS = tuple(dict.fromkeys(name for names in PLATFORMS.values() for name in names))

_USUAL = {"arm64/v8": "arm64", "amd64/v1": "amd64", "arm": "arm/v7"}
"""Names of the same thing (as containerd normalises them)."""


def platforms_of(arch: str) -> tuple[str, ...]:
    """What a board with this architecture can run; empty for one that nobody knows."""
    return PLATFORMS.get(arch, ())


def platform_name(architecture: str, variant: str = "") -> str:
    """An architecture with its variant, as we write it."""
    name = f"{architecture}/{variant}" if variant else architecture
    return _USUAL.get(name, name)


def registry_of(image: str) -> str:
    """The host, and port, of a full reference."""
    return image.partition("/")[0]


def digest_of(image: str) -> str:
    """The digest that a reference has already; empty without one."""
    _, _, digest = image.partition("@")
    return digest if DIGEST.fullmatch(digest) else ""


def untagged(image: str) -> str:
    """The name of an image alone."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]


def pinned(image: str, digest: str) -> str:
    """The reference that always means the same image."""
    return f"{untagged(image)}@{digest}"


def askable(image: str) -> str:
    """The reference as a registry is asked for it: a tag beside a digest says nothing."""
    return pinned(image, digest_of(image)) if digest_of(image) else image


def read_index(document: Mapping[str, Any]) -> dict[str, str]:
    """The builds for Linux in an index: platform to digest.  Raises Refused."""
    found: dict[str, str] = {}
    for entry in _list(document.get("manifests")):
        platform = entry.get("platform") if isinstance(entry, dict) else None
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if not isinstance(platform, dict) or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            continue
        # Attestations of builders stand there as builds for "unknown".
        if platform.get("os") == "linux" and isinstance(platform.get("architecture"), str):
            name = platform_name(platform["architecture"], str(platform.get("variant") or ""))
            found.setdefault(name, digest)
    if not found:
        raise Refused("the index names no build for Linux", code="image")
    return found


def compressed_bytes(document: Mapping[str, Any]) -> int:
    """The sizes of all layers in the manifest of an image; 0 where it does not say.

    >>> compressed_bytes({"layers": [{"size": 30}, {"size": 12}]}), compressed_bytes({"fsLayers": [{}]})
    (42, 0)
    """
    layers = document.get("layers")
    sizes = [each.get("size") if isinstance(each, dict) else None for each in _list(layers)]
    whole = [size for size in sizes if isinstance(size, int) and size >= 0]
    return sum(whole) if len(whole) == len(sizes) and sum(whole) <= LARGEST else 0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def is_index(document: Mapping[str, Any]) -> bool:
    """Whether a manifest is one of several builds."""
    return document.get("mediaType") in INDEXES or "manifests" in document


def choose(digests: Mapping[str, str], arch: str) -> str:
    """The digest for a board with this architecture; empty when there is none."""
    return next((digests[name] for name in platforms_of(arch) if name in digests), "")


def refuse_missing(image: str, digests: Iterable[str], board: str, arch: str) -> Refused:
    """That there is no build of an image for a board."""
    there = ", ".join(sorted(digests)) or "none"
    return Refused(
        f"{image} has no build for {board} ({arch}); there are: {there}",
        code="architecture",
        hint="choose another image or version, or leave that board out",
    )
