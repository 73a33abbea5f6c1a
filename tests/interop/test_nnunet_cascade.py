"""Both stages of nnU-Net's cascade become one model, which predicts what the plain formulas do."""

from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

from autoseg.cli import main
from autoseg.errors import ModelError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_codes
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.interop.nnunet import is_nnunet, read_nnunet
from autoseg.options import InferenceOptions
from autoseg.pipeline import import_model
from autoseg.preprocess.case import coarse_codes
from autoseg.workspace import Workspace
from planners.plan import CoarseLabels
from tests.helpers.models import make_plan

_spec = importlib.util.spec_from_file_location("nnunet_material", Path(__file__).with_name("material.py"))
assert _spec is not None
assert _spec.loader is not None
material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(material)

PLAIN = InferenceOptions(precision="fp32", mirror=False)
LOWRES, CASCADE = "nnUNetTrainer__nnUNetPlans__3d_lowres", "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"


def write_cascade(folder: Path, *, regions: bool = False, folds: tuple[str, ...] = ("0",), fine: Any = None) -> Path:
    """Results folders of both stages, side by side; the second one inherits from 3d_fullres, as nnU-Net plans it."""
    heads = 2 if regions else 3
    one, two = material.spec_of(classes=heads), material.spec_of(classes=heads, channels=4 if regions else 3)
    full = material.configuration_of(one, spacing=[1.2, 1.0, 0.9])
    configurations = {
        "3d_lowres": {**full, "spacing": [2.0, 1.8, 1.9], "next_stage": "3d_cascade_fullres"},
        "3d_fullres": full,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres", **(fine or {})},
    }
    dataset: dict[str, Any] = {"channel_names": {"0": "MRI0"}}
    if regions:
        dataset |= {"labels": {"background": 0, "a": [1, 2, 3], "b": [2, 3]}, "regions_class_order": [3, 2]}
    plans = {"configurations": configurations}
    for name, spec in ((LOWRES, one), (CASCADE, two)):
        kind = name.rpartition("__")[2]
        material.write_results(folder / name, spec, full, name=kind, folds=folds, plans=plans, dataset=dataset)
    return folder


def rewritten(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def as_zip(folder: Path, path: Path, names: tuple[str, ...] = (LOWRES, CASCADE)) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            for file in sorted((folder / name).rglob("*")):
                if file.is_file():
                    archive.write(file, f"Dataset900_Phantom/{name}/{file.relative_to(folder / name).as_posix()}")
    return path


def test_folder_of_both_either_beside_the_other_and_zip_give_the_same_model(tmp_path: Path) -> None:
    folder = write_cascade(tmp_path / "results", folds=("0", "1"))
    whole = read_nnunet(folder)
    assert (whole.name, whole.plan.coarse) == ("Dataset900_Phantom_3d_cascade_fullres", CoarseLabels("3d_lowres", 2))
    assert whole.coarse is not None
    assert (whole.plan.network.in_channels, whole.coarse.plan.network.in_channels) == (3, 1)
    assert list(whole.weights) == list(whole.coarse.weights) == ["0", "1"]
    for path in (folder / CASCADE, as_zip(folder, tmp_path / "it.zip")):
        assert is_nnunet(path)
        found = read_nnunet(path)
        assert found.coarse is not None
        assert (found.plan, found.coarse.plan, found.info) == (whole.plan, whole.coarse.plan, whole.info)
        for one, other in ((found, whole), (found.coarse, whole.coarse)):
            assert all(torch.equal(one.weights["1"][key], value) for key, value in other.weights["1"].items())
    one_fold = read_nnunet(folder / CASCADE / "fold_1")
    assert one_fold.coarse is not None
    assert list(one_fold.weights) == list(one_fold.coarse.weights) == ["1"]
    shutil.rmtree(folder / LOWRES / "fold_1")
    one_fold = read_nnunet(folder / CASCADE / "fold_1")
    assert one_fold.coarse is not None
    assert list(one_fold.coarse.weights) == ["0"]  # all that there are
    assert read_nnunet(folder / LOWRES).coarse is None  # the first stage is a model by itself


def test_the_coarse_stage_hands_on_what_its_networks_say(tmp_path: Path) -> None:
    folder = write_cascade(tmp_path / "results")
    rules = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": 1}],
    }
    for name in (LOWRES, CASCADE):
        (folder / name / "crossval_results_folds_0").mkdir()
        (folder / name / "crossval_results_folds_0" / "postprocessing.json").write_text(json.dumps(rules))
    found = read_nnunet(folder)
    assert found.coarse is not None
    assert (len(found.postprocessing), found.coarse.postprocessing) == (1, ())


def test_importing_a_cascade_makes_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_cascade(tmp_path / "results")
    assert main(["model", "import", str(folder), "--workspace", str(tmp_path / "ws")]) == 0
    model = Path(capsys.readouterr().out.strip())
    assert sorted(path.name for path in model.iterdir()) == [
        "coarse",
        "fold_0.safetensors",
        "methods.md",
        "model.json",
        "references.bib",
    ]
    data = np.random.default_rng(0).normal(size=(1, 20, 18, 24)).astype(np.float32)
    volume = Volume(data, Geometry.from_spacing((20, 18, 24), (1.0, 1.0, 1.0)))
    found = Predictor(model, InferenceOptions(precision="fp32"), device="cpu").predict(volume)
    assert set(np.unique(found.labels.data)) <= {0, 1, 2}


