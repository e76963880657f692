"""Mounts of a service, and the volumes of an app: short and long forms, paths of the board, memory."""

from __future__ import annotations

import posixpath

from agent.wire.decode import nearest
from agent.wire.order import Mount, Volume
from agent.wire.rights import MOUNT_OPTIONS, PROPAGATIONS, VOLUME_HINT, is_mount_option, shown_path
from hub.apps import units
from hub.apps.compile.scope import NOUN, Scope, is_external, labels_of
from hub.apps.tree import Node

MODES = ("ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent")
MEANINGLESS = ("rw", "cached", "delegated", "consistent")
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


def mounts(service: Node, name: str, scope: Scope) -> tuple[Mount, ...]:
    """What a service has mounted, memory included."""
    found = [_checked(each, _mount(each, name, scope)) for each in service["volumes"]]
    found += [_checked(each, _short_tmpfs(each)) for each in service["tmpfs"].entries()]
    targets: dict[str, Mount] = {}
    for mount in found:
        if mount.target in targets:
            raise service["volumes"].refused(f"two things are mounted at {mount.target}")
        targets[mount.target] = mount
    return tuple(found)


def volumes(scope: Scope) -> tuple[Volume, ...]:
    """The volumes that the app's services use, by full name."""
    found: dict[str, Volume] = {}
    for name, service in scope.services.items():
        for entry in service["volumes"]:
            volume = _volume(entry, name, scope)
            if volume is not None:
                found[volume.name] = volume
    return tuple(found.values())


# --- forms ---------------------------------------------------------------------------------------


def _checked(entry: Node, mount: Mount) -> Mount:
    """A mount whose options every board takes."""
    for option in mount.options:
        if not is_mount_option(mount.kind, option):
            known = ", ".join(MOUNT_OPTIONS[mount.kind])
            raise entry.refused(f"{option[:60]!r} is no option of a {mount.kind}", hint=f"known: {known}")
    return mount


def _mount(entry: Node, service: str, scope: Scope) -> Mount:
    if entry.is_mapping:
        return _long(entry, service, scope)
    source, target, modes = _short(entry)
    options = [mode for mode in modes if mode not in ("ro", "nocopy", *MEANINGLESS)]
    volume = _volume(entry, service, scope)
    if volume is None:
        _warn_of_socket(entry, source, scope)
    return Mount(
        "bind" if volume is None else "volume",
        _target(entry, target),
        _path(entry, source) if volume is None else volume.name,
        read_only="ro" in modes,
        no_copy="nocopy" in modes,
        options=tuple(options),
    )


def _short(entry: Node) -> tuple[str, str, list[str]]:
    """Source, target and modes of ``[source:]target[:mode,mode]``."""
    parts = entry.text().split(":")
    if len(parts) > 3 or not all(parts):
        raise entry.refused(f"{entry.text()[:120]!r} is no volume", hint="such as 'data:/var/lib/data:ro'")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    modes = parts[2].split(",") if len(parts) > 2 else []
    for mode in modes:
        if mode not in (*MODES, *PROPAGATIONS):
            near = nearest(mode, (*MODES, *PROPAGATIONS))
            raise entry.refused(
                f"{mode[:30]!r} is no mode of a volume" + (f"; did you mean {near!r}?" if near else "")
            )
    return source, target, modes


def _long(entry: Node, service: str, scope: Scope) -> Mount:
    target, source, kind = entry["target"], entry["source"], entry["type"].text()
    if not target.text():
        raise entry.refused("'target' is missing: the path in the container")
    for other in ("bind", "volume", "tmpfs"):
        if entry[other].is_given and other != kind:
            raise entry[other].refused(
                f"belongs to a mount of the type {other!r}, and this one is a {kind!r}"
            )
    at, read_only = _target(target, target.text()), entry["read_only"].flag()
    if kind == "tmpfs":
        memory = entry["tmpfs"]
        return Mount(
            "tmpfs",
            at,
            read_only=read_only,
            size_bytes=memory["size"].size_bytes(),
            mode=memory["mode"].mode(),
        )
    if kind == "bind":
        bind = entry["bind"]
        if not source.text():
            raise entry.refused("'source' is missing: a path of the board")
        propagation = bind["propagation"].choice(PROPAGATIONS, default="")
        _warn_of_socket(source, source.text(), scope)
        options = tuple(filter(None, (propagation, bind["selinux"].text())))
        return Mount("bind", at, _path(source, source.text()), read_only=read_only, options=options)
    if kind != "volume":
        raise entry["type"].refused(f"boards have no {kind!r} mounts", hint="volume, bind and tmpfs")
    volume = _volume(entry, service, scope)
    assert volume is not None
    return Mount("volume", at, volume.name, read_only=read_only, no_copy=entry["volume"]["nocopy"].flag())


