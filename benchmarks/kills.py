"""Kill and stop verbs at systematic and random moments, give the same command again each time, and count.

``folds`` are two folds at once.

    PYTHONPATH=. python benchmarks/kills.py [--verbs train,predict] [--seed 2] [--stops 2] [--out benchmarks/results/kills.json]

All of them take half an hour; other verbs keep their entries in OUT. Every repeated command must end with status 0 and leave
the same folder as an undisturbed run: names of files and folders and their contents, without times. The script ends with an
error if one does not. The tests include a few of these.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from machine import about

from tests.helpers.kills import WHOLE, disturb, serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", default=",".join(WHOLE))
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--stops", type=int, default=2, help="with each of SIGINT, SIGTERM and SIGUSR1, for each verb")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known = json.loads(options.out.read_text())["verbs"] if options.out and options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as place, serving(Path(place) / "kills") as server:
        for verb in options.verbs.split(","):
            begun = time.perf_counter()
            done = disturb(server, verb, kills=WHOLE[verb], stops=options.stops, seed=options.seed)
            known[verb] = asdict(done) | {"seed": options.seed, "minutes": round((time.perf_counter() - begun) / 60, 1)}
            print(verb, json.dumps(known[verb]), flush=True)
    total = {count: sum(done[count] for done in known.values()) for count in ("killed", "systematic", "stopped", "late")}
    result = {"machine": about(), "verbs": known, "total": total}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
