"""A headless Chromium for the tests of the review page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.tools.batch import Batch
from pipelines.tools.page.format import ReviewPage
from tests.real_tools.browser.pages import imported

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from pipelines.verdicts.resolve_rows import Resolved

NAMES = ("chromium", "chromium-browser", "google-chrome")
CURE = "install Debian's package chromium, or name a Chromium in SCOUT_CHROMIUM"


# One a package and not a session: Playwright's event loop runs in this thread while it is open, and
# other tests could not start one of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        pytest.fail(f"{error}: install requirements-dev.txt")
    named = os.environ.get("SCOUT_CHROMIUM")
    path = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.fail(f"no {named or 'Chromium'} is installed: {CURE}")
    with sync_playwright() as playwright:
        # The sandbox needs rights that containers do not have; the pages are this project's own.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@dataclass
class Seen:
    """What a browser did that a review page must never do by itself."""

    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def nothing(self, pages: int = 1) -> bool:
        """Tell whether the files themselves were all that was loaded, and nothing complained."""
        own = len(self.requests) <= pages and all(u.startswith("file:") for u in self.requests)
        return own and not self.dialogs and not self.complaints


class Desk:
    """An expert's computer: a browser profile and the pages of a batch on its disk."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser, self._folder = browser, folder
        self._contexts: list[BrowserContext] = []
        self.seen = Seen()

    def context(self, **settings: Any) -> BrowserContext:
        """Return a fresh browser profile."""
        context = self._browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, **settings}
        )
        context.set_default_timeout(10_000)
        self._contexts.append(context)
        return context

    def write(self, batch: Batch, name: str = "review.html") -> str:
        """Write a batch's only page; return its address."""
        [data] = ReviewPage().export(batch).values()
        path = self._folder / name
        path.write_bytes(data)
        return path.as_uri()

    def tab(self, context: BrowserContext, url: str) -> Page:
        """Open a tab that is watched."""
        page = context.new_page()
        seen = self.seen
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda message: seen.complaints.append(message.text))

        def dismiss(dialog: Any) -> None:
            seen.dialogs.append(f"{dialog.type} {dialog.message}")
            dialog.accept()

        page.on("dialog", dismiss)
        page.goto(url)
        return page

    def open(self, batch: Batch, expert: str = "Ann", **settings: Any) -> Page:
        """Open a batch in a fresh profile and start as an expert."""
        page = self.tab(self.context(**settings), self.write(batch))
        if expert:
            sign(page, expert)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def sign(page: Page, expert: str) -> None:
    """Give the name that the page asks for."""
    page.fill("#name", expert)
    page.keyboard.press("Enter")


def save(page: Page, how: Callable[[], None] | None = None) -> bytes:
    """Download the verdicts, by key unless told otherwise."""
    with page.expect_download() as waiting:
        how() if how else page.keyboard.press("d")
    return Path(waiting.value.path()).read_bytes()


def verdicts(page: Page, batch: Batch) -> Resolved:
    """Download and import."""
    return imported(save(page), batch)


@pytest.fixture
def desk(browser: Browser, tmp_path: Path) -> Iterator[Desk]:
    found = Desk(browser, tmp_path)
    yield found
    found.close()
