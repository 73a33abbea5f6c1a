"""Fuzzing that follows which lines of a reader run (atheris, libFuzzer): ``make fuzz``, outside the tests.

    python -m tests.fuzz.coverage_guided --seconds 600 [READER ...]

Each reader has a process of its own. A foreign exception is a finding, and so is a crash, more than 2 GiB, or 20 s for a file.
All seconds are of the processor, so that a machine that does much else, or stands still, does not count. Files that led to
something, and those that reached new lines, stay in ``.fuzz/READER``. What was run is a line of
``benchmarks/results/fuzzing.json``; readers that have had so many seconds are passed over, so that a run that was stopped goes
on. Ends with status 1 where something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import operator
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import ModuleType

from tests.fuzz.faults import LONGEST_S, MEMORY_MIB, PLACE, RECORD, ROOT, Faults, is_done, store, time_limit

LARGEST = 1 << 17
STUCK_S = 3600  # of the wall, for a file that waits for ever
WATCHED = ("autoseg", "planners")  # whose lines are followed; those of large libraries take minutes to prepare
COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)  # in the order of Python's numbers
DONE = re.compile(r"stat::number_of_executed_units: +(\d+)|stat::peak_rss_mb: +(\d+)")


def run_reader(name: str, seconds: int) -> None:
    """Within the process of a reader: never returns."""
    import atheris

    forget_comparisons(atheris)
    with atheris.instrument_imports(include=list(WATCHED), enable_loader_override=False):
        from tests.fuzz.targets import TARGETS, read_all
    from tests.fuzz.mutations import changed, random_changes

    target, place = TARGETS[name], PLACE / name
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (place / "corpus" / f"seed-{hashlib.sha1(seed).hexdigest()[:12]}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp()) / "Dataset001_X"
    folder.mkdir()
    target.around(folder)
    print(f"Where a file never comes back, it is {folder / target.file}.", flush=True)
    faults, end = Faults(place), time.process_time() + seconds

    def read(content: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 3 * LONGEST_S)  # ends the process within a library too, where ours cannot act
        try:
            with time_limit():
                read_all(target, target.write(folder, content))
        except Exception as fault:
            faults.add(fault, content)
        if time.process_time() > end:
            signal.raise_signal(signal.SIGUSR1)  # on which libFuzzer tells its numbers and ends with status 0

    def mutated(content: bytes, most: int, seed: int) -> bytes:
        if seed % 3 == 0:
            return bytes(atheris.Mutate(content, most))
        return changed(content, random_changes(random.Random(seed)))[:most]

    warnings.simplefilter("ignore")
    options = [f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={STUCK_S}", f"-max_len={LARGEST}"]
    options += [f"-artifact_prefix={place}/", "-print_final_stats=1", "-verbosity=1", str(place / "corpus")]
    atheris.Setup([sys.argv[0], *options], read, custom_mutator=mutated)
    atheris.Fuzz()


def forget_comparisons(atheris: ModuleType) -> None:
    """Compare arrays without the fuzzer, whose version 3.0.0 never frees what that gives.

    See ``findings/atheris_never_frees_array_comparisons.sh``.
    """
    traced = atheris._trace_cmp

    def compared(left: object, right: object, kind: int, *place: int) -> object:
        if isinstance(left, int | str | bytes) and isinstance(right, int | str | bytes):  # all that it follows
            return traced(left, right, kind, *place)
        return COMPARISONS[kind if sys.version_info < (3, 12) else kind >> 4](left, right)

    atheris._trace_cmp = compared


def watch_reader(name: str, seconds: int) -> dict[str, object]:
    """Start the process of a reader, and again after a crash while there is time; what came of it."""
    place, begin, units, peak, restarts = PLACE / name, spent(), 0, 0, -1
    place.mkdir(parents=True, exist_ok=True)
    before = set(place.glob("*"))
    while (left := seconds - int(spent() - begin)) > 1 and restarts < 20:
        restarts += 1
        with (place / "log.txt").open("w") as log:
            call = [sys.executable, "-m", "tests.fuzz.coverage_guided", "--within", name, "--seconds", str(left)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            status = subprocess.run(call, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
        for executed, most in DONE.findall((place / "log.txt").read_text(errors="replace")):
            units, peak = units + int(executed or 0), max(peak, int(most or 0))
        if status == 0:
            break
        (place / f"ended-{restarts}").write_bytes((place / "log.txt").read_bytes())
    kinds = ("fault-", "crash-", "timeout-", "oom-", "leak-", "ended-")
    found = sorted(path.name for path in set(place.glob("*")) - before if path.name.startswith(kinds) and path.suffix != ".txt")
    seconds = round(spent() - begin)
    return {"reader": name, "executions": units, "seconds": seconds, "peak_mib": peak, "restarts": restarts, "found": found}


def spent() -> float:
    """Seconds of the processor that the processes of readers have taken so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="all where none is named")
    parser.add_argument("--seconds", type=int, default=600, help="of the processor, for each reader")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--within", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.within:
        run_reader(asked.within, asked.seconds)
    from tests.fuzz.targets import TARGETS

    if unknown := [name for name in asked.readers if name not in TARGETS]:
        parser.error(f"no reader {unknown[0]!r}; there are {', '.join(TARGETS)}")
    PLACE.mkdir(exist_ok=True)
    found = 0
    for name in asked.readers or TARGETS:
        if is_done("atheris", name, "seconds", asked.seconds, asked.record):
            continue
        result = watch_reader(name, asked.seconds)
        found += len(result["found"])  # type: ignore[arg-type]
        print(json.dumps(result), flush=True)
        store("atheris", result, asked.record)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
