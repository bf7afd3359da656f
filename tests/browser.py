"""A real browser without a window, whose log has every request."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
"""What Debian and others call it, the first that is there."""


@pytest.fixture(scope="module", name="browser")
def browser_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browsers = [path for name in BROWSERS if (path := shutil.which(name))]
    paths = [next(iter(browsers), None), shutil.which("chromedriver")]
    if None in paths:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(paths[0])
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("browser"))}
    service = webdriver.ChromeService(str(paths[1]), env=environment)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def requests(browser: Any) -> list[str]:
    """Return the addresses that the browser asked for since the last call; not those of data."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"].endswith("WillBeSent")]
    return [url for url in sent if not url.startswith("data:")]
