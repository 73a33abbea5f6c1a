import dataclasses

import numpy as np
import pytest

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, FileError, ModelError
from autoseg.imaging.files import write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import export_model
from autoseg.inference.cohort import depends_on
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions
from autoseg.reconstruct.lazy_logits import LazyLogits
from planners.plan import Resampling
from tests.helpers.models import ball_volume, make_plan, write_model

# axes in another order, two of them flipped; the second one tilted by 20 degrees
FLIPPED = [[0, -1, 0, 40], [0, 0, 1, -7], [-1, 0, 0, 12]]
COS, SIN = np.cos(np.radians(20)), np.sin(np.radians(20))
OBLIQUE = [[0, -SIN, COS, 3], [0, -COS, -SIN, 50], [1, 0, 0, -20]]


def of(model, *, device="cpu", scratch=None, **options):
    """A Predictor of these options; in float32 where they do not say otherwise."""
    return Predictor(model, InferenceOptions(**{"precision": "fp32", **options}), device=device, scratch=scratch)


@pytest.fixture
def threshold(tmp_path, threshold_plan):
    return of(write_model(tmp_path / "threshold", threshold_plan))


@pytest.mark.parametrize("rows", [None, FLIPPED, OBLIQUE], ids=["canonical", "flipped", "oblique"])
def test_labels_come_back_on_the_grid_of_the_scan(threshold, rows):
    volume, mask = ball_volume(rows=rows)
    prediction = threshold.predict(volume)
    assert prediction.labels.geometry == volume.geometry
    np.testing.assert_array_equal(prediction.labels.data, 7 * mask)  # the label value, not the code
    assert prediction.model == threshold.bundle.digest
    assert prediction.probabilities is None
    assert set(prediction.seconds) == {"prepare", "infer", "decode"}


