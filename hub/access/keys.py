"""The hub's own keys, and the document in which its root key vouches for the others.

Owns the folder ``keys/`` (0700): one file per signing key, in the key format of signed notes,
and ``hub.note``, the signed hub document as boards get it.  `lichen-hub init` creates it;
`hub.app` opens it.  The root key signs nothing but hub documents; lose it and every board
has to join again, so it is made once and never replaced here.
The others are replaced by `hub.rotation`.

| file | named | signs |
|---|---|---|
| root.key | `<hub id>` | the hub document |
| order.key, command.key, time.key | `<hub id>/order`, ... | what boards are told |
| receipt.key | `<hub id>/receipt` | usage logs, as their witness |
| release.key | `<hub id>/release` | updates of the agent |

Beside them lies vault.key, which signs nothing (`hub.access.vault`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from agent.base.files import write_file
from agent.wire import note
from agent.wire.errors import ConfigError, Corrupt, LichenError
from agent.wire.joining import HubDocument, HubKeys
from agent.wire.messages import compose, read_text
from hub.config import Config
from hub.store import facts
from hub.store.database import Store

ROLES = ("order", "receipt", "time", "command", "release")
DOCUMENT_NUMBER = "document"


@dataclass(slots=True)
class Keyring:
    """The signing keys of one hub; ``hub`` is its id, made from the root key.

    One object for the whole hub: whoever signs looks the key up when it does, so that a rotation
    (`adopt`) reaches everybody at once.
    """

    hub: str
    root: note.Signer
    order: note.Signer
    receipt: note.Signer
    time: note.Signer
    command: note.Signer
    release: note.Signer

    @classmethod
    def generate(cls) -> Keyring:
        """New keys.  The root key comes first, since the hub's id, and so every name, follows from it."""
        root = note.generate()
        return cls(root.name, root, **{role: note.generate(f"{root.name}/{role}") for role in ROLES})

    @classmethod
    def load(cls, folder: Path) -> Keyring:
        """Read every key.  Raises ConfigError for one that is missing, Corrupt for one under a false name."""
        root = _read(folder / "root.key")
        hub = note.party_id(root.public_key)
        keys = {role: _read(folder / f"{role}.key") for role in ROLES}
        for role, signer in {"": root, **keys}.items():
            expected = f"{hub}/{role}" if role else hub
            if signer.name != expected:
                raise Corrupt(
                    f"{folder / (role or 'root')}.key is named {signer.name!r}, not {expected!r}",
                    hint="the keys of two hubs are mixed up; restore the folder from a backup",
                )
        return cls(hub, root, **keys)

    def save(self, folder: Path, roles: Collection[str] = ("root", *ROLES)) -> None:
        """Write the keys of these roles, readable by the hub's user only."""
        for role in roles:
            signer: note.Signer = getattr(self, role)
            write_file(folder / f"{role}.key", f"{signer.skey}\n".encode())

    def renewed(self, roles: Collection[str]) -> Keyring:
        """The same hub with new keys for these roles.  Raises ConfigError for a role that there is not."""
        if unknown := sorted(set(roles) - set(ROLES)):
            raise ConfigError(
                f"there is no key {unknown[0]!r} to rotate",
                hint=f"one of {', '.join(ROLES)}; the root key stays, the hub's id follows from it",
            )
        fresh = replace(self)
        for role in roles:
            setattr(fresh, role, note.generate(f"{self.hub}/{role}"))
        return fresh

    def adopt(self, other: Keyring) -> None:
        """Take over the keys of ``other``, but for the root key.  Raises Corrupt for another hub's."""
        if other.root.skey != self.root.skey:
            raise Corrupt(
                f"the root key in the folder is that of another hub ({other.hub})",
                hint="restore the folder keys/ from a backup",
            )
        for role in ROLES:
            setattr(self, role, getattr(other, role))

    @property
    def public(self) -> HubKeys:
        """The verifier keys that the hub document names."""
        return HubKeys(**{role: getattr(self, role).vkey for role in ROLES})


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """The hub document as boards get it: a note of the root key, and the number in it."""

    number: int
    text: str


def describe(keyring: Keyring, config: Config, ca_pem: str) -> HubDocument:
    """What the hub document says now, but for its number and date."""
    return HubDocument(
        number=1,
        hub=keyring.hub,
        name=config.name,
        issued_ms=0,
        keys=keyring.public,
        ca_pem=ca_pem,
        url=config.board_url,
        mqtt_host=config.host,
        mqtt_port=config.mqtt_port,
    )


async def current_document(
    store: Store, folder: Path, keyring: Keyring, content: HubDocument, now_ms: int
) -> SignedDocument:
    """The signed hub document for ``content``: the last one, or a new one with a higher number.

    The number is committed before the note is written, so a number is never used for two texts.
    """
    path = folder / "hub.note"
    last = read_document(folder, keyring)
    if last is not None and replace(last, number=content.number, issued_ms=content.issued_ms) == content:
        return SignedDocument(last.number, path.read_text("utf-8"))
    async with store.write() as tx:
        number = max(await facts.read_fact(tx, DOCUMENT_NUMBER), last.number if last else 0) + 1
        await facts.write_fact(tx, DOCUMENT_NUMBER, number)
    signed = note.sign(compose("hub", replace(content, number=number, issued_ms=now_ms)), keyring.root)
    write_file(path, signed.encode())
    return SignedDocument(number, signed)


def read_document(folder: Path, keyring: Keyring) -> HubDocument | None:
    """The last document that this hub signed, or None when there is none yet.  Raises Corrupt."""
    path = folder / "hub.note"
    if not path.exists():
        return None
    try:
        return read_text("hub", HubDocument, note.open_note(path.read_bytes(), keyring.root.verifier))
    except LichenError as error:
        raise Corrupt(
            f"{path} is not a document signed by this hub: {error}",
            hint="restore it from a backup, or remove it: the next start writes one with a higher number",
        ) from error


def _read(path: Path) -> note.Signer:
    try:
        return note.Signer.parse(path.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the hub's key {path} cannot be read: {error}", hint="restore it from a backup"
        ) from error
