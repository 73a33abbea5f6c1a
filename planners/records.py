"""Frozen dataclasses as JSON and back, strictly.

A *record* is a frozen dataclass whose fields are numbers, strings, booleans, ``None``, other records, tuples of these, or
dictionaries by name. ``to_json`` turns one into plain dictionaries and lists; ``from_json`` rebuilds it, refuses unknown and
missing fields, and says where in the file the fault is. That is what lets a person edit a plan by hand without fear.

What is known of a field beyond its type stands in its ``metadata``: ``called("name")`` for a name in the file that is not that
of the field, ``OPTIONAL`` for one that is left out of the file while it has its default, ``REST`` for the dictionary that
holds whatever else the file has.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

__all__ = ["OPTIONAL", "REST", "RecordError", "called", "digest", "from_json", "to_json"]

T = TypeVar("T")
OPTIONAL: Mapping[str, Any] = {"optional": True}
REST: Mapping[str, Any] = {"rest": True}


def called(name: str) -> Mapping[str, Any]:
    """Metadata of a field that has another name in the file."""
    return {"called": name}


class RecordError(ValueError):
    """A JSON value does not fit the record it should become; the message says where."""


def to_json(record: Any) -> Any:
    """The record as dictionaries, lists, numbers and strings (a fresh structure, safe to change)."""
    if dataclasses.is_dataclass(record):
        return _fields_to_json(record)
    if isinstance(record, tuple | list):
        return [to_json(item) for item in record]
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    return record


def _fields_to_json(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.metadata.get("rest"):
            found |= to_json(value)
        elif not (field.metadata.get("optional") and value == _default(field)):
            found[_key(field)] = to_json(value)
    return found


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("called", field.name))


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_json(cls: type[T], data: Any, where: str = "", *, strict: bool = True) -> T:
    """Rebuild a record of class ``cls`` from what ``to_json`` returned.

    Args:
        cls: the frozen dataclass.
        data: a dictionary as read from JSON.
        where: prefix of the location named in errors, such as a file name.
        strict: refuse unknown fields, as in what people edit; else they are passed over, as in results that a newer version
            may have written.

    Raises:
        RecordError: unknown field, missing field without default, or a value of the wrong kind.
    """
    found: T = _build(cls, data, where or cls.__name__, strict)
    return found


def digest(record):
    """Sixteen hexadecimal digits that change whenever the record does (BLAKE2b of its canonical JSON)."""
    text = json.dumps(to_json(record), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _build(kind: Any, value: Any, where: str, strict: bool) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_record(kind, value, where, strict)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(kind):
            return None
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        for option in options[:-1]:
            try:
                return _build(option, value, where, strict)
            except RecordError:
                continue
        return _build(options[-1], value, where, strict)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where, strict)
    if origin is dict:
        return _build_dict(typing.get_args(kind), value, where, strict)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise RecordError(f"{where}: expected {_name(kind)}, found {value!r}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build_record(cls: Any, data: Any, where: str, strict: bool) -> Any:
    if not isinstance(data, dict):
        raise RecordError(f"{where}: expected an object with the fields of {cls.__name__}, found {data!r}")
    hints = _hints(cls)
    fields = {_key(field): field for field in dataclasses.fields(cls)}
    rest = next((key for key, field in fields.items() if field.metadata.get("rest")), None)
    if rest is not None:
        others = {key: value for key, value in data.items() if key == rest or key not in fields}
        data = {key: value for key, value in data.items() if key not in others} | {rest: others}
    unknown = sorted(set(data) - set(fields))
    if unknown and strict:
        raise RecordError(f"{where}: unknown field {unknown[0]!r}. Known: {', '.join(fields)}")
    values = {}
    for key, field in fields.items():
        if key in data:
            values[field.name] = _build(hints[field.name], data[key], f"{where}.{key}", strict)
        elif _default(field) is dataclasses.MISSING:
            raise RecordError(f"{where}: the field {key!r} is missing")
    try:
        return cls(**values)
    except ValueError as fault:
        raise RecordError(f"{where}: {fault}") from fault


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str, strict: bool) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"{where}: expected a list, found {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecordError(f"{where}: expected {len(kinds)} entries, found {len(value)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_build(kind, item, f"{where}[{i}]", strict) for i, (kind, item) in pairs)


def _build_dict(kinds: tuple[Any, ...], value: Any, where: str, strict: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, found {value!r}")
    return {str(key): _build(kinds[1], item, f"{where}.{key}", strict) for key, item in value.items()}


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
