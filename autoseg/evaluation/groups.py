"""Groups of cases, such as those of one scanner, site or sex, as a column of a table says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.tables import table_rows
from autoseg.errors import AutosegError

__all__ = ["UNSTATED", "Groups", "read_groups"]

UNSTATED = "not stated"
CASE_COLUMN = "case"


@dataclass(frozen=True)
class Groups:
    """What a ``column`` says of cases: case -> group."""

    column: str = ""
    of: dict[str, str] = field(default_factory=dict)

    def names(self, cases: Iterable[str]) -> tuple[str, ...]:
        """The groups of these cases, sorted; those of which nothing is stated come last."""
        found = {self.of.get(case, UNSTATED) for case in cases}
        return tuple(sorted(found, key=lambda name: (name == UNSTATED, name)))


def read_groups(text: str) -> Groups:
    """The groups that ``FILE:COLUMN`` names.

    Args:
        text: a table with a line of titles, as ``table_rows`` reads it, and the title of one of its columns. Cases are named in
            the column ``case``, in small or capital letters, else in the first one. An empty cell states nothing.

    Raises:
        AutosegError: no such file or column, a case that is in two groups, or no case at all.
    """
    name, _, column = text.rpartition(":")
    if not name or not column:
        raise AutosegError(f"--groups: expected FILE:COLUMN, such as patients.csv:scanner, found {text!r}")
    path = Path(name)
    titles, *rows = table_rows(path) or [[]]
    if column not in titles:
        raise AutosegError(f"{path}: no column {column!r} in it. There are: {', '.join(titles) or 'none'}")
    plain = [title.lower() for title in titles]
    key, value = plain.index(CASE_COLUMN) if CASE_COLUMN in plain else 0, titles.index(column)
    found: dict[str, str] = {}
    for row in rows:
        case, group = (row[place] if place < len(row) else "" for place in (key, value))
        if not case or not group:
            continue
        if found.setdefault(case, group) != group:
            raise AutosegError(f"{path}: case {case!r} is in two groups, {found[case]!r} and {group!r}. Keep one line for it")
    if not found:
        raise AutosegError(f"{path}: gives {column!r} for no case. Expected a line for each, its name under {titles[key]!r}")
    return Groups(column, found)