@pytest.mark.parametrize("axis_order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3.5, 0.8, 0.9)])
def test_anisotropic_scans_find_the_ball_again(tmp_path, threshold_plan, axis_order, spacing):
    plan = dataclasses.replace(threshold_plan, axis_order=axis_order)
    predictor = of(write_model(tmp_path / "m", plan), mirror=False)
    shape = (12, 34, 28)
    index = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) // 2
    mask = ((index * np.reshape(spacing, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 9**2
    geometry = Geometry.from_affine(shape, np.array(FLIPPED, float) * [*spacing, 1])
    scan = Volume(np.where(mask, 1, 0.1).astype(np.float32)[None], geometry)
    found = predictor.predict(scan).labels.data == 7
    dice = 2 * (found & mask).sum() / (found.sum() + mask.sum())
    assert dice > 0.93  # a shell of half a voxel is decided by interpolation


def test_a_margin_of_zeros_is_cropped_and_comes_back_as_background(threshold):
    volume, mask = ball_volume((20, 20, 20))
    wide = np.zeros((1, 40, 50, 30), np.float32)
    wide[:, 5:25, 20:40, 8:28] = volume.data
    labels = threshold.predict(Volume(wide, Geometry.from_spacing((40, 50, 30), (1, 1, 1)))).labels
    assert labels.data.shape == (40, 50, 30)
    assert labels.data.sum() == 7 * mask.sum()
    np.testing.assert_array_equal(labels.data[5:25, 20:40, 8:28], 7 * mask)


def test_an_empty_scan_is_background(threshold):
    scan = Volume(np.zeros((1, 9, 9, 9), np.float32), Geometry.from_spacing((9, 9, 9), (1, 1, 1)))
    assert not threshold.predict(scan).labels.data.any()


def test_probabilities_add_up_to_one_on_the_native_grid_and_agree_with_labels(threshold):
    volume, mask = ball_volume(rows=FLIPPED)
    prediction = threshold.predict(volume, probabilities=True)
    chances = prediction.probabilities.astype(np.float32)
    assert chances.shape == (2, *volume.geometry.shape)
    np.testing.assert_allclose(chances.sum(axis=0), 1, atol=2e-3)  # half precision
    np.testing.assert_array_equal(chances.argmax(axis=0), mask)
    assert chances[1][mask].min() == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-3)  # logit 8 * (1 - 0.5)


def test_regions_are_painted_in_order_with_their_values(tmp_path, threshold_plan):
    labels = LabelSchema(("whole", "core"), ((2, 5), (5,)), True, (2, 5))
    network = dataclasses.replace(threshold_plan.network, out_channels=2)
    plan = dataclasses.replace(threshold_plan, network=network)
    predictor = of(write_model(tmp_path / "m", plan, labels=labels))
    volume, mask = ball_volume()
    prediction = predictor.predict(volume, probabilities=True)
    np.testing.assert_array_equal(prediction.labels.data, 5 * mask)  # head 0 is 0: below one half everywhere
    assert prediction.probabilities[0].max() == 0.5


@pytest.mark.thorough
def test_files_volume_and_zip_agree(tmp_path):
    bundle = write_model(tmp_path / "model", make_plan(), seeds=(0, 1))
    volume, _ = ball_volume(rows=OBLIQUE)
    write_volume(volume, tmp_path / "scan.nii.gz")
    options = {"device": "cpu", "precision": "fp32"}
    by_value = of(bundle, **options).predict(volume)
    zipped = of(export_model(tmp_path / "model", tmp_path / "model.zip"), **options)
    for scan in (tmp_path / "scan.nii.gz", [tmp_path / "scan.nii.gz"]):
        labels = zipped.predict(scan).labels
        assert labels.geometry.matches(volume.geometry, 1e-3)
        np.testing.assert_array_equal(labels.data, by_value.labels.data)
    assert 0 < (by_value.labels.data == 7).mean() < 1  # random weights, but no constant answer


@pytest.mark.thorough
def test_predicting_twice_gives_the_same_bits(tmp_path):
    predictor = of(write_model(tmp_path / "m", make_plan()))
    prepared = predictor.prepare(ball_volume()[0])
    np.testing.assert_array_equal(predictor.infer(prepared).logits, predictor.infer(prepared).logits)


@pytest.mark.thorough
def test_folds_are_averaged_and_can_be_chosen(tmp_path):
    bundle = write_model(tmp_path / "m", make_plan(), seeds=(0, 1))
    options = {"device": "cpu", "precision": "fp32"}
    one, two, both = (of(bundle, folds=folds, **options) for folds in ([0], ["1"], None))
    prepared = one.prepare(ball_volume()[0])
    mean = (one.infer(prepared).logits + two.infer(prepared).logits) / 2
    np.testing.assert_allclose(both.infer(prepared).logits, mean, atol=1e-5)
    assert both.facts.folds == ("0", "1")
    assert depends_on(bundle, both.options, ())["folds"] == ["0", "1"]


@pytest.mark.thorough
@pytest.mark.parametrize("regions", [False, True])
def test_the_agreement_of_folds_is_the_mean_dice_of_what_they_say_alone(tmp_path, regions):
    plan = make_plan()
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=3))
    many = LabelSchema(("a", "b", "c"), ((1, 3), (2, 3), (3,)), True, (1, 2, 3))
    labels = many if regions else LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))
    bundle = write_model(tmp_path / "m", plan, seeds=(0, 1, 2), labels=labels)
    options = {"device": "cpu", "precision": "fp32"}
    plain = of(bundle, **options)
    asked = of(bundle, fold_agreement=True, **options)
    prepared = plain.prepare(ball_volume()[0])
    alone = []
    for fold in range(3):
        answer = of(bundle, folds=[fold], fold_agreement=True, **options).infer(prepared)
        logits = answer.logits
        assert answer.agreement is None
        alone.append(logits > 0 if regions else np.arange(1, 3).reshape(-1, 1, 1, 1) == logits.argmax(axis=0))
    pairs = [(alone[i], alone[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    dice = [[2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in zip(*pair, strict=True)] for pair in pairs]
    answer = asked.infer(prepared)
    np.testing.assert_allclose(answer.agreement, np.mean(dice, axis=0), rtol=1e-6)
    assert 0 < min(answer.agreement) < 1  # random weights
    np.testing.assert_allclose(answer.logits, plain.infer(prepared).logits, atol=1e-5)
    assert plain.infer(prepared).agreement is None
    assert asked.predict(ball_volume()[0]).fold_agreement == answer.agreement
    assert depends_on(bundle, asked.options, ()) == depends_on(bundle, plain.options, ()) | {"fold_agreement": True}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("precision", "regions"),
    [
        ("fp32", False),
        ("fp32", True),
        pytest.param("bf16", True, marks=pytest.mark.slow),  # many processors only imitate the format
    ],
)
def test_many_structures_are_predicted_through_fewer_features(tmp_path, monkeypatch, regions, precision):
    """Several folds, windows and mirrorings, and a grid that is resampled: features and heads against logits."""
    heads = 10
    plan = make_plan(spacing_mm=(1.3, 0.9, 1.1), resampling=Resampling(logits_order=3))
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=heads))
    values = tuple(range(1, heads + regions))
    labels = LabelSchema(tuple(map(str, values)), tuple((v,) for v in values), regions, values)
    bundle = write_model(tmp_path / "m", plan, seeds=(0, 1), labels=labels)
    options = {"device": "cpu", "precision": precision, "fold_agreement": True}
    fewer = of(bundle, **options)
    monkeypatch.setattr("autoseg.inference.predictor.prefers_lazy_logits", lambda spec, networks: False)
    plain = of(bundle, **options)
    volume, _ = ball_volume(rows=FLIPPED)
    noisy = Volume(volume.data + np.random.default_rng(0).normal(0, 0.2, volume.data.shape).astype(np.float32), volume.geometry)
    prepared = plain.prepare(noisy)
    composed, logits = fewer.infer(prepared).logits, plain.infer(prepared).logits
    assert isinstance(composed, LazyLogits)
    assert len(composed.features) == 2 * plan.network.features[0] < heads
    near = 1e-4 if precision == "fp32" else 3e-2
    np.testing.assert_allclose(np.asarray(composed), logits, atol=near)
    found, expected = (predictor.predict(noisy, probabilities=True) for predictor in (fewer, plain))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=max(near, 1e-3))
    agreed = (np.array(prediction.fold_agreement, float) for prediction in (found, expected))  # None becomes NaN
    np.testing.assert_allclose(*agreed, atol=near)
    assert (found.labels.data == expected.labels.data).mean() > (0.9999 if precision == "fp32" else 0.97)
    assert len(np.unique(found.labels.data)) > 3


