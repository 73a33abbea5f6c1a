"""Whether a file that is about to be overwritten is ours.

Files written under fixed names into a folder of the user's choice are recognised by their first bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoseg.errors import FileError
from autoseg.imaging.files import FORMATS, SEGMENTATION
from autoseg.imaging.surface_formats import SURFACE_FORMATS
from autoseg.ledger import FOREIGN
from autoseg.room import check_writable

__all__ = ["COMPARISON", "FINDINGS", "MODEL", "OURS", "PAGE", "check_folder", "is_foreign", "refuse_foreign"]

HEAD = 1 << 16  # bytes that are read
PAGE, COMPARISON = "report.html", "comparison.json"
FINDINGS, MODEL = "findings", "model"  # these have names that the user chooses

OURS: dict[str, Callable[[bytes], bool]] = {  # kind of file -> whether a file that begins with these bytes is ours
    "metrics.csv": lambda head: head.startswith(b"case,structure,dice,"),
    "metrics.json": lambda head: head.startswith((b'{\n "labels": {', b'{\n "structures": [')),
    "metrics.md": lambda head: head.startswith(b"# Evaluation\n"),
    "measurements.csv": lambda head: head.startswith(b"case,structure,voxels,"),
    "borders.csv": lambda head: head.startswith(b"case,first,second,faces,"),
    PAGE: lambda head: b'<p class="kind">autoseg report</p>' in head,
    COMPARISON: lambda head: head.startswith(b'{\n "title": ') and b'\n "conditions": [' in head,
    FINDINGS: lambda head: head.startswith((b"[]", b'[\n {\n  "severity": ')),
    MODEL: lambda head: head.startswith(b"PK\3\4") and head[30:40] == b"model.json",  # the first file of the archive
}


def is_foreign(path: Path, kind: str = "") -> bool:
    """Whether something exists at ``path`` that we did not write.

    Args:
        kind: a key of ``OURS``; by default the file's name.
    """
    if not path.is_file():
        return path.exists() or path.is_symlink()
    with path.open("rb") as file:
        return not OURS[kind or path.name](file.read(HEAD))


def refuse_foreign(path: Path, kind: str = "", *, why: str = FOREIGN) -> None:
    """Raise FileError if something exists at ``path`` that we did not write; ``kind`` as in ``is_foreign``."""
    if is_foreign(path, kind):
        raise FileError(f"{path}: {why}")


def check_folder(folder: Path) -> None:
    """Check, before the work, a folder for results that the user named; it need not exist yet, and nothing is left there.

    Raises:
        FileError: there is no such folder, and the name is one of a file; or as ``check_writable``.
    """
    known = (*FORMATS, SEGMENTATION, *(f".{name}" for name in SURFACE_FORMATS), ".json", ".csv", ".html")
    ending = max((ending for ending in known if folder.name.lower().endswith(ending)), key=len, default="")
    if ending and not folder.exists():
        raise FileError(
            f"{folder}: expected a folder for the results, found the name of a file. Name a folder, such as "
            f"{folder.name[: -len(ending)] or 'results'}; autoseg names the files in it"
        )
    check_writable(folder)
