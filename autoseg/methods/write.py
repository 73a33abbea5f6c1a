"""Writes ``methods.md`` and ``references.bib`` completely, and never over files of a person or another program.

Each file ends with a comment that contains the digest of the rest. A file without that comment, or edited since, is kept.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.methods.folder import Methods, methods_of
from autoseg.records import ModelAbout
from autoseg.workspace import write_text

__all__ = ["BIBLIOGRAPHY", "METHODS", "try_methods", "write_methods"]

logger = logging.getLogger(__name__)

METHODS, BIBLIOGRAPHY = "methods.md", "references.bib"
MARK = re.compile(r"(?:<!-- autoseg ([0-9a-f]{16}) -->|% autoseg ([0-9a-f]{16}))\n\Z")


def write_methods(folder: Path, methods: Methods) -> tuple[Path, ...]:
    """Write both files; files that are not ours are kept, with a warning, and unchanged files are not touched.

    Args:
        folder: output folder.

    Returns:
        the paths of the files with the current text.

    Raises:
        FileError: the files cannot be written.
    """
    written = []
    texts = {
        METHODS: _marked(methods.text(), "<!-- autoseg {} -->"),
        BIBLIOGRAPHY: _marked(methods.references(), "% autoseg {}"),
    }
    for name, text in texts.items():
        path = folder / name
        there = _read(path)
        if there is not None and not _is_ours(there):
            logger.warning(
                "%s was not written by autoseg, or has been edited since, and stays. Rename it to get a new one", path
            )
            continue
        if there != text:
            write_text(path, text)
        written.append(path)
    return tuple(written)


def try_methods(folder: Path, model: ModelAbout | None = None) -> tuple[Path, ...]:
    """``write_methods`` as the last step of other work: errors are logged, and the work stays done.

    Args:
        folder: folder of records, or of the ``model``.
        model: the model, if it is a model folder.
    """
    try:
        found = methods_of(folder, model)
        if found is None:
            return ()
        return write_methods(folder, found)
    except Exception as fault:  # noqa: BLE001 - finished results must not be lost because of their methods text
        logger.warning("no %s for %s: %s", METHODS, folder, fault if isinstance(fault, AutosegError) else repr(fault))
        return ()


def _read(path: Path) -> str | None:
    """The text of a file; None if it does not exist, '' if it is not a text file."""
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _marked(text: str, comment: str) -> str:
    text = text.rstrip("\n") + "\n\n"
    return f"{text}{comment.format(_digest(text))}\n"


def _is_ours(text: str) -> bool:
    found = MARK.search(text)
    return found is not None and _digest(text[: found.start()]) == (found[1] or found[2])


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
