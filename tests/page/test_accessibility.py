"""The page for everybody: the rules of axe-core (WCAG 2.2 AA and good practice), applied in Chromium to what it renders."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from autoseg.page.viewer import find_viewer
from tests.helpers.browser import CHROMIUM, Browser

AXE = find_spec("axe_playwright_python")  # of which the rules are read; nothing of it is run
ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "html"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPEN = "document.querySelectorAll('details').forEach((e) => { e.open = true; })"
LAID_OUT = "document.head.insertAdjacentHTML('beforeend', '<style>.case { content-visibility: visible !important; }</style>')"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(AXE is None, reason="needs the rules of axe-core that the Python package axe-playwright-python brings"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def show(browser, path, scheme, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(path)


def faults(browser):
    """What axe-core finds on the page that is open: (rule, impact, where and why)."""
    browser.run((Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text() + ";1")
    found = "(one) => one.nodes.map((node) => [one.id, one.impact, `${node.target}: ${node.failureSummary}`])"
    asked = json.dumps({"runOnly": RULES})
    return browser.run(f"axe.run(document, {asked}).then((all) => all.violations.flatMap({found}))")


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.skipif(find_viewer() is None, reason="needs the viewer that the Python package ipyniivue brings")
def test_everybody_can_read_and_use_the_page(browser, place, scheme, width):
    show(browser, place / "evaluation" / "report.html", scheme, width)
    browser.run(f"{OPEN}, {LAID_OUT}, 1")
    for case, verdict in enumerate(("good", "unsure", "bad"), 1):
        browser.run(f"document.querySelector('article:nth-of-type({case}) [data-verdict={verdict}]').click()")
    assert browser.run("document.querySelectorAll('.sure .warn').length") > 0
    assert faults(browser) == []
    browser.run("document.getElementById('panel').showModal()")
    assert faults(browser) == []


def test_the_rules_find_what_is_wrong(browser, tmp_path):
    page = tmp_path / "bad.html"
    bad = "<h1>a</h1><h3>b</h3><p style='color:#aaa;background:#fff'>faint</p><img src='data:,'><input>"
    page.write_text(f"<!doctype html><html><head><title>t</title></head><body><main>{bad}</main></body></html>")
    show(browser, page, "light", 1280)
    expected = {"html-has-lang", "heading-order", "color-contrast", "image-alt", "label"}
    assert {rule for rule, _, _ in faults(browser)} >= expected


def test_an_option_in_a_text_of_the_site_is_not_broken_on_a_phone(browser, tmp_path):
    style = "span.pre { white-space: nowrap; }" + (ROOT / "docs" / "static" / "site.css").read_text()  # the first is docutils'
    one = "<code><span class='pre'>--partial</span> <span class='pre'>DIR</span></code>"
    long = f"<code><span class='pre'>{'autoseg_workspace/' * 9}</span></code>"
    text = "".join(
        f"<p>{'so ' * words}{one}</p><table><tr><td>a</td><td>{'so ' * words}{one}</td></tr></table>" for words in range(40)
    )
    body = f"<div class='document'><div class='documentwrapper'><div class='body'>{text}<p>{long}</p></div></div></div>"
    page = tmp_path / "phone.html"
    head = f"<title>t</title><meta name='viewport' content='width=device-width'><style>{style}</style>"
    page.write_text(f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>")
    show(browser, page, "light", 390)
    lines = "Array.from(document.querySelectorAll('.pre'), (one) => [one.textContent, one.offsetHeight])"
    found = browser.run(lines)
    assert len(found) == 161
    assert len({height for text, height in found[:-1]}) == 1
    assert found[-1][1] > 2 * found[0][1], "what is longer than a line is broken"
    assert browser.run("document.documentElement.scrollWidth") <= 390


@pytest.mark.thorough
@pytest.mark.skipif(not SITE.is_dir(), reason="needs the site: make docs")
@pytest.mark.parametrize("width", [1280, 390])
def test_everybody_can_read_and_use_the_site(browser, width):
    pages = ["index", "tutorials/hippocampus", "how-to/surfaces", "generated/commands", "generated/planner", "search"]
    pages += [path.relative_to(SITE).with_suffix("").as_posix() for path in sorted(SITE.glob("gallery/*.html"))]
    there = [SITE / f"{page}.html" for page in pages if (SITE / f"{page}.html").is_file()]
    found = {}
    for path in there:
        show(browser, path, "light", width)
        found[path.name] = faults(browser)
    assert {name: those for name, those in found.items() if those} == {}
