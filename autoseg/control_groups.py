"""The control groups of Linux that this process is in, which limit its memory and its cores (cgroups, v1 and v2).

Jobs of SLURM have a limit some groups below the root; a container usually sees its own group as the root.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["control_groups"]

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def control_groups(controller: str) -> dict[Path, bool]:
    """The folder of each group of this process that may limit ``memory`` or ``cpu``, up to the root; True where it is of v2.

    The folders need not exist.
    """
    own, found = ["0::/", f"0:{controller}:/"], dict[Path, bool]()
    with suppress(OSError):
        own += OWN_GROUPS.read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in own if line.count(":") >= 2):
        if controllers == "" or controller in controllers.split(","):
            root, inner = GROUPS / controller if controllers else GROUPS, Path(path.lstrip("/"))
            found |= {root / group: not controllers for group in (inner, *inner.parents)}
    return found
