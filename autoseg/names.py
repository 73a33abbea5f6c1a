"""Names that become paths: each is one plain file name, or it is refused where it enters.

Case identifiers, data-set, plan, run and model names come from files and options of anybody. Appended to a folder, an absolute
path or one with ``..`` would lead out of it; so they pass here first, and what removes or replaces files asks again.

The other way round, a folder is often called after a patient or a user. What is handed on names files alone, and ``scrubbed``
takes the folders out of its sentences.
"""

import re
import shutil
import unicodedata
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError
from planners.names import LONGEST, fault_of_name

__all__ = [
    "as_file_name",
    "case_name",
    "counted",
    "fault_of_path",
    "folders_of",
    "inside",
    "plain_name",
    "remove_folder",
    "scrubbed",
]

LONGEST_PART, LONGEST_PATH = 255, 4096  # bytes, of any file system; beyond them looking for the file is an error
_FOLDERS = re.compile(r"""(?<![\w<.])(?:[A-Za-z]:)?(?:[\\/]|\.{1,2}[\\/]|~[\\/])(?:[^\\/\s'",;:()]+[\\/])*(?=[^\\/\s])""")


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
            f"{where}{': ' if where else ''}{what} {shown}: expected a plain file name, since files are named after it; "
            f"found {fault}. Rename it, without / and \\ and shorter than {LONGEST} bytes"
        )
    return name


def fault_of_path(path: str | Path) -> str:
    """What keeps a path that a file names from being one, in words; empty where nothing does. The file need not exist."""
    text = str(path)
    if "\0" in text:
        return "a zero byte, which no path has"
    try:
        longest = max(len(part.encode()) for part in (*Path(text).parts, ""))
        length = len(text.encode())
    except UnicodeEncodeError:
        return "no valid text"
    if longest > LONGEST_PART:
        return f"a name of {longest} bytes, more than {LONGEST_PART}"
    return f"{length} bytes, more than {LONGEST_PATH}" if length > LONGEST_PATH else ""


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


def counted(number: int, what: str) -> str:
    """``1 case``, ``2 cases``, ``0 cases``: how many of what has a plural in s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def folders_of(paths: Iterable[str | PathLike[str]]) -> tuple[str, ...]:
    """These folders and all that they lie in, as they are given and from the root on, for ``scrubbed``."""
    every = {form for path in map(Path, paths) for form in (path, path.absolute())}
    return tuple(sorted({str(folder) for path in every for folder in (path, *path.parents) if folder.name}))


def scrubbed(sentence: str, folders: Iterable[str | Path] = ()) -> str:
    """A sentence without the folders of this machine: of a path only the last name is left.

    Args:
        folders: paths known to occur; they may hold blanks, which the general rule takes for the end of a path.
    """
    for folder in sorted({str(folder).rstrip("/\\") for folder in folders} - {"", "."}, key=len, reverse=True):
        if folder not in sentence:  # as most of many cases' folders: a search for a pattern takes a thousand times as long
            continue
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}[\\/](?:[^\\/\s]+[\\/])*", "", sentence)
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", Path(folder).name, sentence)
    return _FOLDERS.sub("", sentence)
