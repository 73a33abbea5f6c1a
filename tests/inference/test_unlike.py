"""A scan that is unlike those that a model learned from is told: in the records, on the page and by a warning."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.data.intensities import PERCENTILES
from autoseg.data.scan import CaseScan, scan_dataset
from autoseg.data.unlike import TrainingScans, Unlike, training_scans
from autoseg.errors import ModelError
from autoseg.imaging.files import read_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import add_scans, load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions, PredictOptions, ReportOptions, Runtime
from autoseg.pipeline import predict, report
from autoseg.preprocess.facts import scan_facts, unlike_training
from autoseg.records import doubts, read_case, read_cohort
from planners.plan import ChannelNormalization, Plan
from tests.helpers.datasets import Folder
from tests.helpers.models import LABELS, make_plan, write_model

SHAPE = (20, 24, 28)
CPU = Runtime(device="cpu", workers=1)
PLAIN = PredictOptions(inference=InferenceOptions(mirror=False))


def voxels(seed: int, shape: Sequence[int] = SHAPE) -> np.ndarray:
    """(1, Z, Y, X): mostly dark, from 20 to 420."""
    return (20 + 400 * np.random.default_rng(seed).beta(1.5, 4, (1, *shape))).astype(np.float32)


def volume(data: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(data.astype(np.float32), Geometry.from_spacing(data.shape[1:], spacing_mm))


def plan_of(*schemes: str, **changes: Any) -> Plan:
    """A plan with a channel for each scheme, C0 and so on; ``ct`` clips to 0 and 300."""
    how = tuple(ChannelNormalization(f"C{i}", scheme, lower=0.0, upper=300.0) for i, scheme in enumerate(schemes))
    network = dataclasses.replace(make_plan().network, in_channels=len(how), input_mean=(), input_std=())
    return dataclasses.replace(make_plan(), normalization=how, network=network, **changes)


def learned_from(folder: Path, n: int = 8, channels: int = 1, **options: Any) -> tuple[tuple[CaseScan, ...], TrainingScans]:
    """Scans of a data set of ``voxels``, and what a model keeps of them."""
    made = Folder(folder, channels)
    for seed in range(n):
        made.add(f"case{seed}", image=voxels(seed)[0], spacing_mm=(1.0, 1.0, 1.0), **options)
    spec = made.read()
    scans = scan_dataset(spec)
    found = training_scans(tuple(f"C{i}" for i in range(channels)), scans)
    assert found is not None
    return scans, found


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> TrainingScans:
    return learned_from(tmp_path_factory.mktemp("like") / "Dataset001_Like")[1]


def test_a_training_scan_is_measured_like_one_to_predict(tmp_path: Path) -> None:
    turned = Geometry.from_affine(SHAPE, [[0, 0, -1.5, 3], [0, 2.0, 0, 4], [3.0, 0, 0, 5]])
    scans, _ = learned_from(tmp_path / "Dataset002_Turned", n=1, geometry=turned)
    facts = scan_facts(read_volume(tmp_path / "Dataset002_Turned" / "imagesTr" / "case0_0000.nii.gz"), make_plan())
    assert (facts.shape, facts.spacing_mm) == (scans[0].shape, scans[0].spacing_mm)
    np.testing.assert_allclose(facts.percentiles[0], scans[0].channels[0].percentiles, rtol=1e-6)
    assert np.all(np.diff(facts.percentiles[0]) >= 0)
    assert len(facts.percentiles[0]) == len(PERCENTILES)


@pytest.mark.parametrize("scheme", ["robust", "zscore", "ct", "none"])
def test_a_scan_like_those_of_the_training_is_not_told(training: TrainingScans, scheme: str) -> None:
    assert [unlike_training(volume(voxels(seed)), plan_of(scheme), training) for seed in range(100, 120)] == [()] * 20


def test_spacing_and_field_of_view_are_told_in_words(training: TrainingScans) -> None:
    coarse, part = voxels(50, (20, 6, 28)), voxels(50)[:, 5:15]
    assert [*map(str, unlike_training(volume(coarse, (1, 4, 1)), plan_of("robust"), training))] == [
        "spacing along y: 4 mm, in training 1 mm"
    ]
    assert [*map(str, unlike_training(volume(part), plan_of("robust"), training))] == ["size along z: 10 mm, in training 20 mm"]


def test_the_number_of_voxels_is_told_where_neither_spacing_nor_size_explains_it(training: TrainingScans) -> None:
    found = unlike_training(volume(voxels(50, (15, 24, 28)), (1.45, 1, 1)), plan_of("robust"), training)
    assert found == ()
    found = unlike_training(volume(voxels(50, (12, 24, 28)), (1.25, 1, 1)), plan_of("robust"), training)
    assert [*map(str, found)] == ["voxels along z: 12, in training 20"]


def test_the_distance_of_slices_is_nothing_to_a_network_that_sees_one(training: TrainingScans) -> None:
    flat = volume(voxels(50), (9, 1, 1))
    assert unlike_training(flat, plan_of("robust"), training) != ()
    slices = plan_of("robust")
    slices = dataclasses.replace(
        slices,
        patch_size=(1, 16, 16),
        network=dataclasses.replace(slices.network, strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3),) * 2),
    )
    assert unlike_training(flat, slices, training) == ()


@pytest.mark.parametrize("scheme", ["ct", "ct_zscore", "none"])
@pytest.mark.parametrize(
    "change",
    [lambda x: (x - x.min()) / np.ptp(x), lambda x: x + 300, lambda x: 440 - x, lambda x: x * 3],
    ids=["0 to 1", "shifted", "inverted", "another unit"],
)
def test_intensities_of_one_scale_are_told_in_their_unit(training: TrainingScans, scheme: str, change: Any) -> None:
    (found,) = unlike_training(volume(change(voxels(50))), plan_of(scheme), training)
    assert found.quantity.endswith(" of C0")
    assert found.low > 20


@pytest.mark.parametrize("scheme", ["robust", "zscore", "rescale"])
def test_where_each_scan_has_its_own_scale_only_the_form_of_the_histogram_counts(training: TrainingScans, scheme: str) -> None:
    data, plan = voxels(50), plan_of(scheme)
    for same in (data / 1000, data * 50, data + 300):
        assert unlike_training(volume(same), plan, training) == ()
    (found,) = unlike_training(volume(440 - data), plan, training)
    assert str(found).startswith("median of C0, from its darkest (0) to its brightest (1): 0.")


def test_what_clipping_takes_away_is_not_told(tmp_path: Path) -> None:
    padded = voxels(50)
    padded[:, :, :3] = -3000  # an eighth of the scan, outside a round field of view
    _, training = learned_from(tmp_path / "Dataset003_CT")
    low = dataclasses.replace(plan_of("ct").normalization[0], lower=-20.0)
    clipped, unclipped = dataclasses.replace(plan_of("ct"), normalization=(low,)), plan_of("none")
    assert unlike_training(volume(padded), clipped, training) == ()
    (found,) = unlike_training(volume(padded), unclipped, training)
    assert (found.quantity, found.found) == ("percentile 5 of C0", -3000)


def test_infinite_voxels_that_clipping_makes_finite_are_told_as_a_finite_number(training: TrainingScans) -> None:
    bright = voxels(50)
    bright[:, :, :3] = np.inf
    (found,) = unlike_training(volume(bright), plan_of("ct"), training)
    assert found.quantity == "percentile 95 of C0"
    assert np.isfinite(found.found)
    for scheme in ("robust", "zscore"):  # warns of no number
        unlike_training(volume(bright), plan_of(scheme), training)


def test_exchanged_channels_are_both_told(tmp_path: Path) -> None:
    _, training = learned_from(tmp_path / "Dataset004_Two", channels=2)
    bright = dataclasses.replace(training.channels[1], scaled=learned_bright(training))
    training = dataclasses.replace(training, channels=(training.channels[0], bright))
    dark, light = voxels(50), 440 - voxels(51)
    plan = plan_of("robust", "robust")
    assert unlike_training(volume(np.concatenate([dark, light])), plan, training) == ()
    found = unlike_training(volume(np.concatenate([light, dark])), plan, training)
    assert [one.quantity.split(",")[0].split()[-1] for one in found] == ["C0", "C1"]


def learned_bright(training: TrainingScans) -> Any:
    """The ranges of channel 0, turned round."""
    turned = [
        dataclasses.replace(one, low=1 - one.high, middle=1 - one.middle, high=1 - one.low)
        for one in training.channels[0].scaled
    ]
    return tuple(reversed(turned))


def test_a_scan_of_one_value_is_told(training: TrainingScans) -> None:
    for value in (0, 5):
        (found,) = unlike_training(volume(np.full((1, *SHAPE), value)), plan_of("robust"), training)
        assert found.found == 0


def test_scans_that_an_older_version_measured_say_nothing_of_intensities(tmp_path: Path) -> None:
    scans, _ = learned_from(tmp_path / "Dataset005_Old", n=2)
    older = [
        dataclasses.replace(one, channels=tuple(dataclasses.replace(channel, percentiles=()) for channel in one.channels))
        for one in scans
    ]
    training = training_scans(("C0",), older)
    assert training is not None
    assert training.channels[0].percentiles == ()
    assert unlike_training(volume(440 - voxels(50)), plan_of("robust"), training) == ()
    (found,) = unlike_training(volume(voxels(50)[:, :5]), plan_of("robust"), training)
    assert found.quantity == "size along z"


def test_where_only_the_structures_were_measured_ct_in_another_unit_is_told(training: TrainingScans) -> None:
    bare = dataclasses.replace(training.channels[0], percentiles=(), scaled=())
    training = dataclasses.replace(training, channels=(bare,))
    assert unlike_training(volume(voxels(50)), plan_of("ct_zscore"), training) == ()
    (found,) = unlike_training(volume(voxels(50) / 400), plan_of("ct_zscore"), training)
    name = "share of the structures' intensities, 0 to 300, that C0 reaches"
    assert (found.quantity, found.low, found.high, found.unit) == (name, 100, 100, "%")
    assert found.found == pytest.approx(100 * voxels(50).max() / 400 / 300, rel=0.06)  # from its lowest value on, not from 0
    assert unlike_training(volume(voxels(50) / 400), plan_of("zscore"), training) == ()


def test_a_model_keeps_what_its_training_scans_were_like_and_its_digest(tmp_path: Path, training: TrainingScans) -> None:
    model = tmp_path / "model"
    training = named_mri(training)
    before = write_model(model, make_plan(), seeds=(0, 1))
    after = add_scans(model, training)
    assert (before.scans, after.scans, after.digest) == (None, training, before.digest)
    assert add_scans(model, None).scans == training
    write_model(model, make_plan(), seeds=(2,))  # a further fold
    assert load_bundle(model).scans == training
    with pytest.raises(Exception, match=r"names the channels \('MRI',\), but says what \('C0',\) were like"):
        add_scans(model, dataclasses.replace(training, channels=(dataclasses.replace(training.channels[0], name="C0"),)))
    with pytest.raises(ModelError, match="there is no such model"):
        add_scans(tmp_path / "none", training)
    assert [path.name for path in tmp_path.iterdir() if "none" in path.name] == []  # no lock either


def named_mri(training: TrainingScans) -> TrainingScans:
    return dataclasses.replace(training, channels=(dataclasses.replace(training.channels[0], name="MRI"),))


@pytest.fixture
def cohort(tmp_path: Path, training: TrainingScans) -> tuple[Path, Path, Path]:
    """(scans, of which ``odd`` is coarse; model of two folds that disagree; folder for results)."""
    scans, model = tmp_path / "scans", tmp_path / "model"
    scans.mkdir()
    write_volume(volume(voxels(50)), scans / "like_0000.nii.gz")
    write_volume(volume(voxels(51), (3, 1, 1)), scans / "odd_0000.nii.gz")
    write_model(model, make_plan(), seeds=(0, 1))
    add_scans(model, named_mri(training))
    return scans, model, tmp_path / "out"


@pytest.mark.thorough
def test_records_and_the_log_say_which_scans_are_unlike(
    cohort: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    scans, model, out = cohort
    sentence = "unlike the training data: spacing along z: 3 mm, in training 1 mm; size along z: 60 mm, in training 20 mm"
    for _ in range(2):  # the second time both are skipped
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            predict(scans, out, model, PLAIN, CPU)
        assert f"odd: {sentence}" in caplog.messages
        assert not any(message.startswith("like:") for message in caplog.messages)
        assert {case.case: case.warnings for case in read_cohort(out).cases} == {"like": (), "odd": (sentence,)}
    like, odd = read_case(out / "like.json"), read_case(out / "odd.json")
    assert like is not None
    assert odd is not None
    assert (like.unlike, like.warnings) == ((), ())
    assert odd.unlike == (Unlike("spacing along z", 3.0, 1.0, 1.0, "mm"), Unlike("size along z", 60.0, 20.0, 20.0, "mm"))


@pytest.mark.thorough
def test_a_model_that_does_not_say_what_it_learned_from_says_nothing_of_scans(
    tmp_path: Path, cohort: tuple[Path, Path, Path]
) -> None:
    scans, _, out = cohort
    write_model(tmp_path / "silent", make_plan())
    predict(scans, out, tmp_path / "silent", PLAIN, CPU)
    assert "unlike" not in json.loads((out / "odd.json").read_text())
    assert {case.warnings for case in read_cohort(out).cases} == {()}
    assert "How sure is this?" not in report(out, ReportOptions(), CPU).path.read_text()


@pytest.mark.thorough
def test_structures_on_which_the_folds_disagree_are_named(
    cohort: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    scans, model, out = cohort
    with caplog.at_level(logging.WARNING):
        predict(scans, out, model, PredictOptions(inference=InferenceOptions(fold_agreement=True, mirror=False)), CPU)
    found = read_case(out / "like.json")
    assert found is not None
    dice = found.agreement["ball"]
    assert dice is not None
    assert dice < 0.7
    assert f"like: the folds disagree on ball (inter-fold Dice {dice:.2f})" in caplog.messages
    page = report(out, ReportOptions(), CPU).path.read_text()
    assert page.count("How sure is this?") == 2
    assert page.count("The folds of the model disagree (Dice below 0.7) on ball") == 2
    assert page.count("Spacing, size and intensities are like those") == 1
    assert "<li>spacing along z: 3 mm, in training 1 mm</li>" in page
    assert page.index('data-case="like"') < page.index('data-case="odd"')


def test_agreement_is_low_below_a_threshold_and_where_no_folds_share_a_voxel() -> None:
    assert doubts((), {"a": 0.7, "b": None, "c": 0.69, "d": 0.0}) == (
        "the folds disagree on c (inter-fold Dice 0.69), d (inter-fold Dice 0.00)",
    )


@pytest.mark.thorough
def test_a_scan_alone_is_told_too(cohort: tuple[Path, Path, Path]) -> None:
    scans, model, _ = cohort
    torch.manual_seed(0)
    found = Predictor(model, InferenceOptions(mirror=False), device="cpu").predict(scans / "odd_0000.nii.gz")
    assert found.unlike is not None
    assert [one.quantity for one in found.unlike] == ["spacing along z", "size along z"]
    assert found.labels.data.max() in (0, LABELS.values[0][0])
