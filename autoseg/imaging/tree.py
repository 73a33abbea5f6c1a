"""The files of a folder and all its subfolders, symbolic links to folders included."""

import os
from pathlib import Path

__all__ = ["files_under"]


def files_under(folder: Path) -> list[Path]:
    """The sorted paths of everything that is not a folder, as reached from ``folder``.

    A folder that can be reached in several ways, or from within itself, is searched once: by its own path if that is in the
    tree, else by that of the first link. Folders without read permission are skipped; broken links are skipped when
    they are opened.
    """
    found: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        links: list[Path] = []
        for start in waiting:
            if os.path.realpath(start) in seen:
                continue
            for base, folders, names in os.walk(start):
                seen.add(os.path.realpath(base))
                folders.sort()
                links += [Path(base, name) for name in folders if os.path.islink(Path(base, name))]
                folders[:] = [name for name in folders if os.path.realpath(Path(base, name)) not in seen]
                found += [Path(base, name) for name in names]
        waiting = links
    return sorted(found)
