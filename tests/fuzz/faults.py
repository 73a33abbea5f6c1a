"""What the fuzzers find, and the record of what was run. Nothing of autoseg is imported: atheris must be there before it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import signal
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["LONGEST_S", "MEMORY_MIB", "PLACE", "RECORD", "ROOT", "Faults", "is_done", "store", "time_limit"]

ROOT = Path(__file__).parents[2]
PLACE, RECORD = ROOT / ".fuzz", ROOT / "benchmarks" / "results" / "fuzzing.json"
MEMORY_MIB, LONGEST_S = 2048, 20
PACKAGES = ("hypothesis", "numpy", "nibabel", "SimpleITK", "pydicom", "pillow", "safetensors", "torch", "atheris")


class Faults:
    """Foreign exceptions of a reader, each place in the code once, kept with the file that led there.

    Attributes:
        place: folder for ``fault-N`` (the content) and ``fault-N.txt`` (the traceback).
        found: names of those that this run added.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.found, self._known = place, list[str](), set[tuple[str, str, int]]()
        place.mkdir(parents=True, exist_ok=True)

    def add(self, fault: BaseException, content: bytes) -> None:
        """Keep it, unless one like it is there: the others would end the run."""
        last = traceback.extract_tb(fault.__traceback__)[-1]
        if (where := (type(fault).__name__, last.filename, last.lineno or 0)) in self._known:
            return
        self._known.add(where)
        name = f"fault-{len(list(self.place.glob('fault-*.txt')))}"
        (self.place / name).write_bytes(content)
        (self.place / f"{name}.txt").write_text("".join(traceback.format_exception(fault)))
        self.found.append(name)


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """TimeoutError where one file takes too long, by the time of the processor: the machine may do much else.

    What it ends may catch it (it is an OSError), so it is raised once more behind that.
    """

    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        raise TimeoutError(f"more than {LONGEST_S} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if ended:
            end()


def is_done(kind: str, name: str, counted: str, enough: int, record: Path = RECORD) -> bool:
    """Whether the record says that so much was run of a reader (``counted``: "examples", "seconds"), and nothing found."""
    known = json.loads(record.read_text()).get(kind, []) if record.is_file() else []
    return any(line["reader"] == name and (line[counted] or 0) >= enough and not line["found"] for line in known)


def store(kind: str, result: Mapping[str, Any], record: Path = RECORD) -> None:
    """Put what was run of a reader into the record, in place of an earlier run of the same kind."""
    known = json.loads(record.read_text()) if record.is_file() else {}
    others = [line for line in known.get(kind, []) if line["reader"] != result["reader"]]
    about = {"date": datetime.date.today().isoformat(), "python": platform.python_version(), "cores": os.cpu_count()}
    known |= about | {"versions": known.get("versions", {}) | _versions(), kind: [*others, dict(result)]}
    draft = record.with_suffix(".part")
    draft.write_text(json.dumps(known, indent=1) + "\n")
    draft.replace(record)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
