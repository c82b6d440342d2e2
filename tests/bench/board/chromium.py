"""A real Chromium for the tests of the page: the one that Playwright brought, else the system's; without one, tests skip but in CI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "no Chromium: apt-get install chromium, or python -m playwright install chromium, or PERJOULE_CHROMIUM=FILE"


def executable(brought: str) -> str | None:
    """Where Chromium is: PERJOULE_CHROMIUM, Playwright's own, or the system's."""
    named = os.environ.get("PERJOULE_CHROMIUM")
    if named or Path(brought).exists():
        return named or brought
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser. Skips the test that asks without one, and fails it in CI."""
    with sync_playwright() as playwright:
        path = executable(playwright.chromium.executable_path)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page opened from a file, and everything it said or asked for meanwhile."""

    def __init__(self, browser: Browser, file: Path, hash_: str = "", **options: object) -> None:
        self.context: BrowserContext = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        self.file, self.said, self.asked = file, [], []
        self.page: Page = self.tab(hash_)

    def tab(self, hash_: str = "") -> Page:
        """Another tab of the same browser at the same file."""
        page = self.context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.file.as_uri() + hash_)
        page.wait_for_function("globalThis.perjoule !== undefined")
        return page

    def close(self) -> None:
        """Nothing was said on the console, and nothing was asked for but the file itself."""
        self.context.close()
        assert self.said == []
        assert {url.partition("#")[0] for url in self.asked if not url.startswith(("data:", "blob:"))} == {self.file.as_uri()}

    def _console(self, message: ConsoleMessage) -> None:
        self.said.append(f"{message.type}: {message.text}")
