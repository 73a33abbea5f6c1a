"""Sentences with their citations, and how numbers stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["NOTHING", "Section", "Statement", "joined", "named", "number", "size"]


@dataclass(frozen=True)
class Statement:
    """``text`` is one sentence or more, ``cites`` are keys of ``references.bib`` that stand behind the last one."""

    text: str = ""
    cites: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The text with its citations, as pandoc reads them."""
        if not self.cites:
            return self.text
        keys = "; ".join(f"@{key}" for key in self.cites)
        return f"{self.text.removesuffix('.')} [{keys}]."


NOTHING = Statement()


@dataclass(frozen=True)
class Section:
    """A heading and its statements, which make one paragraph; ``table`` is Markdown that follows it."""

    heading: str
    statements: tuple[Statement, ...]
    table: str = ""

    def markdown(self) -> str:
        """The section, or '' where there is nothing to say."""
        told = " ".join(one.markdown() for one in self.statements if one.text)
        body = "\n\n".join(part for part in (told, self.table) if part)
        return f"## {self.heading}\n\n{body}\n" if body else ""

    @property
    def cites(self) -> tuple[str, ...]:
        return tuple(key for one in self.statements if one.text for key in one.cites)


def number(value: float) -> str:
    """A number as a paper prints it: whole numbers whole, others with up to six digits."""
    return str(round(value)) if float(value).is_integer() else f"{value:.6g}"


def size(edges: Sequence[float]) -> str:
    """Edges as ``128 × 128 × 64``."""
    return " × ".join(map(number, edges))


def joined(words: Iterable[str]) -> str:
    """Words as ``a, b and c``."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def named(names: Iterable[str]) -> str:
    """Names that anybody chose, such as those of structures, as words of a sentence: nothing in them is markup."""
    return joined(re.sub(r"([\\`*<>\[\]@])", r"\\\1", " ".join(name.split())) for name in names)
