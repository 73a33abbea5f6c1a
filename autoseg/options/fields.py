"""Options are values: fields of frozen dataclasses, from which the command line makes its flags.

``option`` declares a field and the spelling of its flag. What the flag does is described once, in the ``Attributes:`` of the
class. A field of another options class adds that class's flags. A field made with plain ``dataclasses.field`` has no flag; it
is for callers in Python.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Flag", "descriptions", "flag_of", "option"]


@dataclass(frozen=True)
class Flag:
    """How an option is spelt on the command line.

    Attributes:
        name: such as ``--no-mirror``; None for ``--`` and the name of the field.
        parse: text -> value; raises ValueError with what was expected and found. None for a switch that takes no text.
        metavar: placeholder in the help.
        choices: the permitted values.
        bare: value of the flag without text, if it may be given alone.
        group: options of one group exclude each other.
        many: may be given several times; the values are collected in a tuple.
    """

    name: str | None = None
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    bare: Any = None
    group: str = ""
    many: bool = False


def option(
    default: Any, parse: Callable[[str], Any] | None = None, metavar: str | None = None, *, name: str | None = None, **more: Any
) -> Any:
    """A field with a flag; the arguments are those of ``Flag``, and the default of the field."""
    return dataclasses.field(default=default, metadata={"flag": Flag(name, parse, metavar, **more)})


def flag_of(field: dataclasses.Field[Any]) -> Flag | None:
    """The Flag of a field with its name filled in; None for a field without one."""
    flag = field.metadata.get("flag")
    return flag and dataclasses.replace(flag, name=flag.name or "--" + field.name.replace("_", "-"))


def descriptions(cls: type, mark: str = "") -> dict[str, str]:
    """{field: description}, from the ``Attributes:`` in the docstring of a class; continued lines are joined.

    One entry may describe several fields, as ``a, b: ...``. ``mark`` replaces the two backticks around code.
    """
    _, _, text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if match := re.fullmatch(r" {4}([\w, ]+): (.+)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.startswith(" " * 8):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: words.replace("``", mark) for name, words in found.items()}
