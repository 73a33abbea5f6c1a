"""Makes the folder ``v0.1``: what one version writes, so that every later one is seen to open it.

    PYTHONPATH=. python tests/golden/make.py tests/golden/v0.1

It holds a data set of phantoms, a workspace (fingerprint, plans, prepared cases, splits, a run whose fold 0 is finished and
whose fold 1 was interrupted, its model), a folder of predictions with surfaces, one of reconstructed label maps, and
``expected.json``: digests, and the words of the commands that made them. The folder of an earlier version is never made again;
a new version gets one of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from autoseg.cli import main
from autoseg.data.dataset import read_dataset
from autoseg.inference.bundle import load_bundle
from autoseg.phantoms import write_phantoms
from planners.plan import Plan
from planners.records import digest, from_json

DATASET, RUN, STEPS, STOP = "Golden", "small", 300, 250
SETTINGS = ["cpu_width=1", "bf16=false", "checks=6", "learning_rate=0.03", "plain_epochs=0"]
NOT_KEPT = ("report.html", "curves.png")  # for people, and large
WORDS = {
    "plan": ["plan_and_preprocess", "DATA"],
    "train": ["train", "DATA", "0", "--name", RUN, "--iterations", str(STEPS), "--device", "cpu"]
    + [word for setting in SETTINGS for word in ("--set", setting)],
    "predict": ["predict", "-i", "DATA/imagesTs", "-o", "predictions", "--device", "cpu", "--probabilities"]
    + ["--surfaces", "ply", "--decimate", "0.5", "--isotropic", "16"],
    "reconstruct": ["reconstruct", "-i", "DATA/labelsTs", "-o", "reconstructed", "--surfaces", "ply,glb"]
    + ["--decimate", "0.7", "--isotropic", "16"],
}


class StopAt:
    """A standard error that asks this process to stop once it reads of a step."""

    def __init__(self, step: int) -> None:
        self.word, self.stream = f" step {step} ", sys.stderr

    def write(self, text: str) -> int:
        if self.word in text:
            os.kill(os.getpid(), signal.SIGINT)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def make(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        work(place)
        for path in [path for path in place.rglob("*") if path.name in NOT_KEPT]:
            path.unlink()
        for path in place.rglob("*.json"):
            path.write_text(without_machine(path.read_text(), place))
        left = [path for path in place.rglob("*") if path.is_file() and str(place).encode() in path.read_bytes()]
        if left:
            raise SystemExit(f"the place stands in {left}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place, target)


def work(place: Path) -> None:
    raw = write_phantoms(place / f"Dataset011_{DATASET}", training=5, test=1, in_plane_mm=8)
    call(place, "plan", 0)
    plan_file = place / "workspace" / "plans" / DATASET / "fullres_3d.json"
    edited = json.loads(plan_file.read_text())
    edited["network"] |= {"features": [4, 8], "attention": [{"stage": 1, "kind": "slot", "heads": 1, "slots": 4}]}
    plan_file.write_text(json.dumps(edited, indent=1) + "\n")
    call(place, "train", 0)
    sys.stderr, stream = StopAt(STOP), sys.stderr
    call(place, "train", 130, fold="1")
    sys.stderr = stream
    call(place, "predict", 0)
    call(place, "reconstruct", 0)
    bundle = load_bundle(place / "workspace" / "models" / f"{DATASET}_{RUN}")
    expected = {
        "model": bundle.digest,
        "plan": digest(from_json(Plan, json.loads(plan_file.read_text()))),
        "model_plan": digest(bundle.plan),
        "labels": digest(read_dataset(raw).labels),
        "steps": STEPS,
        "stopped_at": STOP,
        "words": WORDS,
    }
    (place / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def call(place: Path, verb: str, status: int, fold: str = "0") -> None:
    named = {"DATA": str(place / f"Dataset011_{DATASET}"), "0": fold}
    words = [named.get(word, word.replace("DATA", named["DATA"])) for word in WORDS[verb]]
    words = [str(place / word) if word in ("predictions", "reconstructed") else word for word in words]
    if (found := main([*words, "--workspace", str(place / "workspace")])) != status:
        raise SystemExit(f"{verb}: expected status {status}, found {found}")


def without_machine(text: str, place: Path) -> str:
    """The text of a JSON file without the folder and the system that it was made in."""
    content = json.loads(text.replace(str(place), "/golden"))

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "Linux" if key == "system" else cleaned(item) for key, item in value.items()}
        return [cleaned(item) for item in value] if isinstance(value, list) else value

    kept = cleaned(content)
    return text if kept == json.loads(text) else json.dumps(kept, indent=1) + "\n"


if __name__ == "__main__":
    make(Path(sys.argv[1]))
