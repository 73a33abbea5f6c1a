"""Plans that must not change unnoticed.

``tests/golden/*.json`` were made by this file (``PYTHONPATH=. python tests/planners/test_golden.py``): review their
diff when a rule is changed on purpose. ``planner_golden.json`` holds what nnU-Net's own planners returned; it lies
outside the repository and is checked where it is present.
"""

import json
import re
from pathlib import Path

import pytest

from planners import (
    PRESETS,
    Budget,
    ChannelStats,
    Fingerprint,
    Plan,
    count_parameters,
    from_json,
    get_planner,
    plan_all,
    to_json,
)

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "golden"
NNUNET = ROOT.parent / "shared" / "reference" / "planner_golden.json"
NAMES = {"3d_fullres": "fullres_3d", "3d_lowres": "lowres_3d", "2d": "slices_2d"}
PLANNER_PRESETS = {
    "ExperimentPlanner": "classic",
    "nnUNetPlannerResEncM": "m",
    "nnUNetPlannerResEncL": "l",
    "nnUNetPlannerResEncXL": "xl",
}
GOLDEN = json.loads(NNUNET.read_text()) if NNUNET.is_file() else {"inputs": {}, "expected": {"absent": {}}}
OWN_NAMES = sorted(path.stem for path in OWN.glob("*.json"))


def fingerprint_of(name, entry):
    spacings = [tuple(map(float, group["spacing_mm"])) for group in entry["groups"] for _ in range(group["cases"])]
    shapes = [tuple(group["shape"]) for group in entry["groups"] for _ in range(group["cases"])]
    channels = entry["channels"]
    if isinstance(channels, int):
        channels = [["MRI", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0]] * channels
    structures = entry.get("structures") or [f"structure {i}" for i in range(1, entry["labels_with_background"])]
    return Fingerprint(
        dataset=name,
        cases=tuple(f"case_{i:04d}" for i in range(len(shapes))),
        shapes=tuple(shapes),
        spacings_mm=tuple(spacings),
        channels=tuple(ChannelStats(*channel) for channel in channels),
        structures=tuple(structures),
        n_labels=len(structures) + 1,
        relative_crop=entry.get("relative_crop", 1.0),
    )


@pytest.mark.parametrize("key", GOLDEN["expected"])
def test_parity_mode_gives_nnunets_numbers(key):
    if not NNUNET.is_file():
        pytest.skip(f"{NNUNET.name} is not there: nnU-Net's own plans are kept outside the repository")
    data, planner, configuration = key.split("|")
    expected = GOLDEN["expected"][key]
    fingerprint = fingerprint_of(data, GOLDEN["inputs"][data])
    plan = get_planner(NAMES[configuration], PLANNER_PRESETS[planner]).plan(fingerprint, Budget(parity=True))
    axes = slice(-len(expected["patch"]), None)  # 2D plans of nnU-Net have two axes
    found = {
        "patch": list(plan.patch_size[axes]),
        "bs": plan.batch_size,
        "bd": plan.batch_dice,
        "med": list(plan.median_shape[axes]),
        "spacing": [round(mm, 4) for mm in plan.spacing_mm[axes]],
        "strides": [list(stride[axes]) for stride in plan.network.strides],
        "kernels": [list(kernel[axes]) for kernel in plan.network.kernels],
        "feat": list(plan.network.features),
        "est": plan.memory_elements,
        "Mparams": round(count_parameters(plan.network) / 1e6, 2),
        "tf": list(plan.axis_order),
    }
    assert found == expected


@pytest.mark.thorough
@pytest.mark.parametrize("name", OWN_NAMES)
def test_plans_are_those_in_the_archive(name):
    stored = json.loads((OWN / f"{name}.json").read_text())
    stored["results"]["default"] = {one: _of_today(plan) for one, plan in stored["results"]["default"].items()}
    assert _results(name, stored["input"]) == stored["results"]


def test_there_is_an_archive():
    assert len(OWN_NAMES) >= 5


def _of_today(stored):
    """With the fields that are younger than the archive, at their default."""
    return to_json(from_json(Plan, stored | {"decisions": []})) | {"decisions": stored["decisions"]}


def _results(name, entry):
    fingerprint = fingerprint_of(name, entry)
    default = {plan.name: _in_full(plan) for plan in plan_all(fingerprint)}
    parity = {
        preset: {plan.name: _in_short(plan) for plan in plan_all(fingerprint, Budget(parity=True), preset)}
        for preset in PRESETS
    }
    return json.loads(json.dumps({"default": default, "parity": parity}))


def _in_full(plan):
    return to_json(plan) | {"decisions": plan.explain().split("\n")}


def _in_short(plan):
    size = {"patch": plan.patch_size, "batch": plan.batch_size, "elements": plan.memory_elements}
    return size | {"spacing_mm": plan.spacing_mm, "divisor": plan.network.divisor}


def _write(path, value):
    text = json.dumps(value, indent=1)
    text = re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    for known in sorted(OWN.glob("*.json")):
        source = json.loads(known.read_text())["input"]
        _write(known, {"input": source, "results": _results(known.stem, source)})
