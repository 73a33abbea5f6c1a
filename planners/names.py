"""Whether a name can be that of one file or folder, on any system: the rule for all names that become paths."""

import re

__all__ = ["LONGEST", "fault_of_name"]

LONGEST = 200  # bytes; file systems take 255, and endings such as _probabilities.npz are added


def fault_of_name(name: object) -> str:
    """What keeps ``name`` from being one plain file name, in words; empty where nothing does.

    Plain means: it stays in its folder wherever it is appended. Blanks and dots alone are refused because Windows drops them at
    the end of a name, so that ``".. "`` is its parent there.
    """
    if not isinstance(name, str):
        return f"a {type(name).__name__} instead of a text"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "no valid text"
    if not name.strip(" ."):
        return "dots and blanks alone" if name else "nothing"
    if odd := re.search(r"[/\\\x00-\x1f\x7f]", name):
        return "a separator of folders" if odd[0] in "/\\" else "a control character"
    if re.match(r"[A-Za-z]:", name):
        return "the letter of a drive"
    return f"{length} bytes, more than {LONGEST}" if length > LONGEST else ""
