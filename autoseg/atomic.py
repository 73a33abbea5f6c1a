"""Files that appear whole or not at all."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from autoseg.errors import FileError

__all__ = ["replacing"]


@contextmanager
def replacing(path):
    """A path of the same name in a fresh folder beside ``path``; what is written there moves into place at the end.

    If the body fails nothing is left behind and an earlier file stays as it was. Missing parent folders are made.
    """
    path = Path(path)
    folder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
        yield folder / path.name
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):  # a header after its data file
            with open(part, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(part, path.parent / part.name)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
