"""How Sphinx builds the site: ``make docs``. Offline; warnings are errors."""

from __future__ import annotations

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
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "none"
smartquotes = False  # which would make one dash of the two of a flag
html_theme = "alabaster"
html_theme_options = {"description": _setup["metadata"]["description"], "fixed_sidebar": True, "page_width": "72rem"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False


def _keep_links_within(app: Any, page: str, content: list[str]) -> None:
    path = f"docs/{page}.md"
    if not path.startswith(f"{generate.FOLDER}/"):  # whose links are right already
        content[0] = generate.within_site(content[0], path, path)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _keep_links_within)
