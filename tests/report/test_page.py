"""The HTML page in a headless browser: no request leaves it, no console error, tables sort, legible in both themes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_pictures import ERRORS, LATENCY
from tests.report.trees import DETAILS, METRICS, Repository, changed

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
browser_only = pytest.mark.skipif(
    None in (CHROMIUM, DRIVER), reason="chromium and chromedriver are not installed (apt-get install chromium-driver)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = Repository(tmp_path_factory.mktemp("page"))
    (repository.root / "metrics/details/parity_errors.csv").write_text(ERRORS)
    (repository.root / "metrics/details/bench_latency.csv").write_text(LATENCY)
    metrics = changed(METRICS, parity__diff__max_abs=0.03, quantize__size__int8_mb=1.2)
    repository.write(metrics, changed(DETAILS, gate__reason="Parity passed on <img src=http://example.org/x>."))
    printed = repository.report("--base", "main", "--html", "report.html")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == "Wrote report.html.\n"
    return repository.root / "report.html"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


def show(driver: Any, page: Path, theme: str = "light", width: int = 1000) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())


def test_the_page_names_no_address_to_load_from(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    for attribute in ("src=", "srcset=", "<link", "@import", "url(http"):
        assert attribute not in text.replace("&lt;img src=", ""), attribute


@browser_only
def test_no_request_leaves_the_page_and_the_console_is_silent(driver: Any, page: Path) -> None:
    show(driver, page)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    requests = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert set(requests) == {page.as_uri()}
    assert driver.get_log("browser") == []
    assert "<img src=http://example.org/x>" in driver.find_element("tag name", "main").text


@browser_only
def test_a_click_sorts_a_table_and_a_second_reverses_it(driver: Any, page: Path) -> None:
    show(driver, page)
    table = driver.find_element("xpath", "//table[.//th[contains(., 'margin')]]")
    index = 1 + [head.text for head in table.find_elements("tag name", "th")].index("limit")

    def limits() -> list[str]:
        return [cell.text for cell in table.find_elements("css selector", f"tbody td:nth-child({index})")]

    button = table.find_element("css selector", f"th:nth-child({index}) button")
    button.click()
    assert limits() == ["0.01", "0.04", "0.9", "0.97", "–"]
    button.click()
    assert limits() == ["0.97", "0.9", "0.04", "0.01", "–"]


@browser_only
def test_rows_keep_the_name_of_their_group_when_sorted(driver: Any, page: Path) -> None:
    show(driver, page)
    table = driver.find_element("xpath", "//table[.//th[contains(., 'change')]]")
    table.find_element("css selector", "th:nth-child(2) button").click()
    groups = {row.text.split("\n")[0] for row in table.find_elements("css selector", "tbody td:first-child")}
    assert groups == {"Decision", "Size", "Latency", "Memory", "Answers"}


def _luminance(color: str) -> float:
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@browser_only
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(driver: Any, page: Path, theme: str) -> None:
    """WCAG 2.2, 1.4.3: text has a contrast of at least 4.5 to 1, in pictures too."""
    show(driver, page, theme)
    colors = driver.execute_script(
        "const fill = [...document.querySelectorAll('svg text')].map(e => getComputedStyle(e).fill);"
        "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, ...fill]"
    )
    back, *inks = [_luminance(color) for color in colors]
    assert len(inks) > 20
    for ink in inks:
        lighter, darker = max(back, ink), min(back, ink)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5
    assert (back < 0.1) == (theme == "dark")


@browser_only
def test_a_phone_scrolls_tables_and_not_the_page(driver: Any, page: Path) -> None:
    show(driver, page, width=390)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390


@browser_only
def test_points_tell_their_figures_on_hover(driver: Any, page: Path) -> None:
    show(driver, page)
    titles = driver.execute_script("return [...document.querySelectorAll('svg title')].map(e => e.textContent)")
    assert "INT8, this: speed-up 2.0 (1.9 to 2.1), difference 0.03, 1.2 MB" in titles
