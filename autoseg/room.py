"""Disk space, memory and permission to write: checked before the work, and reported with numbers if they run out."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autoseg.control_groups import control_groups
from autoseg.errors import AutosegError, FileError

__all__ = [
    "as_size",
    "check_writable",
    "free_memory",
    "is_want_of_memory",
    "keep_memory",
    "memory_limit",
    "out_of_memory",
    "told_when_full",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
MEMORY = Path("/proc/meminfo")
# files with the limit, the use, and the page cache in it, which the system gives back when it is needed
NEW_GROUP = ("memory.max", "memory.current", ("inactive_file", "active_file"))
OLD_GROUP = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
ALMOST_NOTHING = 64 * 2**20  # bytes; with less than this free, a library's error while writing is blamed on a full disk


def check_writable(folder: Path, needed_bytes: int = 0) -> None:
    """Check that files can be written to a folder, which need not exist yet; nothing is left there.

    Raises:
        FileError: not a folder, not writable, or less than ``needed_bytes`` free; with both numbers and the remedy.
    """
    there = _existing(folder)
    if not there.is_dir():
        raise FileError(f"{there}: expected a folder to write to, found a file. Choose another folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as fault:
        if fault.errno not in FULL:
            raise FileError(f"{folder}: cannot be written: {fault.strerror or fault}. Choose another folder") from fault
        raise _no_room(folder, needed_bytes) from fault
    if shutil.disk_usage(there).free < needed_bytes:
        raise _no_room(folder, needed_bytes)


@contextmanager
def told_when_full(folder: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Turn any error of the body that is due to a full disk into a FileError with the folder, the space needed and free."""
    try:
        yield
    except AutosegError:
        raise
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            is_full = fault.errno in FULL
        else:  # a library that says only that it failed
            is_full = shutil.disk_usage(_existing(folder)).free < min(ALMOST_NOTHING, needed_bytes)
        if not is_full:
            raise
        raise _no_room(folder, needed_bytes) from fault


def memory_limit() -> int | None:
    """Bytes of memory that this process may use: the lowest limit of machine, container and free address space.

    None if it is unknown (Windows).
    """
    return min((*_outside_containers(), *(limit for limit, _ in _containers())), default=None)


def free_memory() -> int | None:
    """Bytes of memory that are free for this process now, on the machine and in its container; None if it is unknown."""
    found = [*_outside_containers(), *(max(0, limit - used) for limit, used in _containers())]
    with suppress(OSError):
        found += [int(line.split()[1]) * 1024 for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:")]
    return min(found, default=None)


def is_want_of_memory(fault: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch has a class for that on GPUs, but none on CPUs."""
    told = str(fault)
    return isinstance(fault, MemoryError) or (
        isinstance(fault, RuntimeError) and ("allocate" in told or "out of memory" in told)
    )


def out_of_memory(fault: BaseException) -> str:
    """A sentence on an exception of ``is_want_of_memory``, with the memory that is free now."""
    line, free = (str(fault).splitlines() or ["no more memory"])[0], free_memory()
    return f"out of memory: {line}" + ("" if free is None else f"; {as_size(free)} are free")


def _outside_containers() -> list[int]:
    """Bytes of the machine, and of the addresses that this process may still use, where they are known."""
    limits = [addresses] if (addresses := _free_addresses()) is not None else []
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return limits


def _containers() -> Iterator[tuple[int, int]]:
    """(bytes allowed, bytes used without the page cache) of each limited control group that this process is in."""
    for folder, is_new in control_groups("memory").items():
        limit_file, use_file, cached = NEW_GROUP if is_new else OLD_GROUP
        limit, used = _number(folder / limit_file), _number(folder / use_file)
        if limit is not None:
            yield limit, max(0, (used or 0) - _sum_of(folder / "memory.stat", cached))


def _sum_of(path: Path, names: Iterable[str]) -> int:
    """The sum of some numbers in a file of lines ``name number``; 0 without such a file."""
    with suppress(OSError, ValueError):
        numbers = dict(line.split(" ", 1) for line in path.read_text().splitlines() if " " in line)
        return sum(int(numbers.get(name, 0)) for name in names)
    return 0


def _free_addresses() -> int | None:
    """Bytes that may still be mapped under a limit of the address space (``ulimit -v``); None if there is no limit."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def _number(path: Path) -> int | None:
    """The number in a file; None if there is no such file, or it holds a word such as ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def as_size(n_bytes: int) -> str:
    """Bytes for people: ``3.2 GiB``."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    folder = Path(folder).absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _no_room(folder: Path, needed_bytes: int) -> FileError:
    free = shutil.disk_usage(_existing(folder)).free
    return FileError(
        f"{folder}: no room left on its disk: at least {as_size(max(needed_bytes, 1))} needed, {as_size(free)} free. Make room "
        "and give the same command again to continue, or choose another folder"
    )


def keep_memory() -> bool:
    """Make glibc keep the memory of large arrays for the next ones, also those of other threads; True on success.

    The system clears memory before it hands it out again. That costs a training run on a CPU a twentieth to half of its time,
    depending on the machine (docs/experiments/step-memory.md), and preparing CT a fifth.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # constants of malloc.h
    chosen = {mmap_max: 0, trim_threshold: 2**31 - 1, top_pad: 256 * 2**20, arena_max: 1}
    told = [libc.mallopt(what, value) for what, value in chosen.items()]
    return all(told)
