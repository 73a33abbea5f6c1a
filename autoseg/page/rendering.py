"""The templates of the HTML report, in ``templates/``.

Every value put into a template is escaped unless it is HTML made here (``Markup``), so no name in a data set can become markup.
In a template, a line break next to a tag or brace is removed, and one within text becomes a space. So templates are readable
and the report stays small. Templates in ``WHOLE`` keep their line breaks.
"""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

__all__ = ["render", "static", "text"]

WHOLE = ("page.html", "panel.html", "review.html")
_BESIDE_TAGS, _WITHIN_TEXT = re.compile(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{])"), re.compile(r"\s*\n\s*")


def text(value: Any) -> Markup:
    """Escape a value for the text of an element or for a quoted attribute; ``Markup`` is returned as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


class _Folded(Extension):
    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return source if name in WHOLE else _WITHIN_TEXT.sub(" ", _BESIDE_TAGS.sub("", source.strip()))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("autoseg.page"),
        autoescape=True,
        finalize=text,  # the same entities for quotation marks in templates as in pictures and plots
        undefined=StrictUndefined,
        extensions=[_Folded],
    )


def render(template: str, **values: Any) -> Markup:
    """Render a template with these values."""
    return Markup(_environment().get_template(template).render(values))


@cache
def static(name: str) -> Markup:
    """A file that is included as it is, such as ``style.css``."""
    return Markup((files("autoseg.page") / name).read_text("utf-8"))
