"""Two networks of one plan as one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.errors import ModelError
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.inference.bundle import BESIDE, Bundle, copy_bundle, export_model, identity_of, load_bundle
from autoseg.inference.cohort import Predict, predict_cohort
from autoseg.inference.predictor import Predictor
from autoseg.networks import NETWORKS
from autoseg.options import InferenceOptions
from autoseg.outputs.calibration import CalibrationSamples, read_samples
from autoseg.studies.ensemble import ensemble_of, share_a_grid
from tests.helpers.models import Threshold, ball_volume, make_plan, write_model


def test_an_ensemble_averages_the_logits_of_both_networks(tmp_path: Path) -> None:
    plan = make_plan()
    wide = replace(plan, network=replace(plan.network, features=(6, 12)), name="wide")
    one, other = write_model(tmp_path / "one", plan, (0, 1)), write_model(tmp_path / "other", wide, (2, 3))
    other = replace(other, folds={"0": other.folds["2"], "1": other.folds["3"]})  # of other weights than the first one's
    assert share_a_grid(one.plan, other.plan)
    assert not share_a_grid(one.plan, replace(other.plan, spacing_mm=(1.0, 1.0, 2.0)))
    both = copy_bundle(ensemble_of(one, other), tmp_path / "both")
    assert list(both.folds) == ["0", "0b", "1", "1b"]
    assert both.network_of("0b") == wide.network
    assert both.network_of("0") == plan.network
    volume, _ = ball_volume()
    how = InferenceOptions(precision="fp32", mirror=False)

    def logits(model: object, folds: tuple[str, ...]) -> np.ndarray:
        predictor = Predictor(model, replace(how, folds=folds), device="cpu")  # type: ignore[arg-type]
        return np.asarray(predictor.infer(predictor.prepare(volume)).logits)

    found = logits(load_bundle(tmp_path / "both"), ("0", "0b"))
    expected = (logits(one, ("0",)) + logits(other, ("0",))) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_of_one_network_has_the_digest_that_it_had(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "model", make_plan())
    assert copy_bundle(bundle, tmp_path / "copy").digest == bundle.digest
    assert bundle.networks == {}


def two_plans(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, Bundle]:
    """Models that find what is brighter than 0.5: in blocks of 1 mm, and in slices of other voxels on axes in another order."""
    monkeypatch.setitem(NETWORKS, "threshold", Threshold)
    plan = make_plan()
    plan = replace(plan, network=replace(plan.network, name="threshold"))
    flat = replace(plan.network, strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3),) * 2)
    grid = {"axis_order": (1, 0, 2), "spacing_mm": (1.0, 1.5, 1.25), "patch_size": (1, 32, 32), "mirror_axes": (1, 2)}
    slices = replace(plan, name="flat", network=flat, **grid)  # type: ignore[arg-type]
    return write_model(folder / "one", plan, (0, 1)), write_model(folder / "other", slices, (0, 1))


def test_models_of_two_plans_are_averaged_on_the_grid_of_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two_plans(tmp_path, monkeypatch)
    assert not share_a_grid(one.plan, other.plan)
    both = copy_bundle(replace(ensemble_of(one, other), temperatures=(2.0,)), tmp_path / "both")
    assert both.beside is not None
    assert both.digest == identity_of(replace(ensemble_of(one, other), temperatures=(2.0,)))
    rows = np.array(
        [[0.0, 1.0, 0.0, 5.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, -1.0, 9.0], [0.0, 0.0, 0.0, 1.0]]
    )  # turned and mirrored
    volume, mask = ball_volume(rows=rows)
    how = InferenceOptions(precision="fp32", mirror=False)
    found = Predictor(both, how, device="cpu").predict(volume, probabilities=True)
    alone = [Predictor(model, how, device="cpu").predict(volume, probabilities=True) for model in (one, other)]
    dice = 2 * np.count_nonzero((found.labels.data == 7) & mask) / (np.count_nonzero(found.labels.data == 7) + mask.sum())
    assert dice > 0.95
    assert found.probabilities is not None
    assert found.probabilities.shape[1:] == mask.shape
    logits = [np.log(said.probabilities[1].astype(float)) - np.log(said.probabilities[0].astype(float)) for said in alone]  # type: ignore[index]
    expected = 1 / (1 + np.exp(-sum(logits) / 2 / 2.0))
    np.testing.assert_allclose(found.probabilities[1].astype(float), expected, atol=4e-3)
    plain = Predictor(copy_bundle(replace(both, temperatures=()), tmp_path / "plain"), how, device="cpu").predict(volume)
    np.testing.assert_array_equal(plain.labels.data, found.labels.data)


def test_an_ensemble_of_two_plans_travels_as_one_file_and_with_one_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two_plans(tmp_path, monkeypatch)
    both = copy_bundle(ensemble_of(one, other), tmp_path / "both")
    moved = load_bundle(export_model(tmp_path / "both", tmp_path / "both.zip"))
    assert moved.digest == both.digest
    assert moved.beside is not None
    assert moved.beside.plan == other.plan
    found = Predictor(moved, InferenceOptions(folds=("1",), precision="fp32"), device="cpu")
    assert found.beside is not None
    assert (found.facts.folds, found.beside.facts.folds) == (("1",), ("1",))
    (tmp_path / "both" / BESIDE / "model.json").write_text((tmp_path / "one" / "model.json").read_text())
    with pytest.raises(ModelError, match="second model is not the one that was saved with it"):
        load_bundle(tmp_path / "both")


def test_models_of_other_labels_or_folds_are_not_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two_plans(tmp_path, monkeypatch)
    labels = LabelSchema(("tumour",), ((7,),), False, (7,))
    for wrong, told in ((replace(other, labels=labels), "labels"), (replace(other, folds={"0": other.folds["0"]}), "folds")):
        with pytest.raises(ModelError, match=f"second model has other {told}"):
            copy_bundle(ensemble_of(one, wrong), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(ModelError, match="not of cascades"):
        ensemble_of(replace(one, coarse=other), other)


def test_voxels_to_calibrate_by_are_drawn_on_the_grid_of_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two_plans(tmp_path, monkeypatch)
    copy_bundle(ensemble_of(one, other), tmp_path / "both")
    volume, mask = ball_volume()
    write_volume(volume, tmp_path / "a_0000.nii.gz")
    write_label_volume(LabelVolume(np.where(mask, 7, 0).astype(np.uint8), volume.geometry), tmp_path / "a.nii.gz")
    case = Case("a", "a", (tmp_path / "a_0000.nii.gz",), tmp_path / "a.nii.gz")
    step = Predict(str(tmp_path / "both"), tmp_path / "out", (CalibrationSamples(None),), InferenceOptions(), device="cpu")
    result = predict_cohort(step, [case])
    assert result.failures == ()
    samples = read_samples(tmp_path / "out", "a", one.labels)
    assert 1000 < len(samples.logits) <= 20_000
    assert samples.truth[:, 1].sum() == mask.sum()  # all are drawn
    assert ((samples.logits[:, 1] > samples.logits[:, 0]) == samples.truth[:, 1]).mean() > 0.95
