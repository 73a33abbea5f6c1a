"""What a process is at, as the beginning of all that it says meanwhile: ``fold 2: ...``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["said_of", "saying"]

_AT: ContextVar[str] = ContextVar("autoseg_at", default="")


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Have everything that is said in this thread begin with ``what``; '' for nothing."""
    token = _AT.set(what)
    try:
        yield
    finally:
        _AT.reset(token)


def said_of(sentence: str) -> str:
    """A sentence with what it is about before it."""
    what = _AT.get()
    return f"{what}: {sentence}" if what else sentence