@pytest.mark.thorough
def test_features_replace_logits_only_where_they_are_fewer(tmp_path):
    plan = make_plan()
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=5))
    labels = LabelSchema(tuple("abcd"), ((1,), (2,), (3,), (4,)), False, (1, 2, 3, 4))
    bundle = write_model(tmp_path / "m", plan, seeds=(0, 1), labels=labels)
    prepared = of(bundle).prepare(ball_volume()[0])
    for folds, kind in ((None, np.ndarray), ([0], LazyLogits)):  # 2 x 4 and 4 features
        assert type(of(bundle, folds=folds).infer(prepared).logits) is kind


def test_another_number_of_channels_names_those_expected(tmp_path, threshold):
    volume, _ = ball_volume()
    two = Volume(np.concatenate([volume.data] * 2), volume.geometry)
    with pytest.raises(ModelError, match=r"expects 1 channel \(MRI\), found 2"):
        threshold.predict(two)
    write_volume(volume, tmp_path / "scan.nii.gz")
    with pytest.raises(ModelError, match="scan.nii.gz, scan.nii.gz: the model expects"):
        threshold.predict([tmp_path / "scan.nii.gz"] * 2)


def test_values_that_are_not_finite_are_refused(threshold):
    volume, _ = ball_volume()
    data = volume.data.copy()
    data[0, 3, 3, 3] = np.nan
    with pytest.raises(FileError, match="finite numbers, found NaN"):
        threshold.predict(Volume(data, volume.geometry))


@pytest.mark.parametrize("options", [{"device": "warp"}, {"step": 0}, {"precision": "int3"}, {"folds": ["9"]}])
def test_impossible_options_are_refused(tmp_path, options):
    bundle = write_model(tmp_path / "m", make_plan())
    with pytest.raises(AutosegError):
        of(bundle, **options)


def test_precision_is_chosen_by_a_trial_on_a_small_patch(tmp_path, monkeypatch):
    trials = []

    def trial(network, patch, device, training):
        trials.append(patch)
        return True

    monkeypatch.setattr("autoseg.networks.precision.faster_in_bf16", trial)
    network = dataclasses.replace(make_plan().network, strides=((1, 1, 1), (1, 2, 2)))
    plan = make_plan(patch_size=(1, 160, 16), network=network)
    bundle = write_model(tmp_path / "m", plan)
    assert of(bundle, precision="auto").facts.precision == "bf16"
    assert trials == [(1, 1, 48, 16)]


def test_a_two_dimensional_model_predicts_slice_by_slice(tmp_path, threshold_plan):
    network = dataclasses.replace(threshold_plan.network, strides=((1, 1, 1), (1, 2, 2)))
    plan = dataclasses.replace(threshold_plan, patch_size=(1, 16, 16), mirror_axes=(1, 2), network=network)
    predictor = of(write_model(tmp_path / "m", plan))
    volume, mask = ball_volume(rows=FLIPPED)
    np.testing.assert_array_equal(predictor.predict(volume).labels.data, 7 * mask)


@pytest.mark.thorough
def test_what_is_too_large_for_memory_changes_nothing(tmp_path, monkeypatch):
    bundle, (volume, _) = write_model(tmp_path / "m", make_plan()), ball_volume(rows=FLIPPED)
    predictor = of(bundle, scratch=tmp_path / "scratch")
    expected = predictor.predict(volume, probabilities=True)
    monkeypatch.setattr("autoseg.imaging.scratch.LARGEST_IN_MEMORY", 0)
    found = predictor.predict(volume, probabilities=True)
    np.testing.assert_array_equal(found.labels.data, expected.labels.data)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert not list((tmp_path / "scratch").iterdir())
