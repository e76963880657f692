"""A real registry asked through skopeo: digests for machines, logins, and registries that fail."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.wire.errors import LinkDown, Refused
from hub.access.vault import Vault
from hub.apps import skopeo
from hub.apps.logins import Logins, check_registry, read_logins
from hub.apps.registry import Builds, Registry
from hub.apps.secret_texts import RegistryLogin
from hub.store.app_secrets import list_registries
from hub.store.database import Store
from hub.store.events import list_events
from support import registry as shops
from support.apps import push_image
from support.blank import new_store
from support.registry import PASSWORD, USER, Door

VAULT = Vault(bytes(32))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shops.Registry]:
    with shops.registry(tmp_path_factory.mktemp("registry")) as shop:
        yield shop


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shops.Registry]:
    with shops.registry(tmp_path_factory.mktemp("private"), login=True) as shop:
        yield shop


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path / "hub.db") as store:
        yield store


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def asking(store: Store, *plain_http: str, skew_ms: int = 0, timeout_s: float = 20) -> Registry:
    return Registry(store, VAULT, lambda: now_ms() + skew_ms, plain_http=plain_http, timeout_s=timeout_s)


async def test_an_index_names_a_digest_for_each_machine(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "both", "1", "amd64", "arm64")
    builds = await asking(store, shop.address).builds(image)
    assert set(builds.digests) == {"amd64", "arm64"}
    assert builds.note == ""
    single = shop.push("both", architecture="arm64", environment={"TAG": "1"})
    assert builds.digests["arm64"] == single.partition("@")[2], "what Podman will verify"


async def test_a_single_image_says_itself_for_what_it_is(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "one", "1", "arm64")
    pinned = shop.push("one", architecture="arm64", environment={"TAG": "1"})
    assert (await asking(store, shop.address).builds(image)).digests == {"arm64": pinned.partition("@")[2]}
    # With a digest the tag beside it says nothing.
    both = f"{image}@{pinned.partition('@')[2]}"
    assert (await asking(store, shop.address).builds(both)).digests == {"arm64": pinned.partition("@")[2]}


async def test_how_large_a_build_is_is_asked_once(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "large", "1", "amd64", "arm64")
    registry = asking(store, shop.address)
    digest = (await registry.builds(image)).digests["arm64"]
    assert await registry.size(image, digest, ask=False) == 0
    size = await registry.size(image, digest, ask=True)
    manifest = await skopeo.inspect(f"{shop.address}/large@{digest}", plain_http=True)
    assert size == sum(layer["size"] for layer in json.loads(manifest)["layers"]) > 1000
    # From then on nobody needs to ask; who cannot does not know.
    assert await asking(store).size(image, digest, ask=False) == size
    assert await asking(store, timeout_s=0.5).size(image, "sha256:" + "0" * 64, ask=True) == 0


async def test_a_registry_speaks_plain_http_only_when_it_is_named(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "one", "1", "arm64")
    with pytest.raises(LinkDown) as caught:
        await asking(store).builds(image)
    assert "server gave HTTP response to HTTPS client" in str(caught.value)
    assert caught.value.hint == (
        f'to ask it by plain HTTP: [registries] plain_http = ["{shop.address}"] in hub.toml'
    )


async def test_there_is_no_such_image(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "one", "1", "arm64")
    registry = asking(store, shop.address)
    await registry.builds(image)
    for wrong in (image.replace(":1", ":2"), f"{shop.address}/none:1"):
        with pytest.raises(Refused, match="unknown") as caught:
            await registry.builds(wrong)
        assert caught.value.code == "image"


# --- a registry that cannot be asked -----------------------------------------------------------------


async def test_what_was_resolved_stays_resolved(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "kept", "1", "arm64", "amd64")
    with Door(shop) as door:
        through = door.through(image)
        before = await asking(store, door.address).builds(through)
        door.fault = "fail"
        later = await asking(store, door.address, skew_ms=3 * 3_600_000).builds(through)
        assert later.digests == before.digests
        assert f"{through} stays what it was 3" in later.note
        assert "cannot be asked" in later.note
        with pytest.raises(LinkDown, match="cannot be asked"):
            await asking(store, door.address).builds(door.through(push_image(shop, "new", "1", "arm64")))


async def test_a_registry_that_hangs_is_waited_for_so_long(store: Store) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        began_s = time.monotonic()
        with pytest.raises(LinkDown, match=r"has not answered within 0\.5 s"):
            await asking(store, address, timeout_s=0.5).builds(f"{address}/slow:1")
        assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("body", [b"<html>welcome to the wifi</html>", b"[]", b'{"errors":[]}'])
async def test_something_else_answers_in_its_place(store: Store, body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) != b"\x16":  # that would be TLS, which is tried first
            await reader.readuntil(b"\r\n\r\n")
        kind = b"application/vnd.oci.image.manifest.v1+json"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (kind, len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(LinkDown):
            await asking(store, address).builds(f"{address}/odd:1")


async def test_what_a_server_has_written_is_not_told(store: Store) -> None:
    body = b'{"secret": "of the intranet"} \x1b[31m' + b"x" * 500

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) != b"\x16":  # that would be TLS, which is tried first
            asked = await reader.readuntil(b"\r\n\r\n")
            status = b"200 OK" if asked.startswith(b"ET /v2/ ") else b"418 Teapot"
            head = (
                b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            )
            writer.write(head % (status, len(body)) + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises((LinkDown, Refused)) as caught:
            await asking(store, address).builds(f"{address}/odd:1")
    assert "(not shown)" in str(caught.value)
    assert "intranet" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


async def test_only_registries_that_are_allowed_are_asked(store: Store) -> None:
    registry = Registry(store, VAULT, now_ms, allowed=["registry.example", "docker.io"])
    with pytest.raises(Refused, match=r"no image may come from 127\.0\.0\.1:1"):
        await registry.builds("127.0.0.1:1/x:1")


async def test_an_image_by_digest_needs_nobody_to_be_asked(store: Store) -> None:
    image = f"127.0.0.1:1/gone@sha256:{'a' * 64}"
    builds = await asking(store).builds(image)
    assert builds.digests["arm64"] == builds.digests["amd64"] == f"sha256:{'a' * 64}"
    assert "is taken as it is written" in builds.note


async def test_skopeo_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LinkDown, match="skopeo is not installed") as caught:
        await skopeo.inspect("127.0.0.1:1/x:1")
    assert "apt-get install" in caught.value.hint


# --- logins --------------------------------------------------------------------------------------------


async def test_a_private_registry_is_asked_with_its_login(store: Store, private: shops.Registry) -> None:
    image = push_image(private, "secret", "1", "arm64")
    registry, logins = asking(store, private.address), Logins(store, VAULT, now_ms, wake=lambda: None)
    with pytest.raises(Refused, match=r"(?i)unauthorized|authentication") as caught:
        await registry.builds(image)
    assert "lichen registry set" in caught.value.hint
    await logins.set(private.address, USER, "wrong", "ada")
    with pytest.raises(Refused, match=r"(?i)unauthorized|authentication"):
        await registry.builds(image)
    await logins.set(private.address, USER, PASSWORD, "ada")
    assert set((await registry.builds(image)).digests) == {"arm64"}
    await logins.remove(private.address, "bob")
    with pytest.raises(Refused):
        await registry.builds(image)
    with pytest.raises(Refused, match="there is no login"):
        await logins.remove(private.address, "bob")
    async with store.read() as tx:
        texts = [event.text for event in await list_events(tx)]
    assert texts[0] == f"removed the login at {private.address}"
    assert texts[1] == f"set the login of {USER} at {private.address}"
    assert not any(PASSWORD in text for text in texts)


async def test_a_password_is_sealed_at_rest_and_no_argument(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = Logins(store, VAULT, now_ms, wake=lambda: None)
    await logins.set("registry.example:5000", "me", "hush-hush", "ada")
    with pytest.raises(Refused, match="'me:you' is not a user"):  # who "me" with another password would be
        await logins.set("registry.example:5000", "me:you", "hush-hush", "ada")
    async with store.read() as tx:
        [row] = await list_registries(tx)
        assert "hush-hush" not in repr(row)
        assert await read_logins(tx, VAULT) == [RegistryLogin("registry.example:5000", "me", "hush-hush")]
        assert await read_logins(tx, VAULT, ["other"]) == []
    assert "hush-hush" not in repr(RegistryLogin("r", "me", "hush-hush"))
    # What the child sees: a program of that name writes it down.
    spy, seen = tmp_path / "bin" / "skopeo", tmp_path / "seen"
    spy.parent.mkdir()
    spy.write_text(
        '#!/bin/sh\necho "$@" > "$0.args"\nfor a in "$@"; do [ -f "$a" ] && '
        f'{{ cat "$a"; echo; stat -c %a "$a"; }} > {seen}; done; env >> "$0.args"; echo \'{{}}\'\n'
    )
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    login = RegistryLogin("registry.example:5000", "me", "hush-hush")
    assert await skopeo.inspect("registry.example:5000/x:1", login=login) == b"{}\n"
    said = (tmp_path / "bin" / "skopeo.args").read_text()
    assert "docker://registry.example:5000/x:1" in said
    assert "hush-hush" not in said
    assert "bWU6aHVzaC1odXNo" not in said
    document, mode = seen.read_text().split()
    assert json.loads(document)["auths"]["registry.example:5000"]["auth"] == "bWU6aHVzaC1odXNo"
    assert mode == "600"


@pytest.mark.parametrize("name", ["UPPER.example", "http://x", "a/b", "", "x:y", "-a", "a b"])
def test_what_is_no_registry(name: str) -> None:
    with pytest.raises(Refused, match="is not a registry"):
        check_registry(name)


async def test_answers_are_remembered_as_a_whole(store: Store, shop: shops.Registry) -> None:
    image = push_image(shop, "shrinks", "1", "arm64", "amd64")
    with Door(shop) as door:
        registry, through = asking(store, door.address), door.through(image)
        await registry.builds(through)
        push_image(shop, "shrinks", "1", "arm64")
        await registry.builds(through)
        door.fault = "fail"
        assert set((await registry.builds(through)).digests) == {"arm64"}
    assert isinstance(await registry.builds(through), Builds)
