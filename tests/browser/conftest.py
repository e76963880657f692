"""One Chromium, one hub and one login for the tests of a module; a fresh visitor for each test.

Anything that the browser complains about on its console fails the test: a forbidden inline
style shows up there and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, StorageState, async_playwright

from support.webhub import WebHub

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHROMIUM = "/usr/bin/chromium-headless-shell"
"""The same engine without the windows of a desktop, which cost a second of processor time per page."""

Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: object) -> AsyncIterator[WebHub]:
    folder: Path = tmp_path_factory.mktemp("hub")  # type: ignore[attr-defined]
    async with WebHub.open(folder) as hub:
        yield hub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(browser: Browser, hub: WebHub) -> StorageState:
    """What a browser keeps of a login by link."""
    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.goto(await hub.login_link())
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(hub.url + "/")
        return await context.storage_state()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, hub: WebHub, session: StorageState) -> AsyncIterator[Visit]:
    """Opens a path in a new visitor's browser, logged in unless told otherwise."""
    complaints: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    async def visit(
        path: str = "/",
        *,
        width: int = 1440,
        height: int = 900,
        dark: bool = False,
        javascript: bool = True,
        login: bool = True,
    ) -> Page:
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
            locale="en-GB",
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",
            storage_state=session if login else None,
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = await context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(hub.url + path)
        return page

    yield visit
    for context in contexts:
        await context.close()
    # A hub that is away, or says no, is part of some tests; the rest is not.
    serious = [text for text in complaints if not text.startswith("Failed to load resource")]
    assert not serious, serious
