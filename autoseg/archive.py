"""Reading of untrusted zip files, in memory: nothing is unpacked, so the names inside cannot point anywhere."""

from __future__ import annotations

import os
import re
import zipfile
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import IO

from autoseg.errors import ModelError, blamed_on

__all__ = ["read_member", "safe_members"]

AGAIN = "Copy it again from its source"
KINDS = (
    (rb"^$", "an empty file"),
    (rb"^\s*<(!doctype html|html|head)", "a web page"),
    (rb"^version https://git-lfs", "a Git LFS pointer instead of the file"),
)
MAX_RATIO = 100  # uncompressed / compressed bytes of a member; random weights stay below 1.2, a zip bomb is near 1000


def safe_members(
    source: str | os.PathLike[str] | IO[bytes], name: str | Path, *, expected: str = "a model folder or a whole zip"
) -> dict[str, int]:
    """{member: uncompressed bytes} of a zip, once it is clear that all members are safe to read.

    Args:
        source: path or binary file.
        name: what messages call it.
        expected: what messages say was expected.

    Raises:
        ModelError: no zip, or a damaged one; two members of one name, a name that points outside, a member that claims over
            ``MAX_RATIO`` times its compressed bytes (or 1024 bytes if it has fewer).
    """
    try:
        with zipfile.ZipFile(source) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as fault:
        raise ModelError(f"{name}: expected {expected}, found: {_kind(source) or fault}. {AGAIN}") from fault
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise ModelError(f"{name}: expected different names in the archive, found one of them twice. {AGAIN}")
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in info.filename:
            raise ModelError(f"{name}: the member {info.filename!r} points outside the archive; do not trust this file")
        if info.file_size > MAX_RATIO * max(info.compress_size, 1024):
            raise ModelError(
                f"{name}: the member {info.filename!r} claims {info.file_size} bytes from {info.compress_size}; "
                "do not trust this file"
            )
    return {info.filename: info.file_size for info in infos}


def _kind(source: str | os.PathLike[str] | IO[bytes]) -> str | None:
    """What the file is instead of a zip, if that is recognised; otherwise None."""
    try:
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                head = file.read(1024).lower()
        else:
            source.seek(0)
            head = source.read(1024).lower()
    except (OSError, ValueError):
        return None
    return next((kind for sign, kind in KINDS if re.search(sign, head)), None)


def read_member(source: str | os.PathLike[str] | IO[bytes] | zipfile.ZipFile, member: str, name: str | Path) -> bytes:
    """The bytes of a member, at most the size it declares, with its checksum verified. Many members are read faster from an
    open ``ZipFile``, whose list is not read again for each.

    Raises:
        ModelError: the archive or the member is damaged, or there is no such member.
    """
    with (
        blamed_on(f"{name}: {PurePosixPath(member).name}", "a whole member of the archive", ModelError, f"{AGAIN}."),
        nullcontext(source) if isinstance(source, zipfile.ZipFile) else zipfile.ZipFile(source) as archive,
    ):
        return archive.read(member)
