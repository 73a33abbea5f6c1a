"""The page in Chromium, opened from disk: it opens at once, the panel draws, the buttons save, nothing is fetched."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from autoseg.page.markup import colour_of
from autoseg.page.viewer import find_viewer
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.evaluations import NASTY, write_noisy_page

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(find_viewer() is None, reason="needs the viewer that the Python package ipyniivue brings"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(place):
    return place / "evaluation" / "report.html"


def click(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def stage(browser, tmp_path):
    """The pixels of the panel once it is drawn, as the browser shows them, (rows, columns, 3) uint8."""
    for _ in range(3):  # the viewer draws in one frame, the browser shows it in another
        browser.run("new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(then, 100))))")
    browser.screenshot(tmp_path / "shot.png")
    box = "(({x, y, width, height}) => [x, y, width, height].map(Math.round))"
    x, y, width, height = browser.run(f"{box}(document.getElementById('stage').getBoundingClientRect())")
    image = Image.open(io.BytesIO((tmp_path / "shot.png").read_bytes())).convert("RGB")
    return np.asarray(image)[y : y + height, x : x + width]


def near(pixels, colour, by=40):
    """The share of pixels whose hue is about that of '#rrggbb', whatever the light."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    length = np.linalg.norm(pixels.astype(float), axis=-1)
    cosine = pixels @ wanted / np.maximum(length * np.linalg.norm(wanted), 1)
    return ((cosine > 0.985) & (length > by)).mean()


def choose(browser, name, property_, value):
    """Set a control of the panel as a person would."""
    browser.run(f"document.getElementById('{name}').{property_} = {json.dumps(value)}")
    browser.run(f"document.getElementById('{name}').dispatchEvent(new Event('input'))")


def test_the_panel_draws_scan_mask_and_surfaces_and_nothing_is_fetched(browser, page, tmp_path):
    browser.open(page)
    click(browser, f'[data-case="{NASTY}"] .open-panel')
    browser.wait("['ready', 'failed'].includes(document.getElementById('panel').dataset.state)", 90)
    assert browser.run("document.getElementById('panel').dataset.state") == "ready", browser.errors
    choose(browser, "panel-strength", "value", 1)  # or the bright scan shines through
    pictures = {"all": stage(browser, tmp_path)}
    choose(browser, "panel-mask", "value", "none")
    pictures["surfaces"] = stage(browser, tmp_path)
    choose(browser, "panel-surfaces", "checked", False)
    pictures["scan"] = stage(browser, tmp_path)
    choose(browser, "panel-mask", "value", "prediction")
    pictures["mask"] = stage(browser, tmp_path)
    assert (pictures["scan"].max(axis=-1) > 60).mean() > 0.03  # the background is at 20
    for structure in (0, 1):
        share = {name: near(pixels, colour_of(structure)) for name, pixels in pictures.items()}
        assert min(share["surfaces"], share["mask"]) > 0.002  # each in the colour of the structure
        assert share["scan"] < 0.2 * min(share["surfaces"], share["mask"])
        assert share["all"] > max(share["surfaces"], share["mask"])
    outside = [address for address in browser.requests if not address.startswith(("data:", "blob:null/"))]
    assert outside == [page.absolute().as_uri()]
    assert browser.errors == []


@pytest.mark.slow
def test_the_largest_page_opens_in_two_seconds(browser, monkeypatch, tmp_path):
    write_noisy_page(tmp_path / "report.html", monkeypatch)
    assert (tmp_path / "report.html").stat().st_size > 20e6
    assert min(browser.open(tmp_path / "report.html") for _ in range(3)) < 2
    assert browser.run("document.querySelectorAll('article').length") == 60
    assert browser.errors == []


def test_the_reviews_buttons_save_a_file_and_are_there_after_reopening(browser, page, tmp_path):
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(page)
    click(browser, "article:nth-of-type(2) [data-verdict=bad]")
    click(browser, "article:nth-of-type(3) [data-verdict=good]")
    click(browser, "article:nth-of-type(3) [data-verdict=unsure]")
    field = "document.querySelector('article:nth-of-type(3) .review input')"
    browser.run(f"{field}.value = 'edge <b>?'; {field}.dispatchEvent(new Event('input'))")
    assert browser.run("document.getElementById('review-count').textContent") == "2 of 4 cases reviewed"
    browser.open(page)
    assert browser.run("document.querySelector('article:nth-of-type(2) [data-verdict=bad]').ariaPressed") == "true"
    click(browser, "#review-save")
    saved, end = tmp_path / "review.json", time.monotonic() + 20
    while not saved.is_file() or not saved.stat().st_size:
        assert time.monotonic() < end, browser.errors
        time.sleep(0.1)
    record = json.loads(saved.read_text())
    assert record["cases"] == [
        {"case": "case_b", "verdict": "bad", "comment": ""},
        {"case": NASTY, "verdict": "unsure", "comment": "edge <b>?"},
    ]


def test_without_scripts_everything_but_the_buttons_is_there(tmp_path, page):
    browser = Browser(tmp_path / "profile", scripts=False)
    try:
        browser.open(page)
        hidden = "[...document.querySelectorAll('.review, .review-bar')].map((e) => getComputedStyle(e).display)"
        assert set(browser.run(hidden)) == {"none"}
        assert browser.run("document.querySelectorAll('figure.plane svg').length") == 12
    finally:
        browser.close()


def test_no_script_in_a_name_was_run(browser, page):
    browser.open(page)
    assert browser.run("document.querySelectorAll('script').length") == browser.run(
        "document.querySelectorAll('head > script, body > script').length"
    )
    assert browser.run("document.querySelectorAll('article').length") == 4


@pytest.mark.parametrize("width", [1280, 380])
def test_the_page_is_as_wide_as_the_window(browser, page, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_on_paper_nothing_is_cut_off_and_what_was_folded_is_open(browser, page):
    browser.call("Emulation.setDeviceMetricsOverride", width=718, height=1000, deviceScaleFactor=1, mobile=False)  # A4
    browser.open(page)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        right = "[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right)"
        assert browser.run(f"Math.max(...{right})") <= 719
        seen = "[...document.querySelectorAll('details tbody tr')].map((e) => e.checkVisibility({contentVisibilityAuto: true}))"
        assert set(browser.run(seen)) == {True}
        assert browser.run("document.querySelectorAll('details:not([open]) tbody tr').length") > 0
        assert browser.run("getComputedStyle(document.querySelector('.review')).display") == "none"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
