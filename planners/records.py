"""Frozen dataclasses as JSON and back, strictly.

A *record* is a frozen dataclass whose fields are numbers, strings, booleans, ``None``, other records, or tuples of
these. ``to_json`` turns one into plain dictionaries and lists; ``from_json`` rebuilds it, refuses unknown and missing
fields, and says where in the file the fault is. That is what lets a person edit a plan by hand without fear.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing

__all__ = ["RecordError", "digest", "from_json", "to_json"]


class RecordError(ValueError):
    """A JSON value does not fit the record it should become; the message says where."""


def to_json(record):
    """The record as dictionaries, lists, numbers and strings (a fresh structure, safe to change)."""
    if dataclasses.is_dataclass(record):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, tuple | list):
        return [to_json(item) for item in record]
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    return record


def from_json(cls, data, where=""):
    """Rebuild a record of class ``cls`` from what ``to_json`` returned.

    Args:
        cls: the frozen dataclass.
        data: a dictionary as read from JSON.
        where: prefix of the location named in errors, such as a file name.

    Raises:
        RecordError: unknown field, missing field without default, or a value of the wrong kind.
    """
    return _build(cls, data, where or cls.__name__)


def digest(record):
    """Sixteen hexadecimal digits that change whenever the record does (BLAKE2b of its canonical JSON)."""
    text = json.dumps(to_json(record), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _build(kind, value, where):
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_record(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(kind):
            return None
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        for option in options[:-1]:
            try:
                return _build(option, value, where)
            except RecordError:
                continue
        return _build(options[-1], value, where)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise RecordError(f"{where}: expected {_name(kind)}, found {value!r}")


def _build_record(cls, data, where):
    if not isinstance(data, dict):
        raise RecordError(f"{where}: expected an object with the fields of {cls.__name__}, found {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise RecordError(f"{where}: unknown field {unknown[0]!r}. Known: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _build(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f"{where}: the field {name!r} is missing")
    try:
        return cls(**values)
    except ValueError as fault:
        raise RecordError(f"{where}: {fault}") from fault


def _build_tuple(kinds, value, where):
    if not isinstance(value, list | tuple):
        raise RecordError(f"{where}: expected a list, found {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecordError(f"{where}: expected {len(kinds)} entries, found {len(value)}")
    return tuple(_build(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _finite(value: int | float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(f"{where}: expected a finite number, found {number}")
    return number


def _name(kind):
    return getattr(kind, "__name__", str(kind))
