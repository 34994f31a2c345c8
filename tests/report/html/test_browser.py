"""The page in a real browser, headless: Chromium with its chromedriver, driven by selenium."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_lowrank.report import html as report
from onnx_lowrank.spectra import layer_spectra

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM or not DRIVER, reason="no chromium and chromedriver on the path"
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(runs: dict[str, Path], network: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    read = [report.read_run(path) for path in runs.values()]
    chapters = report.sections(read, layer_spectra(network), report.this_machine(read))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.render("A title", chapters), encoding="utf-8")
    return path.as_uri()


def show(browser: Any, address: str, width: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)


def test_the_page_loads_completely_without_errors_or_requests(browser: Any, address: str) -> None:
    browser.get_log("browser")
    show(browser, address, 1100)
    script = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    print(f"loaded after {browser.execute_script(script):.0f} ms")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    sections = browser.execute_script(
        "return [...document.querySelectorAll('main > section')].map("
        "s => [s.id, s.getBoundingClientRect().height])"
    )
    assert [name for name, _ in sections] == [
        *("summary", "frontier", "latency", "layers", "plan", "spectra", "errors", "sweep"),
        *("notes", "environment"),
    ]
    assert all(height > 0 for _, height in sections)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map("
        "s => Math.min(s.getBoundingClientRect().width, s.getBoundingClientRect().height))"
    )
    assert len(drawn) > 5
    assert min(drawn) > 50  # CSS pixels: none has collapsed


@pytest.mark.parametrize("width", [375, 768, 1100])
def test_nothing_sticks_out_of_the_window(browser: Any, address: str, width: int) -> None:
    show(browser, address, width)
    assert browser.execute_script("return window.innerWidth") == width
    whole, seen = browser.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert whole <= seen  # without the scroll bar


def test_the_keyboard_reaches_all_links_and_tables(browser: Any, address: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, address, 375)
    wanted = browser.execute_script("return document.querySelectorAll('a, .scroll').length")
    reached = set()
    for _ in range(wanted):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        style = "const e = document.activeElement, s = getComputedStyle(e);"
        index, outline = browser.execute_script(
            f"{style} return [[...document.querySelectorAll('a, .scroll')].indexOf(e), "
            "s.outlineStyle]"
        )
        assert outline != "none"  # it is seen where the focus is
        reached.add(index)
    assert reached == set(range(wanted))


def test_light_and_dark_can_be_read(browser: Any, address: str) -> None:
    """Text has the contrast that WCAG 2 asks for at level AA, 4.5, and lines of figures 3."""
    for scheme in ("light", "dark"):
        show(browser, address, 1100, scheme)
        names = ["paper", "panel", "ink", "soft", "link", *(f"series-{i}" for i in range(6))]
        style = "getComputedStyle(document.documentElement)"
        colours = {
            name: browser.execute_script(f"return {style}.getPropertyValue('--{name}').trim()")
            for name in names
        }
        for name in ("ink", "soft", "link"):
            for ground in ("paper", "panel"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (scheme, name)
        for index in range(6):
            assert contrast(colours[f"series-{index}"], colours["paper"]) >= 3
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        text = colour.lstrip("#")
        text = "".join(2 * c for c in text) if len(text) == 3 else text
        parts = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_prints(browser: Any, address: str) -> None:
    show(browser, address, 1100, "dark")
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF-")
