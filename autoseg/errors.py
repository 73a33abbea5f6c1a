"""What can go wrong because of input, as exceptions.

Each message names the case or file, what was expected, what was found, and the way out. The command line prints the
message without a traceback and ends with status 2.
"""

__all__ = ["shown", "AutosegError", "DatasetError", "FileError", "GeometryError", "ModelError", "PlanError", "TrainingError"]


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
