"""What can go wrong because of input, as exceptions.

Each message names the case or file, what was expected, what was found, and the way out. The command line prints the
message without a traceback and ends with status 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "AutosegError",
    "DatasetError",
    "EngineError",
    "FileError",
    "GeometryError",
    "ModelError",
    "PlanError",
    "REMEDY",
    "TrainingError",
    "blamed_on",
    "reason_of",
    "shown",
]

REMEDY = "Copy or export the file again."


def shown(value: object, most: int = 100) -> str:
    """A value for a message, cut where it is long: numbers of thousands of digits, whole documents."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print whole numbers beyond some digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."


class AutosegError(Exception):
    """The parent of all errors that are about the user's input rather than our mistake."""


class DatasetError(AutosegError):
    """A data set, or its dataset.json, is not usable."""


class FileError(AutosegError):
    """A file cannot be read or written."""


class GeometryError(AutosegError):
    """Grids that should agree do not, or a grid makes no sense."""


class PlanError(AutosegError):
    """A plan does not fit the data, the network or the machine."""


class TrainingError(AutosegError):
    """A training cannot start or go on."""


class ModelError(AutosegError):
    """A model file is damaged, or does not fit the input."""


class EngineError(AutosegError):
    """Who should do the work is not installed, does not answer, or cannot do it."""


@contextmanager
def blamed_on(where: object, expected: str, error: type[AutosegError] = FileError, remedy: str = REMEDY) -> Iterator[None]:
    """Whatever a reader of somebody else's format trips over is a fault of the file, and is told as one; our own errors stay.

    Libraries that decode files raise what they like for damaged ones: this is the one place where that ends.

    Args:
        where: the file, as messages call it.
        expected: what it should have been.
        error: the class to raise.
        remedy: what to do about it, a sentence.
    """
    try:
        yield
    except AutosegError:
        raise
    except Exception as fault:
        raise error(f"{where}: expected {expected}, found: {reason_of(fault)}. {remedy}") from fault


def reason_of(fault: BaseException, most: int = 300) -> str:
    """What an exception of a library says, as one phrase of valid text without a full stop."""
    if isinstance(fault, MemoryError):
        return "more than fits into the free memory"
    lines = [line for line in str(fault).strip().splitlines() if line.strip()]
    text = (lines[-1] if lines else "").strip(" .").encode(errors="backslashreplace").decode()
    if not text or isinstance(fault, LookupError | TypeError | AttributeError):  # which say little without their kind
        text = f"{type(fault).__name__} {text}".strip()
    return text if len(text) <= most else f"{text[: most - 3]}..."
