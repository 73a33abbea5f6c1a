"""Tables written by people: CSV and TSV, as saved by editors, scripts and spreadsheets of any locale."""

from __future__ import annotations

import codecs
import csv
import re
from pathlib import Path

from autoseg.errors import AutosegError

__all__ = ["table_rows", "table_text"]

SEPARATOR = re.compile("sep=(.)", re.IGNORECASE)


def table_text(path: str | Path, *, error: type[AutosegError] = AutosegError) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark, as spreadsheets write it.

    Raises:
        error: unreadable, or not text.
    """
    try:
        raw = Path(path).read_bytes()
        return raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except FileNotFoundError as fault:
        raise error(f"{path}: there is no such file. Correct the path") from fault
    except (OSError, ValueError) as fault:
        raise error(f"{path}: expected a table as text, not readable: {fault}. Save it as CSV in UTF-8") from fault


def table_rows(path: str | Path, *, error: type[AutosegError] = AutosegError) -> list[list[str]]:
    """The cells of each line, separated by commas, semicolons or tabs, whichever is most frequent in the first line.

    Comments and empty lines are skipped, and so is a first line ``sep=;``, with which spreadsheets state the separator.
    """
    lines = [line for line in table_text(path, error=error).splitlines() if line.strip() and not line.startswith("#")]
    told = SEPARATOR.fullmatch(lines[0]) if lines else None
    lines = lines[1:] if told else lines
    divider = told[1] if told else max("\t,;", key=lines[0].count) if lines else ","
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=divider)]
