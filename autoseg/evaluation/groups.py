"""Groups of cases, such as by scanner, site or sex, from a column of a table."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.tables import table_rows
from autoseg.errors import AutosegError
from autoseg.imaging.files import FORMATS, SEGMENTATION, stem_of
from autoseg.names import case_name

__all__ = ["UNSTATED", "Groups", "read_groups"]

UNSTATED = "not stated"
CASE_COLUMN = "case"


@dataclass(frozen=True)
class Groups:
    """The groups in a ``column``: case -> group."""

    column: str = ""
    of: dict[str, str] = field(default_factory=dict)

    def names(self, cases: Iterable[str]) -> tuple[str, ...]:
        """The groups of these cases, sorted; the group of cases without a value is last."""
        found = {self.of.get(case, UNSTATED) for case in cases}
        return tuple(sorted(found, key=lambda name: (name == UNSTATED, name)))

    def among(self, cases: Iterable[str]) -> Groups:
        """The groups of these cases. The table may name the files of cases, with their ending.

        Raises:
            AutosegError: the table names cases, but none of these.
        """
        wanted = set(cases)
        of = {_case(name, wanted): group for name, group in self.of.items()}
        found = {case: of[case] for case in sorted(wanted & set(of))}
        if self.of and wanted and not found:
            raise AutosegError(
                f"--groups: expected {self.column!r} of the cases {_some(wanted)}, found it for others, {_some(self.of)}. "
                f"Name the cases as their files are called, under {CASE_COLUMN!r}"
            )
        return Groups(self.column, found)


def _case(name: str, cases: Container[str]) -> str:
    """The case that a table names, or whose file it names."""
    name = case_name(name)
    return stem_of(name) if name not in cases and name.lower().endswith((*FORMATS, SEGMENTATION)) else name


def _some(names: Iterable[str], limit: int = 3) -> str:
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")


def read_groups(text: str) -> Groups:
    """Read the groups in ``FILE:COLUMN``.

    Args:
        text: a table with a line of titles, as read by ``table_rows``, and the title of one column. Cases are named in the
            column ``case`` (any letter case), else in the first column. An empty cell means no value.

    Raises:
        AutosegError: no such file or column, a case in two groups, or no case at all.
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