def spoil_labels(folder: Path) -> None:
    rewritten(folder / LOWRES / "dataset.json", lambda about: about["labels"].update(right=3))


def spoil_channels(folder: Path) -> None:
    rewritten(folder / LOWRES / "dataset.json", lambda about: about.update(channel_names={"0": "CT"}))


def exchange(folder: Path) -> None:
    """The folder of the first stage holds another configuration."""
    shutil.rmtree(folder / LOWRES)
    spec = material.spec_of()
    material.write_results(folder / LOWRES, spec, material.configuration_of(spec), name="3d_fullres")


def empty(folder: Path) -> None:
    shutil.rmtree(folder / LOWRES / "fold_0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder / LOWRES), "second stage of a cascade and reads what 3d_lowres predicted"),
        (empty, "Expected the results folder of 3d_lowres, with a trained fold"),
        (spoil_labels, "its channels or labels are not those of 3d_cascade_fullres"),
        (spoil_channels, "its channels or labels are not those of 3d_cascade_fullres"),
        (exchange, "expected the first stage, 3d_lowres, of the cascade 3d_cascade_fullres; found 3d_fullres"),
    ],
)
def test_half_a_cascade_is_refused_and_nothing_is_written(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = write_cascade(tmp_path / "results")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        import_model(folder / CASCADE, Workspace(tmp_path / "ws"))
    assert not (tmp_path / "ws").exists()


def test_other_cascades_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_cascade(
        tmp_path / "order", fine={"resampling_fn_seg_kwargs": {"order": 2, "order_z": 1, "force_separate_z": None}}
    )
    with pytest.raises(ModelError, match="resampling_fn_seg: spline order 1 along a coarse axis is not supported"):
        read_nnunet(folder)
    folder = write_cascade(tmp_path / "three")
    rewritten(folder / LOWRES / "plans.json", lambda plans: plans["configurations"]["3d_lowres"].update(previous_stage="2d"))
    with pytest.raises(ModelError, match=r"encoder|another cascade"):
        read_nnunet(folder / CASCADE)
    with pytest.raises(ModelError, match="reads what 3d_lowres predicted"):
        read_nnunet(as_zip(write_cascade(tmp_path / "half"), tmp_path / "half.zip", names=(CASCADE,)))
    both = write_cascade(tmp_path / "several")
    shutil.copytree(both / LOWRES, both / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    with pytest.raises(ModelError, match=r"or the two of a cascade; found 3 \(.*Give the folder of one"):
        read_nnunet(both)
    shutil.rmtree(both / CASCADE)
    with pytest.raises(ModelError, match=r"or the two of a cascade; found 2"):
        read_nnunet(both)


# Slow and obvious: by scikit-image and scipy, as nnU-Net's source says


def resized_labels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels on another grid: each indicator resized alone, the largest wins, the nearest where they tie."""
    kinds = np.unique(values)
    how: dict[str, Any] = {"mode": "edge", "clip": True, "anti_aliasing": False}
    scores = np.stack([resize((values == kind).astype(float), shape, 1, **how) for kind in kinds])
    found = kinds[scores.argmax(axis=0)]
    nearest = resize(values.astype(float), shape, 0, **how).astype(values.dtype)
    score_of_nearest = np.take_along_axis(scores, np.searchsorted(kinds, nearest)[None], axis=0)[0]
    return np.where(np.isclose(score_of_nearest, scores.max(axis=0), atol=1e-9), nearest, found)


@pytest.mark.parametrize("shape", [(9, 14, 11), (4, 7, 5), (16, 28, 20), (8, 14, 10), (8, 7, 20)])
def test_labels_go_to_another_grid_as_in_nnunet(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    codes = (ndimage.gaussian_filter(rng.normal(size=(8, 14, 10)), 1.2) * 12).round().clip(0, 3).astype(np.int16)
    grid = Geometry.from_spacing(codes.shape, (1.0, 1.0, 1.0))
    found = resample_codes(codes, grid, grid.resized(shape), (1, 1, 1), nearest_of_equals=True)
    np.testing.assert_array_equal(found, resized_labels(codes, shape))


def test_background_around_the_patient_is_a_label_of_its_own_on_the_way_as_in_nnunet() -> None:
    rng = np.random.default_rng(5)
    codes = (ndimage.gaussian_filter(rng.normal(size=(8, 14, 10)), 0.7) * 6).round().clip(0, 3).astype(np.int16)
    image = (rng.random((8, 14, 10)) > 0.4).astype(np.float32)
    image[[0, -1], [0, -1], [0, -1]] = 1  # the box around it is all
    plan = make_plan()
    network = replace(plan.network, in_channels=4, input_mean=(), input_std=())
    plan = replace(plan, network=network, coarse=CoarseLabels("coarse", 3), spacing_mm=(0.8, 0.8, 0.8))
    volume = Volume(image[None], Geometry.from_spacing(codes.shape, (1.0, 1.0, 1.0)))
    found = coarse_codes(codes, volume, plan)
    around = np.where((codes == 0) & ~ndimage.binary_fill_holes(image > 0), -1, codes)
    expected = resized_labels(around, found.shape).clip(0)
    np.testing.assert_array_equal(found, expected)
    assert (resized_labels(codes, found.shape) != expected).any()  # it matters


def logits_of(network: Any, window: np.ndarray, inner: tuple[slice, ...]) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = network(torch.tensor(window, dtype=torch.float32)[None])[0].numpy()
    return found[(slice(None), *inner)]


def slowly(image: np.ndarray, predictor: Predictor, spacing: tuple[float, ...], labels: np.ndarray | None = None) -> np.ndarray:
    """Logits of each voxel: z-score, resampling, labels behind the image, one window, and back."""
    patch, target = predictor.bundle.plan.patch_size, predictor.bundle.plan.spacing_mm
    scaled = (image - image.mean()) / image.std()
    shape = tuple(round(s / t * n) for s, t, n in zip(spacing, target, image.shape, strict=True))
    channels = [resize(scaled.astype(float), shape, 3, mode="edge", anti_aliasing=False)]
    if labels is not None:
        fine = resized_labels(labels, shape)
        channels += [fine == value for value in range(1, predictor.bundle.plan.network.in_channels)]
    lower = [(p - n) // 2 for p, n in zip(patch, shape, strict=True)]
    inner = tuple(slice(a, a + n) for a, n in zip(lower, shape, strict=True))
    window = np.zeros((len(channels), *patch))
    window[(slice(None), *inner)] = channels
    logits = logits_of(predictor.networks[0], window, inner)
    return np.stack([resize(head.astype(float), image.shape, 1, mode="edge", anti_aliasing=False) for head in logits])


@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_an_imported_cascade_predicts_what_the_plain_formulas_do(tmp_path: Path, regions: bool) -> None:
    path = import_model(write_cascade(tmp_path / "results", regions=regions), Workspace(tmp_path / "ws"))
    predictor = Predictor(load_bundle(path), PLAIN, device="cpu")
    assert predictor.coarse is not None
    rng = np.random.default_rng(1)
    image = (50 + ndimage.gaussian_filter(rng.normal(size=(14, 12, 13)), 1.0) * 100).astype(np.float32)
    spacing = (1.3, 1.1, 1.0)
    found = predictor.predict(Volume(image[None], Geometry.from_spacing(image.shape, spacing)), probabilities=True)

    def decided(logits: np.ndarray) -> np.ndarray:
        if not regions:
            return logits.argmax(axis=0)
        return np.where(logits[1] > 0, 2, np.where(logits[0] > 0, 3, 0))  # regions_class_order 3, 2; the later on top

    first = decided(slowly(image, predictor.coarse, spacing))
    assert 0.02 < (first > 0).mean() < 0.98
    logits = slowly(image, predictor, spacing, first)
    chances = 1 / (1 + np.exp(-logits)) if regions else np.exp(logits) / np.exp(logits).sum(axis=0)
    assert found.probabilities is not None
    assert np.abs(found.probabilities - chances).max() < 1e-3
    assert (found.labels.data == decided(logits)).mean() > 0.999
    silent = slowly(image, predictor, spacing, np.zeros_like(first))
    assert np.abs(silent - logits).max() > 0.01  # the labels are looked at


def test_with_half_sums_a_tie_of_the_coarse_stage_falls_as_in_nnunet(tmp_path: Path) -> None:
    """nnU-Net rounds logits to half precision on the scan's grid too, and hands on the first of equals."""
    predictor = Predictor(
        import_model(write_cascade(tmp_path / "results"), Workspace(tmp_path / "ws")),
        InferenceOptions(precision="fp32", mirror=False, half_sums=True),
        device="cpu",
    )
    coarse = predictor.coarse
    assert coarse is not None
    state = coarse.networks[0].state_dict()
    for part in ("weight", "bias"):
        heads = state[f"decoder.heads.0.{part}"]
        heads[1:] = heads[0] + (heads[1:] - heads[0]) * 1e-3  # heads that hardly differ
    rng = np.random.default_rng(1)
    image = (50 + ndimage.gaussian_filter(rng.normal(size=(24, 20, 22)), 1.0) * 100).astype(np.float32)
    volume = Volume(image[None], Geometry.from_spacing(image.shape, (1.3, 1.1, 1.0)))
    logits = coarse.infer(coarse.prepare(volume)).logits
    how: dict[str, Any] = {"mode": "edge", "anti_aliasing": False}
    whole = np.stack([resize(head.astype(float), image.shape, 1, **how) for head in logits])
    found = predictor.prepare(volume).data[1:]

    def agree(logits: np.ndarray) -> float:
        labels = resized_labels(logits.argmax(axis=0), found.shape[1:])
        return float((found == np.stack([labels == code for code in (1, 2)])).mean())

    assert agree(whole.astype(np.float16)) > 0.999  # all but where float32 rounds to another half
    assert agree(whole) < 0.98
