"""How Sphinx builds the site: ``make docs``. Offline; warnings are errors."""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402 - found by the line above

generate.write_pages()

_setup = ConfigParser()
_setup.read(HERE.parent / "setup.cfg")

project = _setup["metadata"]["name"]
author = "The autoseg team"
release = _setup["metadata"]["version"]
extensions = ["myst_parser", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "gallery_src", "gallery/*.ipynb", "gallery/*.py", "generated/extra"]
suppress_warnings = ["config.cache"]  # functions in the settings of the gallery
html_extra_path = ["generated/extra"]  # what scripts of the gallery wrote for the site
(HERE / html_extra_path[0]).mkdir(parents=True, exist_ok=True)
sphinx_gallery_conf = {
    "examples_dirs": "gallery_src",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "image_scrapers": ("matplotlib",),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 3600,
    "abort_on_example_error": True,
    "backreferences_dir": None,
    "capture_repr": ("_repr_html_",),
}
myst_heading_anchors = 3
highlight_language = "none"
pygments_style = "xcode"  # whose colours all have a contrast of 5 or more
smartquotes = False  # which would make one dash of the two of a flag
html_theme = "alabaster"
html_theme_options = {
    "description": _setup["metadata"]["description"],
    "fixed_sidebar": True,
    "page_width": "72rem",
    "footer_text": "#555",
}
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False


def _keep_links_within(app: Any, page: str, content: list[str]) -> None:
    path = f"docs/{page}.md"
    if not path.startswith(f"{generate.FOLDER}/"):  # whose links are right already
        content[0] = generate.within_site(content[0], path, path)


def _for_everybody(html: str, level: int) -> str:
    """HTML of the theme as screen readers and keyboards need it: levels of headings, and what scrolls can be focused."""
    html = html.replace('<p class="caption" role="heading">', f'<p class="caption" role="heading" aria-level="{level}">')
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = re.sub(r"<table\b", '<div class="wide" role="group" aria-label="Table" tabindex="0"><table', html)
    return html.replace("</table>", "</table></div>")


def _mend_page(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        context["body"] = _for_everybody(context["body"], 2)
    if "toctree" in context:
        toctree = context["toctree"]
        context["toctree"] = lambda **options: _for_everybody(toctree(**options), 3)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", _mend_page)
    app.connect("source-read", _keep_links_within)
