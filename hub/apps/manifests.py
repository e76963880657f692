"""From a recipe to what is placed on boards: compiled, filled in, pinned for each board's architecture.

Owns the way from a `Content` to manifests.  `hub.apps.changes` takes it for every change, and
`hub.apps.rehearsal` without making one.  Registries are asked before the store is; whatever is missing is
refused here, so that nothing is touched unless all of it can be.

1.  `compile`: the draft, on a thread, with replicas and restarts as operators asked for;
2.  `pin`: of each image the digest for each board;
3.  `manifest` and `secret_texts`: what goes into the order of one board.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agent.wire.errors import LinkDown, Refused
from agent.wire.order import App, Config, Service
from hub.access.vault import Vault
from hub.apps import images
from hub.apps.compile import compile_draft
from hub.apps.content import Content
from hub.apps.draft import ConfigDraft, Draft
from hub.apps.recipe import Recipe
from hub.apps.registry import Builds, Registry
from hub.apps.secret_texts import SecretText, SecretTexts
from hub.apps.templates import render
from hub.store.apps import Pins
from hub.store.boards import BoardRow

T = TypeVar("T")
AT_ONCE = 4
"""Registries' answers that are waited for together."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """The digests of every image, by digest how large it is (compressed), and what there is to know."""

    pins: Pins
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


class Manifests:
    """The manifests of one hub's apps."""

    def __init__(self, registry: Registry, vault: Vault, *, executor: Executor | None = None) -> None:
        self._registry = registry
        self._vault = vault
        self._executor = executor

    async def compile(self, app: str, content: Content) -> Draft:
        """The draft of an app as it is asked for.

        Replicas of a service that it has no more say nothing.  Raises Refused: "compose", "recipe", "env",
        or "scale" for replicas that cannot be.
        """
        loop = asyncio.get_running_loop()
        draft = await loop.run_in_executor(self._executor, _compiled, app, content)
        services = tuple(_as_asked(service, content) for service in draft.app.services)
        return replace(draft, app=replace(draft.app, services=services, stopped=content.stopped))

    async def pin(self, draft: Draft, boards: Sequence[BoardRow], known: Pins, *, fresh: bool) -> Pinned:
        """The digests that these boards need; ``known`` ones count, unless they are to be ``fresh``.

        Raises Refused ("architecture", naming those that there are; "image") and LinkDown ("registry").
        """
        written = sorted({service.image for service in draft.app.services})
        kept = {} if fresh else {image: known[image] for image in written if image in known}
        unknown = [image for image in written if not _serves(kept.get(image, {}), boards)]
        answers = await self._ask(unknown)
        # What is known stays what it is, also where a board of another kind makes us ask again.
        pins = kept | {image: builds.digests | kept.get(image, {}) for image, builds in answers.items()}
        for image in written:
            for board in boards:
                if not images.choose(pins[image], arch_of(board)):
                    raise images.refuse_missing(image, pins[image], board.name, arch_of(board))
        notes = tuple(dict.fromkeys(builds.note for builds in answers.values() if builds.note))
        needed = {image: _needed(pins[image], boards) for image in written}
        # One that has just not answered is not waited for again.
        silent = {image for image, builds in answers.items() if builds.note}
        return Pinned(needed, notes, await self._sizes(needed, answers.keys() - silent))

    async def _ask(self, written: Sequence[str]) -> dict[str, Builds]:
        found: dict[str, Builds] = {}

        async def ask(image: str) -> None:
            found[image] = await self._registry.builds(image)

        await _for_each(written, ask)
        return found

    async def _sizes(self, pins: Pins, asked: Collection[str]) -> dict[str, int]:
        """How large each build is; of images that were ``asked`` for registries tell."""
        found: dict[str, int] = {}

        async def ask(build: tuple[str, str]) -> None:
            image, digest = build
            found[digest] = await self._registry.size(image, digest, ask=image in asked)

        await _for_each({(image, digest) for image in pins for digest in pins[image].values()}, ask)
        return found

    def manifest(self, draft: Draft, pinned: Pinned, board: BoardRow, revision: int) -> App:
        """The manifest for a board, but for what is confidential.  Raises Refused (code "template")."""
        services = tuple(_pinned(service, pinned, arch_of(board)) for service in draft.app.services)
        plain = tuple(_config(draft, config) for config in draft.configs if not config.secrets)
        return replace(
            draft.app, revision=revision, version=draft.version[:256], services=services, configs=plain
        )

    def secret_texts(self, draft: Draft, secrets: Sequence[SecretText]) -> SecretTexts:
        """What is confidential in it: the secrets, and configs that tell one.

        Raises Refused (code "template").
        """
        values = {secret.name: secret.text for secret in secrets}
        configs = []
        for config in draft.configs:
            if config.secrets:
                text = render(config, _environment(draft, config), values)
                configs.append(SecretText(config.name, self._vault.fingerprint(text.encode()), text))
        return SecretTexts(tuple(secrets), tuple(configs))


async def _for_each(things: Iterable[T], ask: Callable[[T], Awaitable[None]]) -> None:
    """Ask registries of each, some at once.  Raises the first Refused or LinkDown."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask_one(thing: T) -> None:
        async with turns:
            await ask(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for thing in things:
                group.create_task(ask_one(thing), name=f"registry: {thing}")
    except* (Refused, LinkDown) as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def arch_of(board: BoardRow) -> str:
    """What a board says that it is; empty when it has said nothing."""
    return str((board.about or {}).get("arch", ""))


def _compiled(app: str, content: Content) -> Draft:
    return compile_draft(Recipe(content.files), content.env, app=app)


def _as_asked(service: Service, content: Content) -> Service:
    """A service with the replicas and restarts that operators asked for."""
    replicas = content.scale.get(service.name, service.replicas)
    fixed = [port for port in service.ports if port.published and port.protocol != "tcp"]
    if replicas > 1 and service.name in content.scale and fixed:
        port = fixed[0]
        raise Refused(
            f"{service.name} publishes {port.published}/{port.protocol}, which only one container can have",
            code="scale",
            hint="only TCP ports are shared by replicas",
        )
    return replace(service, replicas=replicas, restarted=content.restarted.get(service.name, 0))


def _pinned(service: Service, pinned: Pinned, arch: str) -> Service:
    """A service with the build of its image for an architecture."""
    digest = images.choose(pinned.pins[service.image], arch)
    return replace(
        service, image=images.pinned(service.image, digest), image_bytes=pinned.sizes.get(digest, 0)
    )


def _serves(digests: Mapping[str, str], boards: Iterable[BoardRow]) -> bool:
    return bool(digests) and all(images.choose(digests, arch_of(board)) for board in boards)


def _needed(digests: Mapping[str, str], boards: Sequence[BoardRow]) -> dict[str, str]:
    """Of the builds of an image those that some of these boards run."""
    used = {images.choose(digests, arch_of(board)) for board in boards}
    return {platform: digest for platform, digest in digests.items() if digest in used}


def _config(draft: Draft, config: ConfigDraft) -> Config:
    """A config without a secret in it."""
    text = render(config, _environment(draft, config), {}) if config.is_template else config.content
    return Config(config.name, hashlib.sha256(text.encode()).hexdigest()[:32], text)


def _environment(draft: Draft, config: ConfigDraft) -> dict[str, str]:
    """What a template sees: the environment of the containers that get the file."""
    found = {"STACK_NAME": draft.app.name}
    for service in draft.app.services:
        if any(given.source == config.name for given in service.configs):
            found |= service.environment
    return found
