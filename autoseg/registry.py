"""Tables of named parts, with helpful errors for wrong names; other installed packages can add parts.

A package adds a part by an entry point of the group ``autoseg.KIND.v1``: the kind in lower case, with ``_`` for spaces, and
the version of the interface that such a part must have.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from autoseg.errors import AutosegError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Later", "Registry", "unknown"]

T = TypeVar("T")


class Later(str):
    """Where an entry is, as ``module:name``; imported on first use."""


class Registry(MutableMapping[str, T], Generic[T]):
    """Parts of one kind by name: those of the literal, in its order, then those of installed packages.

    Iterating, ``in`` and ``names`` import nothing; looking up a name does. A package never replaces a name of the literal.
    ``registry[name]`` raises an ``AutosegError`` that lists the known names, or names the package that cannot be imported.

    >>> colours = Registry("colour", {"red": 1, "green": 2})
    >>> colours["red"]
    1
    """

    def __init__(self, kind: str, entries: Mapping[str, T | Later]) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._literal = frozenset(entries)

    @property
    def group(self) -> str:
        """Group of the entry points, such as ``autoseg.file_format.v1`` for file formats."""
        return f"autoseg.{self.kind.lower().replace(' ', '_')}.v1"

    def names(self) -> tuple[str, ...]:
        """All names; nothing is imported."""
        return tuple(self)

    def brought_by(self, name: str) -> str:
        """The installed package or packages that add a name; '' for one of our own. Nothing is imported."""
        entries = () if name in self._literal else _brought(self.group).get(name, ())
        return " and ".join(entry.dist.name if entry.dist else entry.value for entry in entries)

    def add(self, name: str, entry: T) -> None:
        """Add an entry at run time; AutosegError: the name is taken."""
        if name in self:
            raise AutosegError(f"a {self.kind} called {name!r} exists already")
        self[name] = entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._entries[name] = self._imported(name)
        entry = self._entries[name]
        if isinstance(entry, Later):
            module, _, attribute = entry.partition(":")
            self._entries[name] = entry = cast(T, getattr(import_module(module), attribute))
        return entry

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in _brought(self.group)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._entries, *_brought(self.group))))

    def __len__(self) -> int:
        return len(self._entries.keys() | _brought(self.group).keys())

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or ``default`` if there is none of that name."""
        return self[name] if name in self else default  # noqa: SIM401 - this is what get is

    def _imported(self, name: str) -> T:
        """The entry that an installed package adds under this name; AutosegError: none, several, or one that fails to load."""
        entries = _brought(self.group).get(name, ())
        if not entries:
            raise AutosegError(unknown(self.kind, name, self))
        whose = [f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value for entry in entries]
        if len(entries) > 1:
            raise AutosegError(f"the {self.kind} {name!r} is brought by {' and by '.join(whose)}. Uninstall one of them")
        try:
            return cast(T, entries[0].load())
        except Exception as fault:
            raise AutosegError(
                f"the {self.kind} {name!r} of the installed package {whose[0]} cannot be loaded: {type(fault).__name__}: "
                f"{fault}. Repair, update or uninstall that package"
            ) from fault


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """A sentence about a name that is not among the known ones, with the nearest of them."""
    known = sorted(set(known))
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"no {kind} called {name!r}.{hint} Known: {', '.join(known)}"


@cache
def _brought(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> the entry points of a group with that name, usually one."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in _installed().select(group=group):
        if entry not in found.get(entry.name, ()):
            found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


@cache
def _installed() -> Any:
    """All entry points; looked up once, on first use."""
    from importlib.metadata import entry_points

    return entry_points()
