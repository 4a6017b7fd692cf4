"""The built guides: MkDocs has no complaint, every page can be reached, nothing is fetched."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, TimeoutError, sync_playwright

from tests.guides.pages import DOCS, ROOT

OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|"""
    r"""<link[^>]*\srel=["']?(?:stylesheet|preconnect|icon)[^>]*\shref=["']?(?:https?:)?//|"""
    r"""(?:@import|url\()\s*["']?(?:https?:)?//"""
)

# Tables get their frame, in which they scroll, when the page's script has run.
FRAMED = "!document.querySelector('.md-typeset table') || document.querySelector('.md-typeset__table')"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """At which a server of this machine shows the pages."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def test_every_guide_is_a_page_in_the_navigation(site: Path) -> None:
    """A strict build fails for pages that are left out, and for links and anchors that lead nowhere."""
    built = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")} - {"404"}
    assert built == {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}


def test_no_page_asks_for_anything_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = OUTSIDE.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found and found[0]}"


def test_links_to_the_source_are_text_and_links_between_pages_stay(site: Path) -> None:
    text = (site / "data.html").read_text(encoding="utf-8")
    assert "configs/data/default.yaml" in text and "../configs" not in text
    assert 'href="start.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_options_of_commands_are_not_parted_at_their_hyphens(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"{address}/from-scratch.html")
    option = page.locator(".language-bash .whole", has_text="--mfu").first
    assert option.inner_text() == "--mfu" and option.evaluate("span => span.getClientRects().length") == 1
    assert (
        "--mfu 0.3" in page.locator(".language-bash code").first.inner_text()
    )  # what is copied is the command


def test_pages_open_and_are_searched_with_no_other_machine(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/index.html")
    assert page.title() == "Kaskade"
    page.locator(".md-content").get_by_role("link", name="First pictures", exact=True).click()
    page.wait_for_url("**/start.html")
    page.keyboard.press("s")
    page.keyboard.type("checkpoint damaged")
    page.wait_for_selector(".md-search-result__item a")
    assert "troubleshooting" in page.locator(".md-search-result__list").inner_html()
    assert asked and not [url for url in asked if not url.startswith(address)]


def test_pages_are_no_wider_than_the_window(page: Page, address: str, site: Path) -> None:
    """Tables and code scroll by themselves, on a phone too."""
    for path in sorted(site.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(site)}")
        page.wait_for_function(FRAMED)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            try:  # what slides aside at a change of width takes a moment
                page.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=5000)
            except TimeoutError:
                wide = page.evaluate("document.documentElement.scrollWidth")
                pytest.fail(f"{path.name}: {wide} px wide in a window of {width}")
