"""Results follow the final labels: what a rule of the model took away has no surface and is not measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from autoseg.data.dataset import Case
from autoseg.data.labelmaps import label_maps
from autoseg.errors import ModelError
from autoseg.imaging.files import read_label_volume, segment_names, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.seg_nrrd import write_seg_nrrd
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.bundle import copy_bundle, load_bundle, save_bundle
from autoseg.inference.cohort import Predict, depends_on, predict_cohort
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions, PredictOptions, SurfaceOptions
from autoseg.outputs.asked import asked_outputs
from autoseg.reconstruct.components import DropSmall, KeepLargest

SHAPE, LARGE, SMALL = (20, 24, 48), (10, 12, 12), (10, 12, 38)


def two_balls():
    """(Volume, mask of the larger ball, mask of both): 1 in two balls that do not touch."""
    index = np.indices(SHAPE)
    large, small = (
        ((index - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) <= radius**2
        for centre, radius in ((LARGE, 7.0), (SMALL, 4.0))
    )
    data = np.where(large | small, 1.0, 0.25).astype(np.float32)[None]
    return Volume(data, Geometry.from_spacing(SHAPE, (1.0, 1.0, 1.0))), large, large | small


@pytest.mark.parametrize("rules", [(), (KeepLargest((7,)),), (DropSmall((7,), 0.5),)])
def test_surfaces_and_measurements_are_made_of_the_final_labels(tmp_path, tools, threshold_plan, rules):
    volume, large, both = two_balls()
    write_volume(volume, tmp_path / "a_0000.nii.gz")
    tools["write_model"](tmp_path / "plain", threshold_plan)
    plain = load_bundle(tmp_path / "plain")
    weights = {fold: load() for fold, load in plain.folds.items()}
    about = {"plan": plain.plan, "labels": plain.labels, "channels": plain.channels}
    save_bundle(tmp_path / "model", **about, weights=weights, postprocessing=rules)
    options = PredictOptions(InferenceOptions(precision="fp32", mirror=False), surfaces=SurfaceOptions(("stl",)))
    step = Predict(str(tmp_path / "model"), tmp_path / "out", asked_outputs(options, ".nii.gz"), options.inference, "cpu")
    case = Case("a", "a", (tmp_path / "a_0000.nii.gz",), None)
    assert predict_cohort(step, [case]).cases("done") == ("a",)
    expected = large if rules else both
    np.testing.assert_array_equal(read_label_volume(tmp_path / "out" / "a.nii.gz").data == 7, expected)
    (measured,) = json.loads((tmp_path / "out" / "a.json").read_text())["measurements"]
    assert measured["voxels"] == expected.sum()
    assert measured["components"] == (1 if rules else 2)
    assert measured["mesh_volume_mm3"] == pytest.approx(expected.sum(), rel=0.1)  # of scores that jump from voxel to voxel
    mesh = trimesh.load(tmp_path / "out" / "a_surfaces" / "ball.stl")
    assert mesh.body_count == (1 if rules else 2)
    method = json.loads((tmp_path / "out" / "a_surfaces" / "surfaces.json").read_text())["method"]["from"]
    assert method.startswith("label map" if rules else "scores")


def test_shared_surfaces_of_a_prediction_follow_its_labels(tmp_path, tools, threshold_plan):
    volume, _, both = two_balls()
    write_volume(volume, tmp_path / "a_0000.nii.gz")
    tools["write_model"](tmp_path / "model", threshold_plan)
    options = PredictOptions(InferenceOptions(precision="fp32", mirror=False), surfaces=SurfaceOptions(("stl",), shared=True))
    step = Predict(str(tmp_path / "model"), tmp_path / "out", asked_outputs(options, ".nii.gz"), options.inference, "cpu")
    case = Case("a", "a", (tmp_path / "a_0000.nii.gz",), None)
    assert predict_cohort(step, [case]).cases("done") == ("a",)
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["borders"] == []  # a structure by itself
    assert record["measurements"][0]["mesh_volume_mm3"] == pytest.approx(both.sum(), rel=2e-3)
    assert trimesh.load(tmp_path / "out" / "a_surfaces" / "ball.stl").is_watertight
    about = json.loads((tmp_path / "out" / "a_surfaces" / "surfaces.json").read_text())
    assert about["method"]["from"].startswith("label map, a surface net")


def test_a_segmentation_of_slicer_goes_with_the_labels_and_an_edited_one_stays(tmp_path, tools, threshold_plan):
    volume, _, both = two_balls()
    write_volume(volume, tmp_path / "a_0000.nii.gz")
    tools["write_model"](tmp_path / "model", threshold_plan)
    options = PredictOptions(InferenceOptions(precision="fp32", mirror=False), write=("seg_nrrd",))
    step = Predict(str(tmp_path / "model"), tmp_path / "out", asked_outputs(options, ".nii.gz"), options.inference, "cpu")
    case = Case("a", "a", (tmp_path / "a_0000.nii.gz",), None)
    assert predict_cohort(step, [case]).cases("done") == ("a",)
    path = tmp_path / "out" / "a.seg.nrrd"
    assert segment_names(path) == {"ball": 7}
    np.testing.assert_array_equal(read_label_volume(path, onto=volume.geometry).data == 7, both)
    assert label_maps(tmp_path / "out") == {"a": tmp_path / "out" / "a.nii.gz"}
    assert predict_cohort(step, [case]).cases("skipped") == ("a",)
    overlapping = LabelVolume(both.astype(np.uint8), volume.geometry)
    write_seg_nrrd(path, overlapping, {"ball": (1,), "all": (1,)})
    edited = path.read_bytes()
    assert predict_cohort(step, [case]).cases("failed") == ("a",)
    assert path.read_bytes() == edited


def test_the_rules_of_a_model_can_be_left_out_and_the_record_says_so(tmp_path, tools, threshold_plan):
    volume, large, both = two_balls()
    plain = tools["write_model"](tmp_path / "plain", threshold_plan)
    weights = {fold: load() for fold, load in plain.folds.items()}
    about = {"plan": plain.plan, "labels": plain.labels, "channels": plain.channels}
    bundle = save_bundle(tmp_path / "model", **about, weights=weights, postprocessing=[KeepLargest((7,))])
    how = InferenceOptions(precision="fp32", mirror=False)
    for options, expected in ((how, large), (replace(how, postprocess=False), both)):
        found = Predictor(bundle, options, device="cpu").predict(volume)
        np.testing.assert_array_equal(found.labels.data == 7, expected)
        assert ("postprocess" in depends_on(bundle, options, ())) is (expected is both)
        assert "postprocess" not in depends_on(plain, options, ())


def test_a_temperature_makes_probabilities_milder_and_changes_no_label(tmp_path, tools, threshold_plan):
    volume, _, _ = two_balls()
    plain = tools["write_model"](tmp_path / "plain", threshold_plan)
    warm = copy_bundle(replace(plain, temperatures=(4.0,)), tmp_path / "warm")
    assert load_bundle(tmp_path / "warm").temperatures == (4.0,)
    assert warm.digest != plain.digest
    assert copy_bundle(replace(warm, temperatures=()), tmp_path / "cold").digest == plain.digest
    how = InferenceOptions(precision="fp32", mirror=False)
    before, after = (Predictor(bundle, how, device="cpu").predict(volume, probabilities=True) for bundle in (plain, warm))
    np.testing.assert_array_equal(before.labels.data, after.labels.data)
    expected = 1 / (1 + np.exp(-8 * (np.array([1.0, 0.25]) - 0.5) / 4))  # of the threshold network
    found = after.probabilities[1]
    np.testing.assert_allclose([found.max(), found.min()], expected, atol=2e-3)
    assert before.probabilities[1].max() > found.max()
    for wrong in ((1.0, 2.0), (0.0,)):
        with pytest.raises(ModelError, match="temperatures"):
            copy_bundle(replace(plain, temperatures=wrong), tmp_path / "wrong")
