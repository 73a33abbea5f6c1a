"""Whether another checkout of the project makes the same files, and whether this one continues its interrupted commands.

    PYTHONPATH=. python benchmarks/same_results.py OLD_CHECKOUT [--data HIPPOCAMPUS] [--folder DIR]

Both run the same sequences of commands, on synthetic scans, and on twenty hippocampi if that data set is available. Training
runs have fixed steps, not minutes, and a fixed number format, which a speed test would otherwise choose. A third time, the old
checkout starts each long command and is interrupted halfway, and this one runs it again. Every sequence runs in the same
folder, which is then renamed, so that paths are equal. Every difference counts, unless ``INTENDED`` or ``RENAMED`` says why.
The exit status is 1 if any counts. A sequence whose results are in ``--folder`` is not repeated.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

HERE = Path(__file__).resolve().parent.parent
HIPPOCAMPUS = HERE.parent / "shared" / "data" / "Dataset004_Hippocampus"
SECONDS = r"(^|[/:])(seconds|versions|memory_mib)(/|$)"  # keys that differ between any two runs
SPENT = r"<dt>(time|memory)</dt><dd>[^<]*</dd>"  # the same in HTML reports

RENAMED = (  # "FILE:KEY" now, its former name, why
    (r"fold_(\w+)/fold\.json:", r"fold_\1/run.json:", "a fold's record no longer has the name of a cohort's"),
    (r"scan\.json:/cases/", "scan.json:/", "scans lie in an object, which can be sealed"),
)


def on_one_side(old, new):
    return ABSENT in (old, new)


def within(share):
    def may(old, new):
        try:
            return abs(float(old) - float(new)) <= share * max(abs(float(old)), 1)
        except (TypeError, ValueError):
            return False  # text, or absent

    return may


def anyhow(old, new):
    return True


def inserted(old, new):
    start, end = (len(os.path.commonprefix(pair)) for pair in ((old, new), (old[::-1], new[::-1])))
    return len(old) < len(new) and start + end >= len(old)


def without_folders(old, new):
    return Path(str(old)).name == new


INTENDED = (  # "FILE:KEY", what may differ, why
    (r"\.lock:", on_one_side, "empty files, locked by the operating system"),
    (r"(fingerprints/\w+/\w+|/model|/case)\.json:/seal", on_one_side, "a digest of the file in itself: damage is noticed"),
    (r"prepared/.*/case\.json:/files/", on_one_side, "digests of prepared arrays: damage is noticed"),
    (r"model\.json:/(schema|weights/\d+/learned_from/)", on_one_side, "cases that a fold learned from"),
    (r"run\.json:/cases/[^/]+/(device|precision)", on_one_side, "of each case, since shards may differ"),
    (r"/schema$", anyhow, "fields of records that are younger"),
    (
        r"/(overwrite|orientation|fill_holes|clip|window_peak|label_centres_mm/.*)$",
        on_one_side,
        "fields of records that are younger",
    ),
    (r"fold_\w+/report\.html:", inserted, "what was settled for the training, with the rule"),
    (r"fold_\w+/run\.json:/decisions/", on_one_side, "what was settled for the training, with the rule"),
    (r"_surfaces/scores\.json:", on_one_side, "scores of surfaces have a file of their own"),
    (r"/[^/]+\.json:/surface_scores/", on_one_side, "scores of surfaces are no longer added to a finished record"),
    (
        r":/measurements/[^/]+/(surface_area|mesh_vol|longest_d|spheric)",
        within(1e-9),
        "last digits: volume and area by trimesh",
    ),
    (r"metrics\.(csv|json):.*surface_", within(1e-9), "last digits: surfaces are moved until they enclose their volume"),
    (r"scene\.glb", anyhow, "vertices are metres, so that programs that ignore the nodes of a scene show the right size too"),
    (r"_calibration\.npz", on_one_side, "voxels by which probabilities are calibrated"),
    (r"summary\.json:/metric_per_case/\d+/\w+_file|metrics\.json:/files/", anyhow, "files without their folders"),
    (r"metrics\.md:", anyhow, "significant digits, which tell small distances too"),
    (r"report\.html:", anyhow, "a box says how sure a prediction is"),
    (r"run\.json:/model/name|/\w+\.json:/source$", without_folders, "files without their folders"),
    (r"conversion\.jsonl:/None/(options/|source)", on_one_side, "folders of the user's are not passed on"),
    (r"conversion\.jsonl:/[^/]+/call", on_one_side, "a digest of the call, which named folders before"),
    (r"/(methods\.md|references\.bib):|model\.json:/beside", on_one_side, "a text of the methods lies beside each result"),
    (
        r"run\.json:/task/(batches_at_once|recipe/(devices_exponent|divide_batch|freeze_until))",
        on_one_side,
        "fields of records that are younger",
    ),
    (r"/model/about/(channels|info|labels)/|model\.json:/info/", on_one_side, "what a methods text says of a model"),
    (r"metrics\.json:/structures/.*/(low|high)$", within(1e-6), "intervals that end at 0, without the rounding of float32"),
    (r"_iso\.nii\.gz:", anyhow, "isotropic label maps: what is surely inside is decided once, also where structures touch"),
    (r"borders\.csv:|\.json:/borders/", on_one_side, "the border that structures share is measured"),
    (r"run\.json:/applied/", on_one_side, "what was done for the device"),
    (r"scan\.json:.*/percentiles/", on_one_side, "what later scans are compared with"),
    (r"/(coarse|temperatures|windows|scans|weights/\d+/network)(/|$)", on_one_side, "fields of records that are younger"),
    (
        r"\.nii\.gz:/header_text|\.json:/(cases/.*/)?outputs/.*\.nii\.gz$",
        anyhow,
        "free text of the scan's header is not passed on",
    ),
    (r"measurements\.csv:", within(1e-4), "significant digits, which tell small structures too, instead of four decimals"),
)
INTERRUPTED = (  # the same for interrupted commands
    (r"/\.writing-", on_one_side, "drafts of a killed command, which the old checkout left lying too"),
    (r"run\.json:/cases/[^/]+/status", anyhow, "done before the interruption, and left alone"),
    (r"history\.jsonl:/\d+/train_loss", anyhow, "mean since the check before, of which an interruption forgets a part"),
    (r"fold_\w+/(curves\.png|report\.html):", anyhow, "curves of that mean"),
)
KINDS = (  # rows of the table, by "FILE"
    ("data set, converted", "raw/"),
    ("fingerprints and plans", "/(fingerprints|plans)/"),
    ("prepared cases", "/prepared/"),
    ("weights", r"\.safetensors"),
    ("surfaces", "_surfaces/"),
    ("isotropic volumes", "_iso(_cubic)?\\."),
    ("attention maps", "_attention/"),
    ("probabilities", r"\.npz"),
    ("masks", r"/[^/]+\.nii\.gz"),
    ("scores", r"/(metrics\.|summary|restoration)"),
    ("pages", r"report\.html"),
    ("measurements and records", ""),
)

DRAW = """from autoseg.phantoms import STRUCTURES, write_phantoms
from autoseg.workspace import write_json
write_phantoms("scans", training=10, test=4, in_plane_mm=4.0)
write_json("names.json", {name: number for number, name in enumerate(STRUCTURES, 1)})
"""
FREE_TEXT = (slice(4, 32), slice(228, 252), slice(328, 344))  # bytes of a NIfTI-1 header that no reader uses
ABSENT, SAME, MEANT, DIFFERS = "(absent)", 0, 1, 2  # a missing value; how two files compare
RUN = "workspace/runs/{}/fullres_3d_self_attention_unet/fold_0"


@dataclass(frozen=True)
class Command:
    """Arguments of a command of autoseg, and the folders it makes; ``half``: whether it is halfway; ``signal`` stops it."""

    words: str
    makes: str = ""
    half: Callable[[Path], bool] | None = None
    signal: int = signal.SIGKILL


def there(pattern):
    return lambda folder: any(folder.glob(pattern))


def checks(number, history):
    return lambda folder: (folder / history).is_file() and (folder / history).read_text().count("\n") >= number


def road(name, number, scans, labels, steps, more, kinds):
    """Commands from the plan to the HTML reports."""
    run = RUN.format(name)
    training = f"--iterations {steps} --set bf16=false --set checkpoint_minutes=0.1 {more} --device cpu --workers 1"
    return (
        Command(
            f"plan_and_preprocess raw/Dataset{number}_{name} --workers 1",
            "workspace/fingerprints workspace/plans workspace/prepared",
            there("workspace/prepared/*/*/*_005"),
        ),
        Command(
            f"train {name} 0 {training}",
            "workspace/runs workspace/models",
            checks(8, f"{run}/history.jsonl"),
            signal.SIGINT,
        ),
        Command(
            f"predict -i {scans} -o predictions --surfaces {kinds} --isotropic --probabilities --attention-maps"
            f" --fold-agreement --reference {labels} --device cpu --workers 1",
            "predictions",
            there("predictions/*_011.json"),
        ),
        Command(
            f"reconstruct -i {labels} -o surfaces --surfaces {kinds} --isotropic --workers 1", there("surfaces/*_011.json")
        ),
        Command(f"evaluate --reference {labels} --predicted predictions -o evaluation --workers 1"),
        Command(f"report {run} --workers 1"),
        Command("report surfaces --workers 1"),
    )


def phantoms(checkout, folder):
    """Draw scans; returns the commands for them, beginning with a conversion from loose files."""
    subprocess.run([sys.executable, "-c", DRAW], cwd=folder, env=os.environ | {"PYTHONPATH": str(checkout)}, check=True)
    convert = (
        f"convert folders {folder}/scans/imagesTr raw/Dataset900_Phantoms --labels {folder}/scans/labelsTr"
        f" --channels MR --names {folder}/names.json --copy --workers 1"
    )
    rest = road(
        "Phantoms", "900", "scans/imagesTs", "scans/labelsTs", 60, "--set restoration_weight=0.1", "stl,glb,ply,vtp,obj"
    )
    return Command(convert, "raw", there("raw/*/imagesTr/*_005_*")), *rest


def hippocampi(data):
    def commands(checkout, folder):
        raw = folder / "raw" / "Dataset004_Hippocampus"
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True)
            for path in sorted((data / part).glob("*.nii.gz"))[:20]:
                (raw / part / path.name).symlink_to(path)
        about = json.loads((data / "dataset.json").read_text()) | {"numTraining": 20}
        (raw / "dataset.json").write_text(json.dumps(about))
        return road("Hippocampus", "004", f"{raw}/imagesTr", f"{raw}/labelsTr", 30, "--set checks=5", "stl,glb")

    return commands


def call(checkout, folder, command, stopped=False):
    """Run one command of a checkout, with one thread, to its end, or stop it halfway."""
    own = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "AUTOSEG_WORKSPACE": str(folder / "workspace")}
    with (folder.parent / "log.txt").open("a") as log:
        print(f"\n{checkout}: autoseg {command.words}", file=log, flush=True)
        words = [sys.executable, "-m", "autoseg", *command.words.split()]
        process = subprocess.Popen(words, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
        while stopped and process.poll() is None and not command.half(folder):
            time.sleep(0.005)
        if stopped:
            if process.poll() is not None:
                raise SystemExit(f"autoseg {command.words.split()[0]} ended before it could be stopped: see {log.name}")
            process.send_signal(command.signal)
        if process.wait() and not stopped:
            raise SystemExit(f"autoseg {command.words}: exit status {process.returncode}, see {log.name}")


def go(commands, target, checkout, begun_by=None):
    """Run a sequence of commands in the common folder, and move the results to ``target``.

    With ``begun_by``, the checkout that ran it before, its long commands are first run halfway again, the last one first, as it
    needs the files of the others.
    """
    if target.exists():
        return
    folder = target.with_name("here")
    if begun_by:
        shutil.copytree(target.with_name("old"), folder, symlinks=True)
    folder.mkdir(parents=True, exist_ok=True)
    road = commands(checkout, folder)
    for command in reversed(road) if begun_by else ():
        if command.half:
            for made in command.makes.split():
                shutil.rmtree(folder / made)
            call(begun_by, folder, command, stopped=True)
    for command in road:
        call(checkout, folder, command)
    folder.rename(target)


def contents(folder):
    """ "FILE:KEY" -> value of everything in a folder, except ``SECONDS``."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(folder).as_posix()
        found |= {f"{name}:{key}": value for key, value in values(path) if not re.search(SECONDS, key)}
    return found


