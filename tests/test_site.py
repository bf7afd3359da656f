"""The site that ``make docs`` builds: without a warning, whole, and alone in a real browser."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag

import pytest

from tests.browser import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/pytest-bpf/pytest-bpf/"
PATIENCE = 60
"""Seconds until a search counts as without an answer."""


class Page(HTMLParser):
    """The links of a page, and what they can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to, and its anchor."""
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name in {"href", "src"}:
                self.links.add(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, just built; a warning is an error, as in ``make docs``."""
    for module in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(module, reason=f"no {module}: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    words = ("--quiet", "--fail-on-warning", "--keep-going", "-d", str(folder / "doctrees"))
    command = (sys.executable, "-m", "sphinx", *words, str(ROOT / "docs"), str(folder / "html"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served: a browser reads no search index of a file."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    lost = []
    for path, page in pages.items():
        for link in page.links:
            target, _, _ = urldefrag(link)[0].partition("?")
            anchor = unquote(urldefrag(link)[1])
            if link.startswith((REPOSITORY + "blob/main/", REPOSITORY + "edit/main/")):
                there = (ROOT / target.split("/main/")[1]).exists()
            elif ":" in target.partition("/")[0]:
                there = target.startswith(("https:", "mailto:", "data:"))
            else:
                place = (path.parent / unquote(target)).resolve() if target else path
                there = place.exists() and (
                    not anchor or place not in pages or anchor in pages[place].anchors
                )
            if not there:
                lost.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 50
    assert not lost


def test_pages_open_and_search_answers_without_network(
    browser: Any, site: Path, address: str
) -> None:
    requests(browser)
    for path in sorted(site.rglob("*.html")):
        browser.get(f"{address}/{path.relative_to(site).as_posix()}")
        assert browser.find_elements("css selector", "article *"), path
    browser.get(f"{address}/search.html?q=lru_hash")
    browser.implicitly_wait(PATIENCE)
    results = browser.find_elements("css selector", "ul.search li a")
    assert any("maps" in str(link.get_attribute("href")) for link in results)
    assert {url for url in requests(browser) if not url.startswith((address, "about:"))} == set()
    log = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in log if "/favicon.ico " not in message] == []


def test_the_site_has_a_dark_side(browser: Any, address: str) -> None:
    colours = set()
    for theme in ("light", "dark"):
        browser.get(f"{address}/index.html")
        browser.execute_script(f"document.body.dataset.theme = '{theme}'")
        script = "return getComputedStyle(document.body).backgroundColor"
        colours.add(browser.execute_script(script))
    assert len(colours) == 2
