"""What a model knows about its windows: found, stored, used, and told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, ModelError
from autoseg.imaging.files import read_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.about import describe_model
from autoseg.inference.bundle import export_model, load_bundle, save_bundle, store_windows
from autoseg.inference.calibration import LADDER, calibrate
from autoseg.inference.choice import doubt_of
from autoseg.inference.cohort import depends_on
from autoseg.inference.predictor import Predictor
from autoseg.inference.windows import AdaptiveWindows, Doubt
from autoseg.networks import build_network
from autoseg.options import InferenceOptions
from autoseg.pipeline.calibration import calibrate_model
from autoseg.pipeline.importing import import_model
from autoseg.preprocess.case import PreparedCase
from autoseg.preprocess.store import store_case
from autoseg.studies.fold import calibrate_fold
from autoseg.workspace import Workspace
from planners.plan import Plan
from planners.records import to_json
from tests.helpers.models import ball_volume, make_plan, write_model

FOUND = AdaptiveWindows(Doubt(1.0, 6.0, 0.0), 0.5, 2, 100, 400, {"ball": 0.0001})


def options(**changes: object) -> InferenceOptions:
    return InferenceOptions(**{"precision": "fp32", **changes})  # type: ignore[arg-type]


def test_a_model_without_windows_has_the_digest_that_it_had(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "m", make_plan(), seeds=(0, 1))
    stored = store_windows(tmp_path / "m", {"0": FOUND})
    assert stored.digest == bundle.digest
    assert (dict(bundle.windows), dict(stored.windows)) == ({}, {"0": FOUND})
    assert stored.info == bundle.info


def test_new_weights_of_a_fold_forget_its_windows_and_equal_ones_keep_them(tmp_path: Path) -> None:
    plan = make_plan()
    write_model(tmp_path / "m", plan, seeds=(0, 1))
    store_windows(tmp_path / "m", {"0": FOUND, "1": FOUND})
    assert set(write_model(tmp_path / "m", plan, seeds=(0, 1)).windows) == {"0", "1"}
    labels, channels = load_bundle(tmp_path / "m").labels, ("MRI",)
    weights = {"1": build_network(plan.network).state_dict()}
    assert set(save_bundle(tmp_path / "m", plan=plan, labels=labels, channels=channels, weights=weights).windows) == {"0"}


def test_windows_travel_with_a_model(tmp_path: Path) -> None:
    write_model(tmp_path / "m", make_plan())
    store_windows(tmp_path / "m", {"0": FOUND})
    zipped = export_model(tmp_path / "m", tmp_path / "m.zip")
    assert dict(load_bundle(zipped).windows) == {"0": FOUND}
    workspace = Workspace(tmp_path / "w")
    assert dict(load_bundle(import_model(zipped, workspace, name="again")).windows) == {"0": FOUND}
    assert describe_model("again", workspace)["windows"] == {"0": str(FOUND)}


def test_a_model_proposes_windows_where_nothing_changes(tmp_path: Path) -> None:
    write_model(tmp_path / "m", make_plan(), seeds=(0, 1))
    bundle = store_windows(tmp_path / "m", {"0": FOUND})
    assert doubt_of(bundle, options()) is None  # of fold 1 nobody knows
    assert doubt_of(bundle, options(folds=("0",))) == FOUND.doubt
    assert doubt_of(bundle, options(folds=("0",), windows="all")) is None
    assert doubt_of(bundle, options(folds=("0",), step=0.25)) is None  # found for another step
    assert doubt_of(bundle, options(folds=("0",), step=0.25, windows="adaptive")) == FOUND.doubt
    with pytest.raises(ModelError, match="fold 1 can skip"):
        doubt_of(bundle, options(windows="adaptive"))
    worse = dataclasses.replace(FOUND, difference={"ball": 0.0006})
    bundle = store_windows(tmp_path / "m", {"0": worse})
    assert doubt_of(bundle, options(folds=("0",))) is None
    assert doubt_of(bundle, options(folds=("0",), windows="adaptive")) == FOUND.doubt


def test_windows_are_called_the_default_only_where_predict_takes_them(tmp_path: Path) -> None:
    labels = LabelSchema(("ball", "cube"), ((1,), (2,)), False, (1, 2))
    plan = make_plan()
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=3))
    write_model(tmp_path / "m", plan, labels=labels)
    for difference in ({"ball": 0.0001}, {"ball": 0.0001, "cube": 0.0}, {"ball": 0.0001, "cube": 0.01}, {}):
        found = dataclasses.replace(FOUND, difference=difference)
        told = found.summary(labels.structures)
        taken = doubt_of(store_windows(tmp_path / "m", {"0": found}), options()) is not None
        assert told.endswith("used by default") == taken
        assert ("nothing is known about them" in told) == ("cube" not in difference)


def test_a_result_hangs_on_its_windows(tmp_path: Path) -> None:
    write_model(tmp_path / "m", make_plan())
    before = depends_on(load_bundle(tmp_path / "m"), options(), ())
    bundle = store_windows(tmp_path / "m", {"0": FOUND})
    assert depends_on(bundle, options(windows="all"), ()) == before
    assert depends_on(bundle, options(), ()) == {**before, "windows": {"margin": 1.0, "jump": 6.0, "halo": 0.0}}


def test_the_first_doubt_that_changes_nothing_is_taken(tmp_path: Path, threshold_plan: Plan) -> None:
    write_model(tmp_path / "m", threshold_plan)
    predictor = Predictor(tmp_path / "m", options(mirror=False, windows="all"), device="cpu")
    scans = [predictor.prepare(ball_volume((50, 52, 40), radius=radius)[0]).data for radius in (6.0, 4.0)]
    found = calibrate(predictor, scans)
    assert found is not None
    assert found.doubt == LADDER[0]  # what the network says of a voxel does not hang on the window
    assert found.difference == {"ball": 0.0}
    assert found.cases == 2
    assert found.computed < found.of / 2


def test_small_scans_tell_nothing(tmp_path: Path, threshold_plan: Plan) -> None:
    write_model(tmp_path / "m", threshold_plan)
    predictor = Predictor(tmp_path / "m", options(), device="cpu")
    assert calibrate(predictor, [predictor.prepare(ball_volume((20, 24, 16))[0]).data]) is None


@pytest.mark.thorough
@pytest.mark.parametrize("has_regions", [False, True])
def test_a_model_that_hangs_on_its_windows_needs_more_of_them(tmp_path: Path, has_regions: bool) -> None:
    labels = LabelSchema(("whole", "core"), ((2, 5), (5,)), True, (2, 5)) if has_regions else None
    plan = make_plan(mirror_axes=(2,))
    bundle = write_model(tmp_path / "m", plan, labels=labels) if labels else write_model(tmp_path / "m", plan)
    predictor = Predictor(bundle, options(windows="all"), device="cpu")
    noise = np.random.default_rng(0).uniform(size=(1, 40, 40, 40)).astype(np.float32)
    found = calibrate(predictor, [noise])  # random weights: borders everywhere
    assert found is not None
    assert found.doubt != LADDER[0] or found.computed > 0.9 * found.of
    stages = predictor.try_doubts(noise, [found.doubt])
    assert stages[0].computed == found.computed


def write_ball(path: Path, shape: tuple[int, int, int] = (50, 52, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(ball_volume(shape)[0], path)
    return path


@pytest.mark.thorough
def test_predict_uses_the_windows_of_a_calibrated_model_and_counts_them(
    tmp_path: Path, threshold_plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, scans = tmp_path / "w", write_ball(tmp_path / "scans" / "a_0000.nii.gz").parent
    write_model(workspace / "models" / "m", threshold_plan)
    common = ["--workspace", str(workspace), "--quiet"]
    predict = ["predict", "-i", str(scans), "-m", "m", "--device", "cpu", *common, "-o"]
    assert main([*predict, str(tmp_path / "before")]) == 0
    assert main([*predict, str(tmp_path / "none"), "--windows", "adaptive"]) == 2  # nobody has looked
    assert not (tmp_path / "none").exists()
    assert main(["model", "calibrate", "m", "--cases", str(scans), "--device", "cpu", *common]) == 0
    assert "ball: 0.00000\nused by default" in capsys.readouterr().out
    assert main([*predict, str(tmp_path / "default")]) == 0
    assert main([*predict, str(tmp_path / "all"), "--windows", "all"]) == 0
    told = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in ("before", "default", "all")}
    counts = {name: (run["windows"]["computed"], run["windows"]["of"]) for name, run in told.items()}
    total = 6 * 6 * 4 * 8  # 50, 52 and 40 voxels in windows of 16, eight views
    assert counts["before"] == counts["all"] == (total, total)
    assert counts["default"][0] < total / 4
    assert counts["default"][1] == total
    assert told["default"]["cases"][0]["windows"] == list(counts["default"])
    assert told["default"]["options"]["windows"] == to_json(LADDER[0])
    assert told["all"]["options"] == told["before"]["options"]
    masks = [read_label_volume(tmp_path / name / "a.nii.gz").data for name in told]
    assert (masks[0] == 7).sum() > 500
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
    assert main([*predict, str(tmp_path / "default")]) == 0
    assert json.loads((tmp_path / "default" / "run.json").read_text())["cases"][0]["status"] == "skipped"


def test_small_scans_and_zips_are_refused_and_the_model_stays(tmp_path: Path, threshold_plan: Plan) -> None:
    workspace = Workspace(tmp_path / "w")
    write_model(workspace.model("m"), threshold_plan)
    before = (workspace.model("m") / "model.json").read_bytes()
    small = write_ball(tmp_path / "small" / "a_0000.nii.gz", (18, 20, 17)).parent
    with pytest.raises(AutosegError, match="no scan is larger than the windows of 16x16x16"):
        calibrate_model("m", small, workspace)
    assert (workspace.model("m") / "model.json").read_bytes() == before
    zipped = export_model(workspace.model("m"), tmp_path / "m.zip")
    with pytest.raises(AutosegError, match="is one file"):
        calibrate_model(zipped, small, workspace)


@pytest.mark.thorough
def test_many_structures_in_few_features_are_refined_too(tmp_path: Path) -> None:
    names = tuple(f"s{i}" for i in range(1, 120))
    values = tuple((i,) for i in range(1, 120))
    labels = LabelSchema(names, values, False, tuple(range(1, 120)))
    plan = make_plan(mirror_axes=())
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=120))
    bundle = write_model(tmp_path / "m", plan, labels=labels, seeds=(0, 1))
    scan = Volume(
        np.random.default_rng(0).uniform(size=(1, 40, 36, 34)).astype(np.float32),
        Geometry.from_spacing((40, 36, 34), (1, 1, 1)),
    )
    every = Predictor(bundle, options(), device="cpu")
    prepared = every.prepare(scan)
    expected = every.infer(prepared)
    everything = dataclasses.replace(FOUND, doubt=Doubt(1e4, 1e4, 0.25), difference={})
    bundle = store_windows(tmp_path / "m", {"0": everything, "1": everything})
    for agreement in (False, True):
        found = Predictor(bundle, options(windows="adaptive", fold_agreement=agreement), device="cpu").infer(prepared)
        assert found.windows == expected.windows
        np.testing.assert_allclose(np.asarray(found.logits), np.asarray(expected.logits), atol=1e-4)
        assert (found.agreement is None) != agreement


def test_a_fold_looks_on_its_largest_validation_cases_at_the_end_of_its_training(tmp_path: Path, threshold_plan: Plan) -> None:
    bundle = write_model(tmp_path / "m", threshold_plan, seeds=(0, 1))
    for name, shape in {"small": (20, 20, 16), "large": (50, 52, 40)}.items():
        volume, mask = ball_volume(shape)
        prepared = PreparedCase(name, volume.data, mask.astype(np.int16), volume.geometry, {})
        store_case(tmp_path / "prepared" / name, prepared, "digest")
    run = SimpleNamespace(model=tmp_path / "m", prepared=tmp_path / "prepared", folder=tmp_path, device="cpu", coarse=None)
    task = SimpleNamespace(plan=threshold_plan, validation=("small",))
    calibrate_fold(run, task, "0")  # type: ignore[arg-type]
    assert dict(load_bundle(tmp_path / "m").windows) == {}  # its cases have no windows to spare
    task.validation = ("small", "large")
    calibrate_fold(run, task, "0")  # type: ignore[arg-type]
    found = load_bundle(tmp_path / "m")
    assert set(found.windows) == {"0"}
    assert (found.windows["0"].doubt, found.windows["0"].cases) == (LADDER[0], 1)
    assert found.digest == bundle.digest
    written = (tmp_path / "m" / "model.json").read_bytes()
    calibrate_fold(run, task, "0")  # type: ignore[arg-type]
    assert (tmp_path / "m" / "model.json").read_bytes() == written  # once is enough
