"""A dictionary that explains itself when a name is wrong, and that other distributions can add to."""

import difflib
from importlib.metadata import entry_points

from autoseg.errors import AutosegError

__all__ = ["Registry"]


class Registry(dict):
    """Names to functions of one kind.

    ``registry[name]`` raises an ``AutosegError`` that lists what is known. Names that are not in the literal are looked
    up among the entry points of the group ``autoseg.KIND``, so that a package can bring its own.

    >>> colours = Registry("colour", {"red": 1, "green": 2})
    >>> colours["red"]
    1
    """

    def __init__(self, kind, entries):
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name):
        for entry in entry_points(group=f"autoseg.{self.kind}"):
            if entry.name == name:
                self[name] = entry.load()
                return self[name]
        close = difflib.get_close_matches(str(name), self, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise AutosegError(f"no {self.kind} called {name!r}.{hint} Known: {', '.join(sorted(self))}")

    def add(self, name, entry):
        """Add an entry at run time; refuses a name that is taken."""
        if name in self:
            raise AutosegError(f"a {self.kind} called {name!r} exists already")
        self[name] = entry
