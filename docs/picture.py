"""The picture of the report in the README: ``python docs/picture.py [DEMO]``.

``make demo`` first. This makes the report of its predictions anew and shows it in Chromium: the scores and the worst case
beside the 3D view. Without Chromium, or without the extra ``page``, there is no picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from autoseg.pipeline import report  # noqa: E402 - found by the line above
from tests.helpers.browser import CHROMIUM, Browser  # noqa: E402

TARGET = ROOT / "docs" / "static" / "report.webp"
WIDTH = 1040  # of the browser's window, in pixels
EDGE = 24  # between the parts
BOX = "(({left, top, right, bottom}) => [left, top, right, bottom].map((v) => Math.round(v)))"


def main(demo: str = "autoseg_demo") -> int:
    """Write the picture of the demo in the folder ``demo``."""
    if CHROMIUM is None:
        print("needs Chromium", file=sys.stderr)
        return 2
    page = report(Path(demo) / "predictions").path
    with TemporaryDirectory() as folder:
        browser = Browser(Path(folder) / "profile", size=(WIDTH, 1000))
        try:
            browser.open(page)
            parts = _parts(browser, Path(folder) / "shot.png")
        finally:
            browser.close()
    scores, case, panel = parts
    case = case.resize((panel.width, round(case.height * panel.width / case.width)))
    height = max(scores.height, panel.height + EDGE + case.height)
    whole = Image.new("RGB", (scores.width + panel.width + 3 * EDGE, height + 2 * EDGE), "white")
    whole.paste(scores, (EDGE, EDGE))
    whole.paste(panel, (scores.width + 2 * EDGE, EDGE))
    whole.paste(case, (scores.width + 2 * EDGE, panel.height + 2 * EDGE))
    whole.resize((1600, round(1600 * whole.height / whole.width)), Image.Resampling.LANCZOS).save(TARGET, quality=72, method=6)
    print(f"{TARGET} ({TARGET.stat().st_size / 1000:.0f} kB)")
    return 0


def _parts(browser: Browser, shot: Path) -> list[Image.Image]:
    """Pictures of the scores, of the first case, and of the panel with its 3D view."""

    def resize(height: int) -> None:
        browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)

    def part(begin: str, end: str) -> Image.Image:
        left, top, _, _ = browser.run(f"{BOX}(document.querySelector({begin!r}).getBoundingClientRect())")
        _, _, right, bottom = browser.run(f"{BOX}(document.querySelector({end!r}).getBoundingClientRect())")
        browser.screenshot(shot)
        with Image.open(shot) as whole:
            return whole.convert("RGB").crop((left, top, right, bottom))

    resize(4000)
    scores = part(".kind", ".plots")
    case = part("article.case .planes", "article.case .planes")
    resize(1080)
    browser.run("document.querySelector('.open-panel').click()")
    browser.wait("['ready', 'failed'].includes(document.getElementById('panel').dataset.state)", 90)
    browser.run("new Promise((then) => setTimeout(then, 1000))")  # the viewer draws in one frame, the browser shows it later
    return [scores, case, part("#stage", "#stage")]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
