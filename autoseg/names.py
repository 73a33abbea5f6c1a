"""Names that become paths: each is one plain file name, or it is refused where it enters.

Case identifiers, data-set, plan, run and model names come from files and options of anybody. Appended to a folder, an absolute
path or one with ``..`` would lead out of it; so they pass here first, and what removes or replaces files asks again.
"""

import re
import shutil
import unicodedata
from pathlib import Path

from autoseg.errors import AutosegError
from planners.names import LONGEST, fault_of_name

__all__ = ["as_file_name", "case_name", "inside", "plain_name", "remove_folder"]


def plain_name(name: str, *, what: str, where: str = "", error: type[AutosegError] = AutosegError) -> str:
    """``name`` itself, if it is one plain file name.

    Args:
        what: what is called so, such as ``case``.
        where: the file or option that the name comes from; it begins the message.
        error: the class to raise.

    Raises:
        AutosegError: the name is empty or too long, or has separators, control characters or the letter of a drive.
    """
    if fault := fault_of_name(name):
        shown = repr(name) if len(repr(name)) <= LONGEST else repr(name)[:LONGEST] + "..."
        raise error(
            f"{where}{': ' if where else ''}{what} {shown}: expected a plain file name, since files are called after it; "
            f"found {fault}. Rename it, without / and \\ and shorter than {LONGEST} bytes"
        )
    return name


def case_name(text: str) -> str:
    """A file's name as that of a case: letters with accents as one sign, which some systems write as one and others as two."""
    return unicodedata.normalize("NFC", text)


def inside(folder: Path, name: str) -> Path:
    """The place in ``folder`` that a record calls ``name``: plain names with ``/`` between them.

    Raises:
        AutosegError: it would lie elsewhere.
    """
    name = str(name)
    for part in name.split("/"):
        plain_name(part, what="file", where=f"{folder}: {name!r} does not lie in it")
    return folder / name


def remove_folder(folder: Path, *, owner: Path) -> None:
    """Remove a folder and all in it, which must lie directly in ``owner``; nothing happens where there is none.

    Raises:
        AutosegError: it lies elsewhere, or is a link to elsewhere.
    """
    if folder != owner / plain_name(folder.name, what="folder", where=str(owner)) or folder.is_symlink():
        raise AutosegError(f"{folder}: expected a folder of {owner} to remove, found another place. Remove it by hand")
    shutil.rmtree(folder, ignore_errors=True)


def as_file_name(text: str, otherwise: str) -> str:
    """A plain file name that resembles any text: letters, digits, dots, dashes, underscores; ``otherwise`` if none is left."""
    name = re.sub(r"[^\w.-]+", "_", text).encode(errors="ignore")[:LONGEST].decode(errors="ignore")
    return name.strip("._") or otherwise