def values(path):
    """Yield (key, value) of each number, text, tensor or line of a file; for other files, their digest."""
    if path.suffix == ".json":
        yield from flat(json.loads(path.read_text()))
    elif path.suffix == ".jsonl":  # lines of a journal are named by file, those of a history by step
        for line in map(json.loads, path.read_text().splitlines()):
            yield from flat(line, f"/{line.get('file', line.get('step'))}")
    elif path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(path.open())):
            yield from ((f"/{number}/{column}", cell) for column, cell in row.items())
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            yield from flat(json.loads((file.metadata() or {}).get("state", "{}")))
            yield from ((f"/{key}", digest(file.get_tensor(key).numpy().tobytes())) for key in file.keys())  # noqa: SIM118
    elif path.suffix in (".md", ".txt"):
        yield from ((f"/{number}", line) for number, line in enumerate(path.read_text().splitlines()))
    elif path.name.endswith(".nii.gz"):
        content = bytearray(gzip.decompress(path.read_bytes()))
        for text in FREE_TEXT:
            yield f"/header_text/{text.start}", content[text].strip(b"\0").decode("latin-1")
            content[text] = bytes(text.stop - text.start)
        yield "", digest(content)
    elif path.suffix == ".html":
        yield "", re.sub(r">\s+<", "><", re.sub(SPENT, "", path.read_text()))
    else:
        yield "", digest(path.read_bytes())


