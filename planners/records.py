"""Frozen dataclasses as JSON and back, strictly.

A *record* is a frozen dataclass whose fields are numbers, strings, booleans, ``None``, other records, tuples of these, or
dictionaries by name. ``to_json`` turns one into plain dictionaries and lists; ``from_json`` rebuilds it, refuses unknown and
missing fields, and says where in the file the fault is. So it is safe to edit a plan by hand.

The ``metadata`` of a field says more than its type: ``called("name")`` if the file uses another name than the field,
``OPTIONAL`` if the file leaves the field out while it has its default, ``REST`` for the dictionary that holds everything else
in the file.

Records grow, and older files stay valid. A new field is declared with ``added``: an older file, which lacks it, opens with its
default. A field at its default is not part of ``identity``, so digests do not change. The field declared with
``schema_number`` is the version of the file: older ones open, newer ones are refused.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

__all__ = [
    "OPTIONAL",
    "REST",
    "NewerError",
    "RecordError",
    "added",
    "called",
    "digest",
    "from_json",
    "identity",
    "schema_number",
    "to_json",
]

T = TypeVar("T")
OPTIONAL: Mapping[str, Any] = {"optional": True}
REST: Mapping[str, Any] = {"rest": True}
LONGEST = 200  # characters of a value in a message


def called(name: str) -> Mapping[str, Any]:
    """Metadata for a field that has another name in the file."""
    return {"called": name}


class RecordError(ValueError):
    """A JSON value does not match its record. The message says where."""


class NewerError(RecordError):
    """The file was written by a newer version. The message says so, and what to do."""


def added(since: int, default: T, *, counts: bool = True) -> T:
    """A field that was added to a record with schema ``since`` (2 or more).

    Args:
        since: the ``schema`` of the file that introduced the field.
        default: the value that older files imply. It never changes; another meaning needs another field.
        counts: False if nothing depends on the field. It is then not part of the identity, whatever its value.
    """
    return dataclasses.field(default=default, metadata={"since": since, "counts": counts})


def schema_number(current: int, since: int = 1) -> int:
    """The field that holds the version of the file. ``from_json`` refuses a higher version and reads any other as ``current``.

    It is ignored in comparisons. In the identity it is 1, or left out if the record got the field with schema ``since`` 2.
    """
    return dataclasses.field(default=current, compare=False, metadata={"since": since, "counts": False, "schema": current})


def to_json(record: Any) -> Any:
    """The record as dictionaries, lists, numbers and strings (a fresh structure, safe to change)."""
    return _plain(record, whole=True)


def identity(record: Any) -> Any:
    """``to_json`` without what an older version would not have written. It is equal for records with the same meaning."""
    return _plain(record, whole=False)


def _plain(value: Any, *, whole: bool) -> Any:
    if value.__class__ in (str, int, float, bool):  # the common case
        return value
    if dataclasses.is_dataclass(value):
        return _fields_to_json(value, whole)
    if isinstance(value, tuple | list):
        return [_plain(item, whole=whole) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, whole=whole) for key, item in value.items()}
    return value


def _fields_to_json(record: Any, whole: bool) -> dict[str, Any]:
    """The fields that are written to a file, or those of the identity."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value, about = getattr(record, field.name), field.metadata
        if about.get("rest"):
            found |= _plain(value, whole=whole)
        elif not _is_left_out(field, value, whole):
            found[_key(field)] = 1 if not whole and "schema" in about else _plain(value, whole=whole)
    return found


def _is_left_out(field: dataclasses.Field[Any], value: Any, whole: bool) -> bool:
    about = field.metadata
    if about.get("optional") and value == _default(field):
        return True
    return not whole and about.get("since", 1) > 1 and (value == _default(field) or not about.get("counts", True))


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("called", field.name))


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; MISSING if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_json(cls: type[T], data: Any, where: str = "", *, strict: bool = True) -> T:
    """Rebuild a record of class ``cls`` from what ``to_json`` returned.

    Args:
        cls: the frozen dataclass.
        data: a dictionary as read from JSON.
        where: prefix of the location named in errors, such as a file name.
        strict: refuse unknown fields, for files that people edit. Otherwise ignore them, for results that a newer version may
            have written.

    Raises:
        RecordError: a newer schema, unknown field, missing field without default, or a value of the wrong kind.
    """
    found: T = _build(cls, data, where or cls.__name__, strict)
    return found


def digest(record: Any) -> str:
    """Sixteen hexadecimal digits that change whenever the ``identity`` does (BLAKE2b of its canonical JSON)."""
    text = json.dumps(identity(record), sort_keys=True, separators=(",", ":"))
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
        return _finite(value, where)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise RecordError(f"{where}: expected {_name(kind)}, found {_shown(value)}")


def _shown(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build_record(cls: Any, data: Any, where: str, strict: bool) -> Any:
    if not isinstance(data, dict):
        raise RecordError(f"{where}: expected an object with the fields of {cls.__name__}, found {_shown(data)}")
    hints = _hints(cls)
    fields = {_key(field): field for field in dataclasses.fields(cls)}
    numbers = {key: field.metadata["schema"] for key, field in fields.items() if "schema" in field.metadata}
    for key, known in numbers.items():
        _refuse_newer(data.get(key, known), known, f"{where}.{key}")
    data = {**data, **numbers}  # it will be written with the current schema
    rest = next((key for key, field in fields.items() if field.metadata.get("rest")), None)
    if rest is not None:
        others = {key: value for key, value in data.items() if key == rest or key not in fields}
        data = {key: value for key, value in data.items() if key not in others} | {rest: others}
    unknown = sorted(set(data) - set(fields))
    if unknown and strict:
        raise RecordError(f"{where}: unknown field {_shown(unknown[0])}. Known: {', '.join(fields)}")
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


def _refuse_newer(found: Any, known: int, where: str) -> None:
    if _build(int, found, where, True) > known:
        raise NewerError(f"{where}: written in schema {found} by a newer version, and this one reads up to {known}. Update it")


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str, strict: bool) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"{where}: expected a list, found {_shown(value)}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        if {item.__class__ for item in value} == {kinds[0]} and (kinds[0] in (str, int) or _all_finite(kinds[0], value)):
            return tuple(value)  # fast path: long tuples hold numbers, and most are valid
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecordError(f"{where}: expected {len(kinds)} entries, found {len(value)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_build(kind, item, f"{where}[{i}]", strict) for i, (kind, item) in pairs)


def _all_finite(kind: Any, numbers: list[Any] | tuple[Any, ...]) -> bool:
    return kind is float and all(map(math.isfinite, numbers))


def _finite(value: int | float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(f"{where}: expected a finite number, found {number}")
    return number


def _build_dict(kinds: tuple[Any, ...], value: Any, where: str, strict: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, found {_shown(value)}")
    return {str(key): _build(kinds[1], item, f"{where}.{key}", strict) for key, item in value.items()}


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
