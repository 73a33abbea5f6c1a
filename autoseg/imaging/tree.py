"""The files of a folder and all its subfolders, symbolic links to folders included."""

import os
from collections.abc import Callable
from pathlib import Path

from autoseg.names import LEFT_BY_SYSTEMS, is_hidden

__all__ = ["files_under", "is_closed", "told_closed"]


def files_under(folder: Path, refused: Callable[[OSError], object] | None = None) -> list[Path]:
    """The sorted paths of everything that is not a folder, as reached from ``folder``.

    A folder that can be reached in several ways, or from within itself, is searched once: by its own path if that is in the
    tree, else by that of the first link. Broken links are skipped when they are opened.

    Args:
        folder: Path.
        refused: called for each folder that cannot be read, which is skipped; it may hold scans.
    """
    found: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        links: list[Path] = []
        for start in waiting:
            if os.path.realpath(start) in seen:
                continue
            for base, folders, names in os.walk(start, onerror=refused):
                seen.add(os.path.realpath(base))
                folders[:] = sorted(name for name in folders if name.lower() not in LEFT_BY_SYSTEMS)
                links += [Path(base, name) for name in folders if os.path.islink(Path(base, name))]
                folders[:] = [name for name in folders if os.path.realpath(Path(base, name)) not in seen]
                found += [Path(base, name) for name in names]
        waiting = links
    return sorted(found)


def is_closed(path: Path) -> bool:
    """Whether a file that is not hidden cannot be opened, so that it is unknown whether it belongs to a scan."""
    return not is_hidden(path.name) and not os.access(path, os.R_OK)


def told_closed(fault: OSError) -> str:
    """A sentence about a folder that was skipped."""
    name = Path(fault.filename).name
    return f"left out: {name}: a folder that cannot be read ({fault.strerror}). Change its permissions"