def flat(value, key=""):
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((called(one, i), one) for i, one in enumerate(value))
        for name, part in parts:
            yield from flat(part, f"{key}/{name}")
    else:
        yield key, value


def called(part, number):
    """Key of an entry of a list: its number and what it is about."""
    about = [part[name] for name in ("case", "structure", "metric") if name in part] if isinstance(part, dict) else []
    return " ".join(map(str, [number, *about]))


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def as_before(found):
    """The contents of a folder under their former names."""
    renamed = {}
    for place, value in found.items():
        for now, before, _ in RENAMED:
            place = re.sub(now, before, place)
        renamed[place] = value
    return renamed


def reason_of(meant, place, old, new):
    """Why a difference is intended, or None."""
    return next((why for pattern, may, why in meant if re.search(pattern, place) and may(old, new)), None)


def compare(title, old, new, meant=INTENDED):
    """Print a table comparing the files of two runs; returns the number of files that differ without reason."""
    before, now = contents(old), as_before(contents(new))
    states, reasons = {place.split(":")[0]: SAME for place in before | now}, Counter()
    lines = {}  # first difference of each file
    for place in sorted(before.keys() | now.keys()):
        name, was, found = place.split(":")[0], before.get(place, ABSENT), now.get(place, ABSENT)
        if was == found:
            continue
        reason = reason_of(meant, place, was, found)
        reasons[reason] += 1
        states[name] = max(states[name], MEANT if reason else DIFFERS)
        if not reason:
            at = max(len(os.path.commonprefix([str(was), str(found)])) - 40, 0)
            lines.setdefault(name, f"DIFFERS {place}\n  {str(was)[at : at + 300]}\n  {str(found)[at : at + 300]}")
    print(f"\n{title}\n\n| | files | same | meant differences | differ |\n|---|---|---|---|---|")
    kinds = {name: next(kind for kind, pattern in KINDS if re.search(pattern, f"/{name}")) for name in states}
    for kind, _ in KINDS:
        count = Counter(state for name, state in states.items() if kinds[name] == kind)
        print(f"| {kind} | {count.total()} | {count[SAME]} | {count[MEANT]} | {count[DIFFERS]} |")
    print(*(f"meant, {times} times: {why}" for why, times in reasons.items() if why), *lines.values(), sep="\n")
    return len(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout of the project")
    parser.add_argument("--data", type=Path, default=HIPPOCAMPUS, help="Dataset004_Hippocampus")
    parser.add_argument("--folder", type=Path, help="for all files, which are kept; default: a temporary one")
    args = parser.parse_args()
    old, faults = args.old.resolve(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        roads = {"phantoms": phantoms}
        if args.data.is_dir():
            roads["hippocampi"] = hippocampi(args.data.resolve())
        for name, commands in roads.items():
            at = folder / name
            go(commands, at / "old", old)
            go(commands, at / "new", HERE)
            faults += compare(f"{name}: both checkouts", at / "old", at / "new")
            if commands is phantoms:
                go(commands, at / "continued", HERE, begun_by=old)
                faults += compare(
                    f"{name}: begun by one and ended by the other", at / "old", at / "continued", INTENDED + INTERRUPTED
                )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
