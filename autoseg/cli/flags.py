"""Flags made from the fields of options, and options made from the parsed arguments."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from autoseg.options.fields import Flag, descriptions, flag_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["add_flags", "options_from", "told"]

Options = TypeVar("Options", bound="DataclassInstance")


def add_flags(
    parser: argparse.ArgumentParser,
    options: Any,
    *,
    only: Iterable[str] | None = None,
    help: Mapping[str, str] | None = None,  # noqa: A002 - argparse's name
    short: Mapping[str, str] | None = None,
) -> None:
    """Add a flag for each option of a class, or of an instance whose field values are the defaults.

    Args:
        only: fields to add; None for all.
        help: other help texts for fields that mean something special in this verb.
        short: one-letter names for some fields.
    """
    groups: dict[str, Any] = {}
    value, cls = (options(), options) if isinstance(options, type) else (options, type(options))
    meaning = {**descriptions(cls), **(help or {})}
    for field in dataclasses.fields(cls):
        default, flag = getattr(value, field.name), flag_of(field)
        if dataclasses.is_dataclass(default):
            add_flags(parser, default, help=help)
        elif flag and (only is None or field.name in only):
            if flag.group and flag.group not in groups:
                groups[flag.group] = parser.add_mutually_exclusive_group()
            letters = [(short or {})[field.name]] if field.name in (short or {}) else []
            place = groups.get(flag.group, parser)
            given = list(default) if flag.many else default  # argparse appends to a copy
            place.add_argument(
                *letters, flag.name, dest=field.name, default=given, help=meaning[field.name], **_how(flag, default)
            )


def options_from(args: argparse.Namespace, value: Options) -> Options:
    """The options given by the arguments; fields without a flag in this verb keep their values in ``value``."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        old: Any = getattr(value, field.name)
        if dataclasses.is_dataclass(old) and not isinstance(old, type):
            found[field.name] = options_from(args, old)
        elif flag_of(field) and hasattr(args, field.name):
            given = getattr(args, field.name)
            found[field.name] = tuple(given) if isinstance(given, list) else given
    return dataclasses.replace(value, **found)


def _how(flag: Flag, default: Any) -> dict[str, Any]:
    """The keyword arguments for argparse; a switch inverts the default of its field."""
    if flag.parse is None:
        return {"action": "store_false" if default is True else "store_true"}
    how: dict[str, Any] = {"type": told(flag.parse), "metavar": flag.metavar}
    if flag.choices:
        how = {"type": flag.parse, "choices": list(flag.choices)}
    if flag.many:
        how |= {"action": "append"}
    return how | ({} if flag.bare is None else {"nargs": "?", "const": flag.bare})


def told(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same function; argparse then shows its own error message."""

    def parsed(value: str) -> Any:
        try:
            return parse(value)
        except ValueError as fault:
            raise argparse.ArgumentTypeError(str(fault)) from fault

    return parsed
