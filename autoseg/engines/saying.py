"""What a process is doing, as a prefix of its log messages: ``fold 2: ...``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["said_of", "saying"]

_AT: ContextVar[str] = ContextVar("autoseg_at", default="")


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Prefix all messages of this thread with ``what``; '' for no prefix."""
    token = _AT.set(what)
    try:
        yield
    finally:
        _AT.reset(token)


def said_of(sentence: str) -> str:
    """A sentence after the prefix."""
    what = _AT.get()
    return f"{what}: {sentence}" if what else sentence
