"""Fuzzing by chance, as the tests do it, to the end: 10 000 changed files for each reader (``make nightly``).

    python -m tests.fuzz.by_chance [--examples 10000] [--seconds 600] [READER ...]

Each reader has a process of its own, which may take 2 GiB more than it has after its imports, 20 s of the processor for a file,
and so many for all of them; quick readers come first. What was run is stored after each reader, and readers of which enough was
run are passed over, so that a run that was stopped goes on. Files that led to a foreign exception, and one that ended the
process, stay in ``.fuzz/READER``. Ends with status 1 where something was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.faults import LONGEST_S, MEMORY_MIB, PLACE, RECORD, ROOT, Faults, is_done, store, time_limit
from tests.fuzz.mutations import Change, changed, random_changes
from tests.fuzz.targets import TARGETS, read_all

__all__ = ["changes"]

PATIENCE = 10  # seconds of the wall for each of the processor, on a machine that does much else
changes = st.builds(Change, st.integers(0, 63), st.integers(0, (1 << 20) - 1), st.integers(0, (1 << 16) - 1), st.booleans())


class Enough(KeyboardInterrupt):
    """The time is over; nothing that Hypothesis would take for a failure."""


def run_reader(name: str, folder: Path, examples: int, seconds: float) -> dict[str, Any]:
    """Within the process of a reader: what was run, and the names of what was found."""
    target, faults, done = TARGETS[name], Faults(PLACE / name), 0
    target.around(folder)
    seeds = target.seeds()
    begun = time.process_time()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds), st.integers(0, 2**63))  # nothing is shrunk here, and drawing each change took longest
    def read(seed: bytes, number: int) -> None:
        nonlocal done
        if time.process_time() - begun > seconds:
            raise Enough
        content = changed(seed, random_changes(random.Random(number)))
        try:
            with time_limit():
                read_all(target, target.write(folder, content))
        except Exception as fault:
            faults.add(fault, content)
        done += 1

    with warnings.catch_warnings(), contextlib.suppress(Enough), memory_limit():
        warnings.simplefilter("ignore")  # of libraries about odd values
        read()
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    spent = round(time.process_time() - begun, 1)
    return {"reader": name, "examples": done, "seconds": spent, "peak_mib": peak, "found": faults.found}


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """What has been imported so far does not count."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + (MEMORY_MIB << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def watch_reader(name: str, examples: int, seconds: int) -> dict[str, Any]:
    """Start the process of a reader; its result, or that it ended by itself."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "Dataset001_X"
        folder.mkdir()
        call = [sys.executable, "-m", "tests.fuzz.by_chance", "--within", str(folder), name]
        call += ["--examples", str(examples), "--seconds", str(seconds)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        try:
            ended = subprocess.run(
                call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE * (seconds + LONGEST_S)
            )
            if ended.returncode == 0:
                result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
                return result
            why = f"the process ended with status {ended.returncode}"
            said = ended.stderr
        except subprocess.TimeoutExpired:
            why, said = "the process did not end", ""
        (PLACE / name).mkdir(parents=True, exist_ok=True)
        (PLACE / name / "ended-by-chance.txt").write_text(said)
        with contextlib.suppress(OSError):
            shutil.copyfile(folder / TARGETS[name].file, PLACE / name / "ended-by-chance")
    return {"reader": name, "examples": None, "found": [why]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="all where none is named")
    parser.add_argument("--examples", type=int, default=10_000, help="for each reader")
    parser.add_argument("--seconds", type=int, default=600, help="of the processor, for each reader")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := [name for name in asked.readers if name not in TARGETS]:
        parser.error(f"no reader {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if asked.within:
        print(json.dumps(run_reader(asked.readers[0], asked.within, asked.examples, asked.seconds)))
        return 0
    found = 0
    for name in asked.readers or sorted(TARGETS, key=lambda name: not TARGETS[name].is_quick):
        if is_done("hypothesis", name, "examples", asked.examples, asked.record):
            continue
        result = watch_reader(name, asked.examples, asked.seconds)
        found += len(result["found"])
        print(json.dumps(result), flush=True)
        store("hypothesis", result, asked.record)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
