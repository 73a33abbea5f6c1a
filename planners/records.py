"""Frozen dataclasses as JSON and back, strictly.

A *record* is a frozen dataclass whose fields are numbers, strings, booleans, ``None``, other records, or tuples of
these. ``to_json`` turns one into plain dictionaries and lists; ``from_json`` rebuilds it, refuses unknown and missing
fields, and says where in the file the fault is. That is what lets a person edit a plan by hand without fear.

Records grow, and what was written stays valid. A later field is declared with ``added``: an older file, which lacks it, opens
with its default, and at its default it is no part of ``identity``, so digests stay as they were. The field declared with
``schema_number`` says how new a file is: older ones open, newer ones are refused.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

__all__ = ["RecordError", "added", "digest", "from_json", "identity", "schema_number", "to_json"]

T = TypeVar("T")


class RecordError(ValueError):
    """A JSON value does not fit the record it should become; the message says where."""


def added(since: int, default: T, *, counts: bool = True) -> T:
    """A field of a record that came with schema ``since`` (2 or more).

    Args:
        since: the number that the ``schema`` of the file was raised to.
        default: what older files mean by its absence. It never changes: another meaning is another field.
        counts: False where nothing depends on the field, which then is no part of the identity whatever its value.
    """
    return dataclasses.field(default=default, metadata={"since": since, "counts": counts})


def schema_number(current: int, since: int = 1) -> int:
    """The field that holds the version of the file; ``from_json`` refuses a higher one and takes any other as ``current``.

    It is no part of equality. In the identity it stands as 1, or not at all where the record got it with schema ``since`` 2.
    """
    return dataclasses.field(default=current, compare=False, metadata={"since": since, "counts": False, "schema": current})


def to_json(record: Any) -> Any:
    """The record as dictionaries, lists, numbers and strings (a fresh structure, safe to change)."""
    return _plain(record, whole=True)


def identity(record: Any) -> Any:
    """``to_json`` without what an older version would not have written: equal for records that mean the same."""
    return _plain(record, whole=False)


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Rebuild a record of class ``cls`` from what ``to_json`` returned.

    Args:
        cls: the frozen dataclass.
        data: a dictionary as read from JSON.
        where: prefix of the location named in errors, such as a file name.

    Raises:
        RecordError: a newer schema, unknown field, missing field without default, or a value of the wrong kind.
    """
    return typing.cast(T, _build(cls, data, where or cls.__name__))


def digest(record: Any) -> str:
    """Sixteen hexadecimal digits that change whenever the ``identity`` does (BLAKE2b of its canonical JSON)."""
    text = json.dumps(identity(record), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: Any, *, whole: bool) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _plain(one, whole=whole) for name, one in _fields(value, whole)}
    if isinstance(value, tuple | list):
        return [_plain(item, whole=whole) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, whole=whole) for key, item in value.items()}
    return value


def _fields(record: Any, whole: bool) -> Iterator[tuple[str, Any]]:
    """Name and value of each field, all of them or those of the identity."""
    for field in dataclasses.fields(record):
        value, about = getattr(record, field.name), field.metadata
        if not whole and about.get("since", 1) > 1 and (value == field.default or not about["counts"]):
            continue
        yield field.name, 1 if not whole and "schema" in about else value


def _build(kind: Any, value: Any, where: str) -> Any:
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
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise RecordError(f"{where}: expected {_name(kind)}, found {value!r}")


def _build_record(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise RecordError(f"{where}: expected an object with the fields of {cls.__name__}, found {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    numbers = {name: field.metadata["schema"] for name, field in fields.items() if "schema" in field.metadata}
    for name, known in numbers.items():
        _refuse_newer(data.get(name, known), known, f"{where}.{name}")
    data = {**data, **numbers}  # it will be written as new as it is now
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


def _refuse_newer(found: Any, known: int, where: str) -> None:
    if _build(int, found, where) > known:
        raise RecordError(f"{where}: written in schema {found} by a newer version, and this one reads up to {known}. Update it")


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"{where}: expected a list, found {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecordError(f"{where}: expected {len(kinds)} entries, found {len(value)}")
    return tuple(_build(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
