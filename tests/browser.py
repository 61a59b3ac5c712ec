"""A real Chromium that opens pages from files, and tells of all it is not to do."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
QUIET = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """The Chromium of this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what it did that no page of ours does."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        """Elements there are."""
        return self.page.locator(selector).count()

    def text(self, selector: str) -> str:
        """What an element holds, as it is in the document."""
        return self.page.locator(selector).first.text_content() or ""

    def scroll_through(self) -> None:
        """See one chart after the other, until each is drawn."""
        for number in range(self.count(".plot")):
            plot = f"document.querySelectorAll('.plot')[{number}]"
            self.page.evaluate(f"{plot}.scrollIntoView()")
            self.wait(f"{plot}.dataset.drawn")

    def wait(self, script: str, seconds: float = 60) -> None:
        """Return when a script gives what is true (Playwright's own way needs eval in the page)."""
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(script):
            assert time.monotonic() < deadline, f"not so: {script}; {self.faults}"
            self.page.wait_for_timeout(20)


@contextmanager
def opened(
    browser: Browser, file: Path, place: str = "", *, dark: bool = False, width: int = 1280
) -> Iterator[Opened]:
    """A page opened from its file; `place` is the part of the address from # on."""
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    seen = Opened(page)
    page.on("console", lambda message: seen.faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.faults.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (seen.faults.append("dialog"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "blob:", "data:"))
            or seen.faults.append(f"request: {request.url}")
        ),
    )
    page.goto(f"{file.as_uri()}{place}")
    if "answers" in place:
        page.wait_for_selector("#answers[data-ready]")
    yield seen
    page.close()
