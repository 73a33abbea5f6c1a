"""Sentences with their citations, and the format of numbers in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["NOTHING", "Section", "Statement", "joined", "named", "number", "size"]


@dataclass(frozen=True)
class Statement:
    """``text`` is one or more sentences; ``cites`` are keys of ``references.bib``, cited after the last one."""

    text: str = ""
    cites: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The text with its citations in pandoc's syntax."""
        if not self.cites:
            return self.text
        keys = "; ".join(f"@{key}" for key in self.cites)
        return f"{self.text.removesuffix('.')} [{keys}]."


NOTHING = Statement()


@dataclass(frozen=True)
class Section:
    """A heading and its statements, which form one paragraph; ``table`` is Markdown after it."""

    heading: str
    statements: tuple[Statement, ...]
    table: str = ""

    def markdown(self) -> str:
        """The section as Markdown, or '' if it is empty."""
        told = " ".join(one.markdown() for one in self.statements if one.text)
        body = "\n\n".join(part for part in (told, self.table) if part)
        return f"## {self.heading}\n\n{body}\n" if body else ""

    @property
    def cites(self) -> tuple[str, ...]:
        return tuple(key for one in self.statements if one.text for key in one.cites)


def number(value: float) -> str:
    """A number as printed in a paper: whole numbers as integers, others with up to six digits."""
    return str(round(value)) if float(value).is_integer() else f"{value:.6g}"


def size(edges: Sequence[float]) -> str:
    """Edges as ``128 × 128 × 64``."""
    return " × ".join(map(number, edges))


def joined(words: Iterable[str]) -> str:
    """Words as ``a, b and c``."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def named(names: Iterable[str]) -> str:
    """Names chosen by users, such as of structures, as words of a sentence, with markup escaped."""
    return joined(re.sub(r"([\\`*<>\[\]@])", r"\\\1", " ".join(name.split())) for name in names)
