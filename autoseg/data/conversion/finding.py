"""The content of a source: the cases that a layout finds, and the files of each, read."""

from __future__ import annotations

import inspect
import os
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from autoseg.data.layouts import LAYOUTS
from autoseg.data.layouts.found import PATHS, FoundDataset
from autoseg.data.layouts.reading import SeenCase, see_cases
from autoseg.engines import map_cases, values_of
from autoseg.errors import AutosegError
from autoseg.options import ConvertOptions, Runtime

__all__ = ["find_source", "read_source"]

LAYOUT_OPTIONS = ("cine", "labels", "channels", "names", "ignore", "derivative", "also", "structures")


def find_source(layout: str, source: Path, options: ConvertOptions) -> tuple[FoundDataset, dict[str, Any]]:
    """(what the layout finds, the options passed to it); an option that the layout lacks is an error."""
    asked = {name: getattr(options, name) for name in LAYOUT_OPTIONS}
    given = {name: value for name, value in asked.items() if value is not None and value is not False}  # 0 is a value
    chosen = {name: os.path.abspath(value) if name in PATHS else value for name, value in given.items()}
    find = LAYOUTS[layout]
    known = [name for name, about in inspect.signature(find).parameters.items() if about.kind is about.KEYWORD_ONLY]
    if unknown := sorted(set(chosen) - set(known)):
        raise AutosegError(f"layout {layout!r} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    if "also" in chosen:
        chosen["also"] = [os.path.abspath(folder) for folder in chosen["also"]]
    if "channels" in chosen:
        chosen["channels"] = list(chosen["channels"])
    return find(source, **chosen), chosen


def read_source(found: FoundDataset, runtime: Runtime) -> list[SeenCase]:
    """Read every case; a fault that is not a finding is raised."""
    groups = [tuple(group) for _, group in groupby(found.cases, key=lambda case: case.images[0].path)]
    outcomes = map_cases(
        partial(see_cases, channels=found.channels),
        groups,
        workers=runtime.workers,
        name=lambda group: group[0].id,
        on_done=runtime.progress("read", len(groups)),
    )
    return [case for cases in values_of(outcomes) for case in cases]
