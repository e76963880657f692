"""Words of a manifest that would reach beyond a container, and which of them any board takes.

Pure, and the same for both sides: the hub's compiler refuses them with file and line, and a board, which
trusts no hub, refuses them again (`agent.containers.policy`).  Mounts and volumes are allow-lists, for what
Podman understands grows: its option "O" makes an overlay of any folder of the board.

>>> is_mount_option("volume", "Z"), is_mount_option("volume", "upperdir=/etc")
(True, False)
>>> shown_path({"type": "none", "o": "bind,ro", "device": "/srv/data"})
'/srv/data'
>>> shown_path({"type": "overlay", "device": "overlay", "o": "lowerdir=/etc"})
Traceback (most recent call last):
ValueError: a volume of the type 'overlay' is none that a board makes
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.wire.plain import show

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
TIGHTER = ("ro", "rw", "noexec", "nosuid", "nodev")
MOUNT_OPTIONS = {
    "bind": (*TIGHTER, *PROPAGATIONS, "z", "Z"),
    "volume": (*TIGHTER, *PROPAGATIONS, "z", "Z", "nocopy"),
    "tmpfs": (*TIGHTER, "exec"),
}
BIND_OPTIONS = (*TIGHTER, *PROPAGATIONS, "bind", "rbind")
VOLUME_HINT = "none, type tmpfs with a size, or type none with o: bind and a device"

RESERVED_LABELS = "lichen."
STEERING = (
    "run.", "io.podman.", "io.container.", "io.containers.", "io.kubernetes.", "io.crun.", "krun.",
    "org.criu.", "org.opencontainers.", "org.systemd.", "module.wasm.",
)  # fmt: skip
"""How annotations begin that change what runc, crun, Podman, systemd and their hooks do."""

_OF_MEMORY = re.compile(r"size=[0-9]{1,18}[kKmMgG%]?|mode=[0-7]{1,4}|(uid|gid|nr_inodes)=[0-9]{1,10}")


def is_mount_option(kind: str, option: str) -> bool:
    """Whether an option of a mount ("volume", "bind", "tmpfs") is one that any board takes."""
    return option in MOUNT_OPTIONS[kind] or (kind == "tmpfs" and _is_of_memory(option))


def shown_path(options: Mapping[str, str]) -> str:
    """The path of the board that a volume with these driver options shows; "" when it is a place of its own.

    Raises ValueError for options that no board takes.
    """
    if not options:
        return ""
    for key in options.keys() - {"type", "device", "o"}:
        raise ValueError(f"the driver option {show(key)} is none that a board takes")
    kind, device = options.get("type", ""), options.get("device", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind == "tmpfs":
        if device not in ("", "tmpfs"):
            raise ValueError(f"a tmpfs has no device {show(device)}")
        _only(words, [word for word in words if word in MOUNT_OPTIONS["tmpfs"] or _is_of_memory(word)])
        return ""
    if kind != "none":
        raise ValueError(f"a volume of the type {show(kind)} is none that a board makes")
    _only(words, BIND_OPTIONS)
    if not {"bind", "rbind"} & set(words) or not device.startswith("/"):
        raise ValueError("a volume of the type 'none' shows a path: o: bind, and the path as its device")
    return device


def _only(words: list[str], known: list[str] | tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise ValueError(f"the option {show(word)} of a volume is none that a board takes")


def _is_of_memory(option: str) -> bool:
    return _OF_MEMORY.fullmatch(option) is not None


def is_reserved(label: str) -> bool:
    """Whether a label is one of those by which a board finds again what it made."""
    return label.startswith(RESERVED_LABELS)


def steers(annotation: str) -> bool:
    """Whether an annotation is an instruction to what runs containers, and no note for readers."""
    return annotation.lower().startswith(STEERING)
