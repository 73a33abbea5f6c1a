"""Names that become paths: each must be one plain file name, or it is refused where it enters.

Names of cases, data sets, plans, runs and models come from untrusted files and options. Appended to a folder, an absolute path
or one with ``..`` would lead out of it. So names are checked here first, and again before files are removed or replaced.

Conversely, a folder is often named after a patient or a user. So files that are passed on contain no folder names, and
``scrubbed`` removes folders from messages.
"""

import re
import shutil
import unicodedata
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError, shown
from planners.names import LONGEST, counted, fault_of_name

__all__ = [
    "LEFT_BY_SYSTEMS",
    "as_file_name",
    "case_name",
    "counted",
    "fault_of_path",
    "first_of",
    "folders_of",
    "inside",
    "is_hidden",
    "plain_name",
    "remove_folder",
    "scrubbed",
    "without_spelling",
]

LONGEST_PART, LONGEST_PATH = 255, 4096  # bytes; on any file system, looking up a longer name or path is an error
LEFT_BY_SYSTEMS = ("__macosx", "thumbs.db", "desktop.ini")  # by unpacking on other systems, and by Windows
_FOLDERS = re.compile(r"""(?<![\w<.])(?:[A-Za-z]:)?(?:[\\/]|\.{1,2}[\\/]|~[\\/])(?:[^\\/\s'",;:()]+[\\/])*(?=[^\\/\s])""")


def plain_name(name: str, *, what: str, where: str = "", error: type[AutosegError] = AutosegError) -> str:
    """``name`` itself, if it is one plain file name.

    Args:
        what: what has this name, such as ``case``.
        where: the file or option that the name comes from; it begins the message.
        error: the class to raise.

    Raises:
        AutosegError: the name is empty or too long, or has separators, control characters or a drive letter.
    """
    if fault := fault_of_name(name):
        raise error(
            f"{where}{': ' if where else ''}{what} {shown(name)}: expected a plain file name, since files are named after it; "
            f"found {fault}. Rename it, without / and \\ and shorter than {LONGEST} bytes"
        )
    return name


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or left by a system (``__MACOSX``, ``Thumbs.db``)."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def fault_of_path(path: str | Path) -> str:
    """Why a path that a file names is invalid, in words; '' if it is valid. Nothing need exist there."""
    text = str(path)
    if "\0" in text:
        return "a zero byte, which a path cannot contain"
    try:
        longest = max(len(part.encode()) for part in (*Path(text).parts, ""))
        length = len(text.encode())
    except UnicodeEncodeError:
        return "text that is not valid Unicode"
    if longest > LONGEST_PART:
        return f"a name of {longest} bytes, more than {LONGEST_PART}"
    return f"{length} bytes, more than {LONGEST_PATH}" if length > LONGEST_PATH else ""


def case_name(text: str) -> str:
    """A file name as a case name, in Unicode NFC: some systems write an accented letter as one character, others as two."""
    return unicodedata.normalize("NFC", text)


def inside(folder: Path, name: str) -> Path:
    """The path in ``folder`` that a record calls ``name``: plain names separated by ``/``.

    Raises:
        AutosegError: it could be elsewhere.
    """
    name = str(name)
    for part in name.split("/"):
        plain_name(part, what="file", where=f"{folder}: {name!r} does not lie in it")
    return folder / name


def remove_folder(folder: Path, *, owner: Path) -> None:
    """Remove a folder with its content; it must be directly in ``owner``, and may be missing.

    Raises:
        AutosegError: it is elsewhere, or a symbolic link.
    """
    if folder != owner / plain_name(folder.name, what="folder", where=str(owner)) or folder.is_symlink():
        raise AutosegError(f"{folder}: expected a folder of {owner} to remove, found another place. Remove it by hand")
    shutil.rmtree(folder, ignore_errors=True)


def as_file_name(text: str, otherwise: str) -> str:
    """A plain file name that resembles a text, of letters, digits, dots, dashes and underscores; or ``otherwise`` if empty."""
    name = re.sub(r"[^\w.-]+", "_", text).encode(errors="ignore")[:LONGEST].decode(errors="ignore")
    return name.strip("._") or otherwise


def without_spelling(text: str) -> str:
    """A name without what people write differently from file to file: letter case, spaces, underscores, and hyphens between
    letters or digits; signs such as the last one of ``CD4+`` and ``CD4-`` stay."""
    return re.sub(r"[\s_]+|(?<=[^\W_])-(?=[^\W_])", "", text.casefold())


def first_of(texts: Iterable[object], most: int, *, between: str = ", ", of: int | None = None) -> str:
    """The first of some texts in a line, and the number of the others: ``a, b and 3 more``.

    Args:
        most: texts that are written.
        between: what stands between them.
        of: how many there are, if ``texts`` are not all.
    """
    every = [str(text) for text in texts]
    others = (len(every) if of is None else of) - len(every[:most])
    return between.join(every[:most]) + (f" and {others} more" if others > 0 else "")


def folders_of(paths: Iterable[str | PathLike[str]]) -> tuple[str, ...]:
    """These folders and all their parents, as given and as absolute paths, for ``scrubbed``."""
    every = {form for path in map(Path, paths) for form in (path, path.absolute())}
    return tuple(sorted({str(folder) for path in every for folder in (path, *path.parents) if folder.name}))


def scrubbed(sentence: str, folders: Iterable[str | Path] = ()) -> str:
    """A sentence without the folders of this machine: only the last name of each path is left.

    Args:
        folders: paths known to occur; they may contain spaces, where the general rule would end a path.
    """
    for folder in sorted({str(folder).rstrip("/\\") for folder in folders} - {"", "."}, key=len, reverse=True):
        if folder not in sentence:  # as most of many cases' folders: a search for a pattern takes a thousand times as long
            continue
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}[\\/](?:[^\\/\s]+[\\/])*", "", sentence)
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", Path(folder).name, sentence)
    return _FOLDERS.sub("", sentence)