def _short_tmpfs(entry: Node) -> Mount:
    """``/run:size=64m,mode=1777``"""
    target, _, rest = entry.text().partition(":")
    size, mode, read_only = 0, None, False
    options = []
    for option in filter(None, rest.split(",")):
        name, _, value = option.partition("=")
        try:
            if name == "size":
                size = units.size_bytes(value)
            elif name == "mode":
                mode = units.mode(value)
            elif name in ("ro", "rw"):
                read_only = name == "ro"
            else:
                options.append(option)
        except ValueError as error:
            raise entry.refused(str(error)) from None
    return Mount("tmpfs", _target(entry, target), "", read_only, size, mode, options=tuple(options))


# --- parts ---------------------------------------------------------------------------------------


def _target(node: Node, text: str) -> str:
    if not text.startswith("/"):
        raise node.refused(f"{text[:120]!r} is no absolute path in the container")
    return posixpath.normpath(text)


def _path(node: Node, text: str) -> str:
    """A path of the board."""
    if not text.startswith("/"):
        raise node.refused(
            f"{text[:120]!r} is a path of the recipe's folder, which is not on the board",
            hint="make the file a config, the folder a volume, or write an absolute path of the board",
        )
    return posixpath.normpath(text)


def _warn_of_socket(node: Node, path: str, scope: Scope) -> None:
    if path in SOCKETS:
        scope.warn(node, "boards run Podman: they have no socket of Docker, unless somebody made one")


def _volume(entry: Node, service: str, scope: Scope) -> Volume | None:
    """The volume that an entry mounts; None when it mounts something else."""
    if entry.is_mapping:
        if entry["type"].text() != "volume":
            return None
        source, target, used = entry["source"].text(), entry["target"].text(), entry["source"]
    else:
        source, target, _ = _short(entry)
        used = entry
    if not source:
        return Volume(_name_of_anonymous(used, target, service, scope))
    if not NOUN.fullmatch(source):
        if entry.is_mapping:
            raise used.refused(f"{source[:120]!r} is no name of a volume")
        return None
    return _defined(scope.defined("volumes", used, source), source, scope)


def _name_of_anonymous(used: Node, target: str, service: str, scope: Scope) -> str:
    """A volume without a name has to be the same one after an update; so its place is its name."""
    place = posixpath.normpath(target).strip("/").replace("-", "--").replace("/", "-")
    name = f"{scope.app}_{service}_{place}"
    if not NOUN.fullmatch(name):
        raise used.refused(f"the volume at {target[:80]!r} needs a name")
    return name


def _defined(definition: Node, key: str, scope: Scope) -> Volume:
    driver = definition["driver"]
    if driver.text() not in ("", "local", "default"):
        raise driver.refused(f"boards have no volume driver {driver.text()[:60]!r}", hint="only 'local'")
    return Volume(
        scope.full_name(definition, key),
        external=is_external(definition),
        driver_options=_driver_options(definition["driver_opts"]),
        labels=labels_of(definition["labels"]),
    )


def _driver_options(node: Node) -> dict[str, str]:
    """What a volume is, if it is no folder of Podman's: memory, or a path of the board."""
    found = {name: each.text() for name, each in node.items()}
    try:
        shown_path(found)
    except ValueError as error:
        raise node.refused(str(error), hint=VOLUME_HINT) from None
    return found
