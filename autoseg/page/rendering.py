"""The templates of the page, in ``templates/``.

Whatever is put into a template is escaped unless it is a piece of HTML that was made here, so that no name in a data set can
become markup. In a template a line break beside a tag or a brace stands for nothing, and one within a sentence for a blank: so
templates are laid out to be read, and the page stays small. ``WHOLE`` names those whose lines are kept.
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
    """Any value as text of an element or of an attribute in quotation marks; HTML that was made here stays as it is."""
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
    """A template with these values."""
    return Markup(_environment().get_template(template).render(values))


@cache
def static(name: str) -> Markup:
    """A file of the page that goes into it as it is, such as its style."""
    return Markup((files("autoseg.page") / name).read_text("utf-8"))
