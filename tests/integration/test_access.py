"""Logins: who a secret stands for, how long, and what somebody without one can find out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from agent.wire.errors import ConfigError, Refused
from hub.access.login import DAY_MS, LINK_MS, SESSION_MS, Access
from hub.store import schema
from hub.store.database import Store
from support.blank import new_store

PASSWORD = "correct horse battery"


class Desk:
    """Logins of one hub with the admin ada, and a clock that the test turns."""

    def __init__(self, store: Store, executor: ThreadPoolExecutor) -> None:
        self.at_ms = 1_780_000_000_000
        self.store = store
        self.access = Access(store, lambda: self.at_ms, executor=executor)

    async def refused(self, code: str, secret: str) -> None:
        with pytest.raises(Refused) as caught:
            await self.access.who(secret)
        assert caught.value.code == code

    async def fails(self, code: str, name: str, password: str) -> str:
        with pytest.raises(Refused) as caught:
            await self.access.log_in(name, password)
        assert caught.value.code == code
        return str(caught.value)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with new_store(tmp_path / "hub.db", ("ada", PASSWORD)) as store:
        with ThreadPoolExecutor(1) as executor:
            yield Desk(store, executor)


# --- admins and passwords --------------------------------------------------------------------------------


async def test_a_password_opens_a_session(desk: Desk) -> None:
    secret = await desk.access.log_in("ada", PASSWORD)
    who = await desk.access.who(secret)
    assert (who.admin, who.kind) == ("ada", "session")
    await desk.access.log_out(secret)
    await desk.refused("unauthenticated", secret)
    await desk.access.log_out(secret)


async def test_another_password_ends_sessions_and_leaves_tokens(desk: Desk) -> None:
    await desk.access.create_admin("bob", PASSWORD)
    mine, link = await desk.access.log_in("ada", PASSWORD), await desk.access.new_link("ada")
    theirs, token = await desk.access.log_in("bob", PASSWORD), await desk.access.new_api_token("ada", "cron")
    await desk.access.change_password("ada", "a horse of another colour")
    await desk.refused("unauthenticated", mine)
    assert not await desk.access.link_holds(link)
    assert (await desk.access.who(theirs)).admin == "bob"
    assert (await desk.access.who(token)).admin == "ada"
    await desk.fails("unauthenticated", "ada", PASSWORD)
    await desk.access.log_in("ada", "a horse of another colour")
    with pytest.raises(Refused, match="no admin 'eve'"):
        await desk.access.change_password("eve", PASSWORD)


async def test_names_are_taken_once_and_have_a_form(desk: Desk) -> None:
    with pytest.raises(Refused, match="'ada' already"):
        await desk.access.create_admin("ada", PASSWORD)
    for name in ("", " ", "x" * 65, "a\nb"):
        with pytest.raises(ConfigError, match="not a name"):
            await desk.access.create_admin(name, PASSWORD)
    with pytest.raises(ConfigError, match="at least 10"):
        await desk.access.create_admin("bob", "short")
    assert await desk.access.admins() == ["ada"]


async def test_wrong_name_and_wrong_password_sound_alike(desk: Desk) -> None:
    said = {
        await desk.fails("unauthenticated", "ada", "wrong"),
        await desk.fails("unauthenticated", "nobody", "wrong"),
        await desk.fails("unauthenticated", "", ""),
        await desk.fails("unauthenticated", "\ud800", "\ud800"),
    }
    assert said == {"name and password do not belong together"}


async def test_failures_lock_a_name_for_longer_and_longer(desk: Desk) -> None:
    for _ in range(5):
        await desk.fails("unauthenticated", "ada", "wrong")
    await desk.fails("unauthenticated", "ada", "wrong")
    assert "in 1 s" in await desk.fails("too-many", "ada", PASSWORD)
    desk.at_ms += 1000
    await desk.fails("unauthenticated", "ada", "wrong")
    assert "in 2 s" in await desk.fails("too-many", "ada", PASSWORD)
    # Neither other names nor a link from the hub's own machine are locked.
    await desk.fails("unauthenticated", "bob", "wrong")
    await desk.access.who(await desk.access.redeem_link(await desk.access.new_link("ada")))
    desk.at_ms += 2000
    await desk.access.log_in("ada", PASSWORD)
    await desk.fails("unauthenticated", "ada", "wrong")


async def test_invented_names_do_not_unlock_another(desk: Desk) -> None:
    for _ in range(6):
        await desk.fails("unauthenticated", "ada", "wrong")
    for number in range(1100):
        await desk.fails("unauthenticated", f"nobody {number}", "long" * 1000)  # too long to be hashed
    await desk.fails("too-many", "ada", PASSWORD)


async def test_many_attempts_at_once_are_not_more_than_one_after_the_other(desk: Desk) -> None:
    attempts = [asyncio.create_task(desk.access.log_in("ada", f"wrong {n}")) for n in range(20)]
    done, _ = await asyncio.wait(attempts)
    codes = sorted(task.exception().code for task in done)  # type: ignore[union-attr]
    assert codes == ["too-many"] * 14 + ["unauthenticated"] * 6


async def test_hashing_does_not_hold_up_the_loop(desk: Desk) -> None:
    longest, before = 0.0, time.perf_counter()
    login = asyncio.create_task(desk.access.log_in("ada", PASSWORD))
    while not login.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    assert await login
    assert longest < 0.1


# --- secrets ---------------------------------------------------------------------------------------------


async def test_only_hashes_are_stored(desk: Desk) -> None:
    secrets = [
        PASSWORD,
        await desk.access.log_in("ada", PASSWORD),
        await desk.access.new_link("ada"),
        await desk.access.new_api_token("ada", "ci"),
    ]
    async with desk.store.read() as tx:
        rows = [*await tx.execute(select(schema.credentials)), *await tx.execute(select(schema.admins))]
    assert len(rows) == 4
    assert not [secret for secret in secrets if secret in str(rows)]


async def test_a_session_lasts_thirty_days_from_its_last_use(desk: Desk) -> None:
    secret = await desk.access.log_in("ada", PASSWORD)
    for _ in range(3):
        desk.at_ms += SESSION_MS - DAY_MS
        await desk.access.who(secret)
    desk.at_ms += SESSION_MS
    await desk.refused("unauthenticated", secret)


async def test_a_link_works_once_and_looking_at_it_uses_nothing_up(desk: Desk) -> None:
    link = await desk.access.new_link("ada")
    assert await desk.access.link_holds(link)
    assert await desk.access.link_holds(link)
    await desk.refused("unauthenticated", link)
    session = await desk.access.redeem_link(link)
    assert (await desk.access.who(session)).admin == "ada"
    assert not await desk.access.link_holds(link)
    with pytest.raises(Refused) as caught:
        await desk.access.redeem_link(link)
    assert caught.value.code == "expired"


async def test_of_two_who_redeem_a_link_at_once_one_gets_in(desk: Desk) -> None:
    link = await desk.access.new_link("ada")
    attempts = [asyncio.create_task(desk.access.redeem_link(link)) for _ in range(5)]
    done, _ = await asyncio.wait(attempts)
    assert sum(task.exception() is None for task in done) == 1


async def test_a_link_ends_after_fifteen_minutes(desk: Desk) -> None:
    link = await desk.access.new_link("ada")
    desk.at_ms += LINK_MS
    assert not await desk.access.link_holds(link)
    with pytest.raises(Refused, match="15 minutes"):
        await desk.access.redeem_link(link)


async def test_a_session_or_token_is_no_link(desk: Desk) -> None:
    session = await desk.access.log_in("ada", PASSWORD)
    for secret in (session, await desk.access.new_api_token("ada", "ci"), "nothing"):
        assert not await desk.access.link_holds(secret)
        with pytest.raises(Refused):
            await desk.access.redeem_link(secret)
    await desk.access.who(session)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\ud800", "x" * 65])
async def test_what_is_no_name_for_an_api_token(desk: Desk, name: str) -> None:
    with pytest.raises(Refused, match="not a name"):
        await desk.access.new_api_token("ada", name)


async def test_api_tokens_are_listed_and_revoked_without_being_told(desk: Desk) -> None:
    secret = await desk.access.new_api_token("ada", "ci")
    short = await desk.access.new_api_token("ada", "short", ttl_ms=DAY_MS)
    assert secret.startswith("lichen_")
    assert {token.name for token in await desk.access.list_api_tokens("ada")} == {"ci", "short"}
    who = await desk.access.who(secret, ("token",))
    assert who.kind == "token"
    with pytest.raises(Refused):
        await desk.access.who(secret, ("session",))
    desk.at_ms += DAY_MS
    await desk.refused("unauthenticated", short)
    [left] = await desk.access.list_api_tokens("ada")
    assert left.id == who.id
    with pytest.raises(Refused, match="no API token"):
        await desk.access.revoke_api_token("bob", left.id)
    await desk.access.revoke_api_token("ada", left.id)
    await desk.refused("unauthenticated", secret)


@pytest.mark.parametrize("secret", ["", "x", "\x00", "ü" * 5000, "\ud800"])
async def test_garbage_stands_for_nobody(desk: Desk, secret: str) -> None:
    await desk.refused("unauthenticated", secret)
    await desk.access.log_out(secret)
