"""Exceptions for faults of the input.

Each message names the case or file, what was expected, what was found, and the remedy. The command line prints the
message without a traceback and ends with status 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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
    "every",
    "reason_of",
    "shown",
]

REMEDY = "Copy or export the file again."
T = TypeVar("T")


def shown(value: object, most: int = 100) -> str:
    """The ``repr`` of a value for a message, cut to ``most`` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."


class AutosegError(Exception):
    """Base class of all errors that come from the user's input and not from a bug."""


class DatasetError(AutosegError):
    """A data set, or its dataset.json, is not usable."""


class FileError(AutosegError):
    """A file cannot be read or written."""


class GeometryError(AutosegError):
    """Grids that should agree do not, or a grid makes no sense."""


class PlanError(AutosegError):
    """A plan does not fit the data, the network or the machine."""


class TrainingError(AutosegError):
    """A training run cannot start or continue."""


class ModelError(AutosegError):
    """A model file is damaged, or does not fit the input."""


class EngineError(AutosegError):
    """An engine is unknown, not installed or not reachable, or cannot do the work."""


def every(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all calls.

    Raises:
        AutosegError: with the messages of all calls that raise one; the very error if it is the only one.
    """
    found, faults = list[T](), list[AutosegError]()
    for call in calls:
        try:
            found.append(call())
        except AutosegError as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise AutosegError("\n".join(map(str, faults)))
    return found


@contextmanager
def blamed_on(where: object, expected: str, error: type[AutosegError] = FileError, remedy: str = REMEDY) -> Iterator[None]:
    """Turn any exception of the body, which reads a file with a library, into an error of the file.

    Libraries raise exceptions of any kind for damaged files, and this is the one place that handles them. An AutosegError
    passes unchanged.

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
    """The last line of an exception's message, as valid text without a full stop, cut to ``most`` characters."""
    if isinstance(fault, MemoryError):
        return "more than fits into the free memory"
    lines = [line for line in str(fault).strip().splitlines() if line.strip()]
    text = (lines[-1] if lines else "").strip(" .").encode(errors="backslashreplace").decode()
    if not text or isinstance(fault, LookupError | TypeError | AttributeError):  # their messages say little without the type
        text = f"{type(fault).__name__} {text}".strip()
    return text if len(text) <= most else f"{text[: most - 3]}..."
