"""Tuples with one entry for each axis: always three, in the order that the name or the docstring gives."""

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["Triple", "triple"]

Triple = tuple[int, int, int]
T = TypeVar("T")


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Three values as a tuple; ValueError for fewer or more."""
    first, second, third = values
    return first, second, third
