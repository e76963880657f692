"""Which digests an image has, for which platforms, and how large it is: what its registry says, or said last.

Owns the question and the memory of its answers.  `hub.apps.manifests` asks for every image of a deployment,
before anything is touched.  A registry that cannot be asked stops nobody who has asked before: what a tag
was then counts, and a note says so.  One that answers "there is no such image" is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.wire import words
from agent.wire.decode import loads
from agent.wire.errors import LinkDown, Refused
from hub.access.vault import Vault
from hub.apps import images, skopeo
from hub.apps.logins import read_logins
from hub.store.database import Store
from hub.store.digests import recall_digests, recall_sizes, remember_digests, remember_size


@dataclass(frozen=True, slots=True)
class Builds:
    """The builds of an image: platform to digest; ``note`` says what there is to know of that."""

    digests: dict[str, str]
    note: str = ""


class Registry:
    """Asks registries.  ``plain_http`` names those that speak no TLS (host and port), ``allowed`` the only
    ones that are asked (none: all are)."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        now_ms: Callable[[], int],
        *,
        plain_http: Collection[str] = (),
        allowed: Collection[str] = (),
        timeout_s: float = skopeo.TIMEOUT_S,
    ) -> None:
        self._store = store
        self._vault = vault
        self._now_ms = now_ms
        self._plain_http = frozenset(plain_http)
        self._allowed = frozenset(allowed)
        self._timeout_s = timeout_s

    async def builds(self, image: str) -> Builds:
        """The builds of an image, by a full reference.

        Raises Refused (code "image") when the registry has no such image, or not for us; LinkDown (code
        "registry") when it cannot be asked and never was.
        """
        registry = images.registry_of(image)
        if self._allowed and registry not in self._allowed:
            raise Refused(
                f"{image}: no image may come from {registry}",
                code="image",
                hint="whoever runs the hub names it in hub.toml: [registries] allowed",
            )
        try:
            found = await self._ask(image)
        except LinkDown as error:
            return await self._recall(image, error)
        async with self._store.write() as tx:
            await remember_digests(tx, image, found, self._now_ms())
        return Builds(found)

    async def size(self, image: str, digest: str, *, ask: bool) -> int:
        """How many bytes the compressed layers of a build have; 0 when nobody says.

        ``ask`` the registry when it never has said.  Whether it answers does not matter: a board that has no
        size to go by pulls, and finds out.
        """
        async with self._store.read() as tx:
            known = (await recall_sizes(tx, [digest])).get(digest, 0)
        if known or not ask:
            return known
        try:
            found = images.compressed_bytes(_object(await self._inspect(images.pinned(image, digest)), image))
        except (LinkDown, Refused):
            return 0
        if found:
            async with self._store.write() as tx:
                await remember_size(tx, digest, found)
        return found

    async def _recall(self, image: str, why: LinkDown) -> Builds:
        """What the registry said when it could be asked.  Raises ``why`` when it never was.

        A reference with a digest means one image anyhow; only nobody has looked whether it fits.
        """
        async with self._store.read() as tx:
            known = await recall_digests(tx, image)
        if known is None and (digest := images.digest_of(image)):
            note = f"{why}; {image} is taken as it is written, for any board"
            return Builds(dict.fromkeys(images.ALL_PLATFORMS, digest), note)
        if known is None:
            raise why
        age = words.duration(self._now_ms() - known.at_ms)
        return Builds(known.digests, f"{why}; {image} stays what it was {age} ago")

    async def _ask(self, image: str) -> dict[str, str]:
        asked = images.askable(image)
        raw = await self._inspect(asked)
        document = _object(raw, image)
        if images.is_index(document):
            return images.read_index(document)
        config = _object(await self._inspect(asked, config=True), image)
        architecture = config.get("architecture")
        if not isinstance(architecture, str) or not architecture:
            raise Refused(f"{image} does not say for which architecture it is", code="image")
        name = images.platform_name(architecture, str(config.get("variant") or ""))
        return {name: f"sha256:{hashlib.sha256(raw).hexdigest()}"}

    async def _inspect(self, image: str, *, config: bool = False) -> bytes:
        registry = images.registry_of(image)
        async with self._store.read() as tx:
            logins = await read_logins(tx, self._vault, [registry])
        return await skopeo.inspect(
            image,
            config=config,
            login=logins[0] if logins else None,
            plain_http=registry in self._plain_http,
            timeout_s=self._timeout_s,
        )


def _object(raw: bytes, image: str) -> dict[str, object]:
    """What a registry has answered, as JSON.  Raises LinkDown: something else stands in its place."""
    try:
        document = loads(raw, max_bytes=skopeo.MAX_BYTES)
    except Refused as error:
        raise LinkDown(
            f"{image}: what its registry answers is no manifest: {error}", code="registry"
        ) from error
    if not isinstance(document, dict):
        raise LinkDown(f"{image}: what its registry answers is no manifest", code="registry")
    return document
