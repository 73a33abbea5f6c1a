"""The publications that statements cite: entries of ``references.bib`` by their key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from autoseg.errors import AutosegError

__all__ = ["bibliography", "entries"]


@cache
def entries() -> dict[str, str]:
    """{key: BibTeX entry}, in the order of the file."""
    text = (files("autoseg.methods") / "references.bib").read_text(encoding="utf-8")
    found = (entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE))
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in found if entry}


def bibliography(keys: Iterable[str]) -> str:
    """The entries of these keys, each once, in the order of ``references.bib``.

    Raises:
        AutosegError: a key without an entry.
    """
    wanted, known = set(keys), entries()
    for key in sorted(wanted - known.keys()):
        raise AutosegError(f"no publication called {key!r} in references.bib. Known: {', '.join(known)}")
    return "\n\n".join(entry for key, entry in known.items() if key in wanted) + "\n"
