"""Checks that a name is a valid file or folder name on every system, for all names that become paths; and numbers of things."""

import re

__all__ = ["LONGEST", "counted", "fault_of_name"]

LONGEST = 200  # bytes; file systems take 255, and endings such as _probabilities.npz are added


def fault_of_name(name: object) -> str:
    """Why ``name`` is not one plain file name, in words; empty if it is one.

    A plain name stays in the folder to which it is appended. Names of only blanks and dots are refused, because Windows drops
    both at the end of a name, so that ``".. "`` is the parent folder there.
    """
    if not isinstance(name, str):
        return f"a {type(name).__name__} instead of a text"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "text that is not valid Unicode"
    if not name.strip(" ."):
        return "only dots and spaces" if name else "an empty name"
    if odd := re.search(r"[/\\\x00-\x1f\x7f]", name):
        return "a path separator" if odd[0] in "/\\" else "a control character"
    if re.match(r"[A-Za-z]:", name):
        return "a drive letter"
    return f"{length} bytes, more than {LONGEST}" if length > LONGEST else ""


def counted(number: int, what: str) -> str:
    """``1 case``, ``2 cases``, ``0 cases``: a number with its noun, whose plural ends in s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
