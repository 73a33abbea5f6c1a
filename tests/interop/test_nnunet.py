"""nnU-Net's results become models of ours, or are refused with a sentence and nothing written."""

import importlib.util
import json
import pickle
import shutil
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

from autoseg.cli import main
from autoseg.errors import ModelError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_image
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.interop.nnunet import is_nnunet, read_nnunet
from autoseg.options import InferenceOptions
from autoseg.pipeline import import_model
from autoseg.reconstruct.components import KeepLargest, apply_rules
from autoseg.workspace import Workspace

_spec = importlib.util.spec_from_file_location("nnunet_material", Path(__file__).with_name("material.py"))
material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(material)

PLAIN = InferenceOptions(precision="fp32", mirror=False)
KINDS = {"3d": {}, "2d": {"flat": True}, "resenc": {"residual": True}, "resenc 2d": {"flat": True, "residual": True}}


@pytest.fixture(params=KINDS, ids=list(KINDS))
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def results(tmp_path):
    """A plain 3D results folder with one fold, and how to write another."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    spec = material.spec_of()
    material.write_results(folder, spec, material.configuration_of(spec))
    return folder


def rewritten(folder, change, file="plans.json"):
    """Change a JSON file of a results folder."""
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def configured(folder, **changes):
    return rewritten(folder, lambda plans: plans["configurations"]["3d_fullres"].update(changes))


def test_every_layer_keeps_its_weights(tmp_path, kind):
    spec = material.spec_of(**kind)
    flat = kind.get("flat", False)
    axes = (0, 1) if flat else (0, 1, 2)
    entry = material.configuration_of(spec, flat)
    states = material.write_results(
        tmp_path / "it", spec, entry, folds=("0", "3", "all"), inference_allowed_mirroring_axes=axes
    )
    found = read_nnunet(tmp_path / "it")
    assert replace(found.plan.network, deep_supervision=spec.deep_supervision) == spec
    assert found.plan.mirror_axes == ((1, 2) if flat else (0, 1, 2))
    assert found.plan.patch_size == ((1, 16, 16) if flat else (16, 16, 16))
    assert list(found.weights) == ["0", "3", "all"]
    for fold, state in states.items():
        assert found.weights[fold].keys() == state.keys()
        assert all(torch.equal(found.weights[fold][key], state[key]) for key in state)


def test_older_plans_describe_the_same_network(tmp_path):
    spec = material.spec_of()
    entry = material.configuration_of(spec)
    material.write_results(tmp_path / "new", spec, entry)
    material.write_results(tmp_path / "old", spec, material.older(entry))
    assert read_nnunet(tmp_path / "old").plan == read_nnunet(tmp_path / "new").plan


def test_a_configuration_inherits_what_it_does_not_say(tmp_path):
    spec = material.spec_of()
    entry = material.configuration_of(spec)
    material.write_results(tmp_path / "it", spec, {"inherits_from": "base", "batch_size": 5})
    rewritten(tmp_path / "it", lambda plans: plans["configurations"].update(base=entry))
    assert read_nnunet(tmp_path / "it").plan.batch_size == 5
    rewritten(tmp_path / "it", lambda plans: plans["configurations"]["base"].update(inherits_from="3d_fullres"))
    with pytest.raises(ModelError, match="configuration '3d_fullres' inherits from itself"):
        read_nnunet(tmp_path / "it")


def test_how_scans_are_prepared_comes_from_the_plans(tmp_path):
    spec = material.spec_of(channels=3)
    entry = material.configuration_of(spec)
    entry["normalization_schemes"] = ["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization"]
    entry["use_mask_for_norm"] = [False, True, False]
    entry["resampling_fn_data_kwargs"]["order_z"] = 1
    plans = {"transpose_forward": [2, 0, 1], "image_reader_writer": "NibabelIOWithReorient"}
    material.write_results(tmp_path / "it", spec, entry, plans=plans)
    found = read_nnunet(tmp_path / "it")
    ct, masked, scaled = found.plan.normalization
    assert (ct.scheme, ct.lower, ct.upper, ct.mean, ct.std) == ("ct_zscore", -50.0, 250.0, 80.0, 40.0)
    assert (masked.scheme, masked.use_mask, masked.fill_holes) == ("zscore", True, True)
    assert (scaled.scheme, scaled.use_mask) == ("rescale", False)
    assert (found.plan.axis_order, found.plan.orientation) == ((2, 0, 1), "canonical")
    assert (found.plan.resampling.image_order, found.plan.resampling.coarse_image_order) == (3, 1)
    assert (found.plan.resampling.logits_order, found.plan.resampling.coarse_logits_order) == (1, 0)
    assert found.channels == ("MRI0", "MRI1", "MRI2")


def test_the_resampling_of_torch_is_linear(results):
    names = {f"resampling_fn_{kind}": "resample_torch_fornnunet" for kind in ("data", "seg", "probabilities")}
    how = {f"{name}_kwargs": {"is_seg": False, "force_separate_z": False} for name in names}
    rule = read_nnunet(configured(results, **names, **how)).plan.resampling
    assert (rule.image_order, rule.coarse_image_order, rule.logits_order, rule.coarse_logits_order) == (1, 1, 1, 1)
    how = {f"{name}_kwargs": {"is_seg": False} for name in names}
    rule = read_nnunet(configured(results, **names, **how)).plan.resampling
    assert (rule.image_order, rule.coarse_image_order) == (1, 0)
    data = np.random.default_rng(0).normal(size=(1, 9, 14, 11)).astype(np.float32)
    grid = Geometry.from_spacing((9, 14, 11), (1.0, 1.0, 1.0))
    for shape in ((12, 7, 20), (9, 15, 11)):
        expected = torch.nn.functional.interpolate(torch.tensor(data)[None], shape, mode="trilinear")[0].numpy()
        assert resample_image(data, grid, grid.resized(shape), (1, 1, 1), clip=True) == pytest.approx(expected, abs=1e-5)
        expected = torch.nn.functional.interpolate(torch.tensor(data)[None], shape, mode="nearest-exact")[0].numpy()
        assert np.array_equal(resample_image(data, grid, grid.resized(shape), (0, 0, 0)), expected)


def test_regions_are_painted_one_over_the_other(tmp_path):
    labels = {"background": 0, "a": [1, 3], "b": [2, 3], "ignore": 4}
    spec = material.spec_of(classes=2)
    about = {"labels": labels, "regions_class_order": [1, 2]}
    material.write_results(tmp_path / "it", spec, material.configuration_of(spec), dataset=about)
    schema = read_nnunet(tmp_path / "it").labels
    assert (schema.has_regions, schema.ignore, schema.n_heads) == (True, 4, 2)
    assert schema.declared_values == (0, 1, 2, 3)
    assert schema.paint_codes == ((1, 1, 1, 1), (2, 2, 2, 2))  # where both are found the later wins, though 3 means both


def test_layers_without_bias_or_scale_get_those_that_do_nothing(tmp_path):
    spec = material.spec_of()
    entry = material.configuration_of(spec)
    entry["architecture"]["arch_kwargs"] |= {"conv_bias": False, "norm_op_kwargs": {"eps": 1e-5, "affine": False}}
    material.write_results(tmp_path / "it", spec, entry)
    path = tmp_path / "it" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    weights = content["network_weights"]
    for name in list(weights):
        if "seg_layers" not in name and (name.endswith(".bias") or ".norm." in name or ".all_modules.1." in name):
            del weights[name]
    torch.save(content, path)
    state = read_nnunet(tmp_path / "it").weights["0"]
    assert all(not value.any() for name, value in state.items() if name.endswith("bias") and "heads" not in name)
    assert all((value == 1).all() for name, value in state.items() if name.endswith("norm.weight"))


def test_what_wraps_a_network_leaves_no_trace_in_its_names(tmp_path, results):
    expected = read_nnunet(results).weights["0"]
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"] = {f"module._orig_mod.{name}": value for name, value in content["network_weights"].items()}
    torch.save(content, path)
    found = read_nnunet(results).weights["0"]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def as_zip(folder, path, head="Dataset900_Phantom/trainer__plans__3d_fullres/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, head + file.relative_to(folder).as_posix())
    return path


def test_folder_zip_fold_and_checkpoint_give_the_same_model(tmp_path, results):
    spec = material.spec_of()
    material.write_results(results, spec, material.configuration_of(spec), folds=("0", "1"))
    whole = read_nnunet(results)
    assert list(whole.weights) == ["0", "1"]
    for path in (as_zip(results, tmp_path / "a.zip"), as_zip(results, tmp_path / "b.zip", head="")):
        found = read_nnunet(path)
        assert (found.plan, found.labels, found.info) == (whole.plan, whole.labels, whole.info)
        assert all(torch.equal(found.weights["1"][key], value) for key, value in whole.weights["1"].items())
    for path in (results / "fold_1", results / "fold_1" / "checkpoint_final.pth"):
        one = read_nnunet(path)
        assert (list(one.weights), one.plan) == (["1"], whole.plan)


def test_a_fold_without_its_last_checkpoint_gives_its_best(results):
    (results / "fold_0" / "checkpoint_final.pth").rename(results / "fold_0" / "checkpoint_best.pth")
    assert read_nnunet(results).info["imported"]["folds"] == {"0": {"file": "checkpoint_best.pth", "epochs": 3}}


def test_a_zip_of_two_configurations_names_them(tmp_path, results):
    path = as_zip(results, tmp_path / "two.zip", head="D/first/")
    with zipfile.ZipFile(path, "a") as archive:
        for file in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            archive.writestr(f"D/second/{file}", b"{}")
    with pytest.raises(ModelError, match=r"found 2 \(first, second\)"):
        read_nnunet(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessor_name": "MyPreprocessor"}, "preprocessor_name is 'MyPreprocessor'"),
        ({"normalization_schemes": ["MyNormalization"]}, "MyNormalization is not known"),
        ({"normalization_schemes": []}, "1 channel, but normalization_schemes of 0"),
        ({"resampling_fn_data": "no_resampling_data_or_seg_to_shape"}, "resampling_fn_data is no_resampling"),
        ({"resampling_fn_data_kwargs": {"order": 3, "force_separate_z": True}}, "with {'order': 3, 'force_separate_z': True}"),
        ({"resampling_fn_probabilities_kwargs": {"order": 9}}, "spline orders from 0 to 5"),
        ({"patch_size": [15, 16, 16]}, "multiples of"),
        ({"patch_size": "large"}, "expected patch_size as a list"),
        ({"spacing": [1.0, 1.0]}, "expected spacing with three entries"),
        ({"architecture": {"network_class_name": "a.b.Primus", "arch_kwargs": {}}}, "the network Primus is not known"),
        ({"architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": []}}, "arch_kwargs as a dict"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(results, change, message):
    with pytest.raises(ModelError, match=message):
        read_nnunet(configured(results, **change))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"nonlin": "torch.nn.ReLU"}, "nonlin = 'torch.nn.ReLU'"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "nonlin_kwargs"),
        ({"norm_op": "torch.nn.BatchNorm3d"}, "norm_op"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "norm_op_kwargs"),
        ({"nonlin_first": True}, "nonlin_first"),
        ({"squeeze_excitation": True}, "squeeze_excitation"),
        ({"kernel_sizes": [[3, 3, 3]]}, "expected kernel_sizes with 3 entries"),
        ({"strides": [[1, 1], [2, 2], [2, 2]]}, "strides: expected 3 integers"),
    ],
)
def test_networks_that_are_not_ours_are_refused(results, argument, message):
    def change(plans):
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(argument)

    with pytest.raises(ModelError, match=message):
        read_nnunet(rewritten(results, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inference_allowed_mirroring_axes": (0, 5)}, "expected axes from 0 to 2"),
        ({"inference_allowed_mirroring_axes": "all"}, "how nnUNetTrainer mirrored is not known"),
        ({"trainer_name": None}, "expected trainer_name"),
        ({"init_args": {}}, "expected trainer_name and the configuration"),
        ({"init_args": {"configuration": "2d"}}, "there is no configuration '2d'; it has 3d_fullres"),
        ({"network_weights": None}, "it has no network_weights"),
    ],
)
def test_checkpoints_that_do_not_say_enough_are_refused(tmp_path, change, message):
    spec = material.spec_of()
    material.write_results(tmp_path / "it", spec, material.configuration_of(spec), **change)
    with pytest.raises(ModelError, match=message):
        read_nnunet(tmp_path / "it")


def test_a_checkpoint_that_is_silent_about_mirroring_is_refused(results):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    del content["inference_allowed_mirroring_axes"]
    torch.save(content, path)
    with pytest.raises(ModelError, match="inference_allowed_mirroring_axes is missing"):
        read_nnunet(results)


def test_a_trainer_without_mirroring_gives_a_model_without(tmp_path):
    spec = material.spec_of()
    axes = {"inference_allowed_mirroring_axes": None, "trainer_name": "nnUNetTrainer_NoMirroring"}
    material.write_results(tmp_path / "it", spec, material.configuration_of(spec), **axes)
    found = read_nnunet(tmp_path / "it")
    assert (found.plan.mirror_axes, found.info["imported"]["trainer"]) == ((), "nnUNetTrainer_NoMirroring")


def test_weights_that_do_not_fit_name_the_first_layer(results):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    weights = dict(content["network_weights"])
    name = "encoder.stages.1.0.convs.0.conv.weight"
    for change, message in (
        ({name: torch.zeros(8, 4, 1, 3, 3)}, rf"{name}: expected shape \(8, 4, 3, 3, 3\), found shape \(8, 4, 1, 3, 3\)"),
        ({name: None}, f"{name}: expected shape .*, found no such weights"),
        ({"encoder.stages.0.0.convs.0.norm.running_mean": torch.zeros(4)}, "which has no encoder.*running_mean"),
    ):
        torch.save({**content, "network_weights": {k: v for k, v in (weights | change).items() if v is not None}}, path)
        with pytest.raises(ModelError, match=message):
            read_nnunet(results)


def test_damaged_folders_are_refused_and_nothing_is_written(tmp_path, results):
    workspace = Workspace(tmp_path / "ws")
    spoil = {
        "plans.json": lambda path: path.write_text("{"),
        "dataset.json": lambda path: path.unlink(),
        "fold_0/checkpoint_final.pth": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    }
    for name, damage in spoil.items():
        copy = shutil.copytree(results, tmp_path / "copy")
        damage(copy / name)
        with pytest.raises(ModelError, match=name.rpartition("/")[2].replace(".", r"\.")):
            import_model(copy, workspace)
        shutil.rmtree(copy)
    assert not (tmp_path / "ws").exists()


def test_importing_makes_a_model_like_any_other(tmp_path, results, capsys):
    assert main(["model", "import", str(results), "--workspace", str(tmp_path / "ws")]) == 0
    model = tmp_path / "ws" / "models" / "Dataset900_Phantom_3d_fullres"
    assert capsys.readouterr().out.strip() == str(model)
    assert sorted(path.name for path in model.iterdir()) == ["fold_0.safetensors", "methods.md", "model.json", "references.bib"]
    predictor = Predictor(load_bundle(model), InferenceOptions(precision="fp32"), device="cpu")
    data = np.random.default_rng(0).normal(size=(1, 20, 18, 24)).astype(np.float32)
    found = predictor.predict(Volume(data, Geometry.from_spacing((20, 18, 24), (1.0, 1.0, 1.0))))
    assert set(np.unique(found.labels.data)) <= {0, 1, 2}
    assert main(["model", "import", str(results), "--workspace", str(tmp_path / "ws")]) == 2  # the name is taken
    assert main(["model", "import", str(results), "--workspace", str(tmp_path / "ws"), "--name", "second"]) == 0


def test_only_results_of_nnunet_are_taken_for_such(tmp_path, results):
    assert is_nnunet(results)
    assert is_nnunet(results / "fold_0")
    assert is_nnunet(as_zip(results, tmp_path / "it.zip"))
    model = import_model(results, Workspace(tmp_path / "ws"))
    assert not is_nnunet(model)
    (tmp_path / "other.zip").write_bytes(b"hello")
    assert not is_nnunet(tmp_path / "other.zip")


def remove_all_but_largest_component_from_segmentation():
    """Stands for nnU-Net's function, under its name."""


remove_all_but_largest_component_from_segmentation.__module__ = "nnunetv2.postprocessing.remove_connected_components"


def as_pickle(functions, arguments, monkeypatch):
    for name in ("nnunetv2", "nnunetv2.postprocessing", "nnunetv2.postprocessing.remove_connected_components"):
        monkeypatch.setitem(sys.modules, name, module := types.ModuleType(name))
    module.remove_all_but_largest_component_from_segmentation = remove_all_but_largest_component_from_segmentation
    return pickle.dumps((functions, arguments))


@pytest.mark.parametrize("ending", ["json", "pkl"])
def test_the_rules_of_cross_validation_come_along(tmp_path, results, ending, monkeypatch):
    rule = remove_all_but_largest_component_from_segmentation
    arguments = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": np.int64(2) if ending == "pkl" else 2}]
    folder = results / "crossval_results_folds_0_1_2_3_4"
    folder.mkdir()
    if ending == "json":
        content = {"postprocessing_fns": [rule.__name__] * 2, "postprocessing_kwargs": arguments}
        (folder / "postprocessing.json").write_text(json.dumps(content))
    else:
        (folder / "postprocessing.pkl").write_bytes(as_pickle([rule] * 2, arguments, monkeypatch))
    expected = (KeepLargest((1, 2)), KeepLargest((2,)))
    assert read_nnunet(results).postprocessing == expected
    path = import_model(as_zip(results, tmp_path / "it.zip"), Workspace(tmp_path / "ws"))
    bundle = load_bundle(path)
    assert bundle.postprocessing == expected
    data = np.random.default_rng(0).normal(size=(1, 20, 18, 24)).astype(np.float32)
    volume = Volume(data, Geometry.from_spacing((20, 18, 24), (1.0, 1.0, 1.0)))
    without = Predictor(replace(bundle, postprocessing=()), PLAIN, device="cpu").predict(volume).labels.data
    found = Predictor(bundle, PLAIN, device="cpu").predict(volume).labels.data
    assert np.array_equal(found, apply_rules(without, expected, 1.0))
    assert not np.array_equal(found, without)


def test_of_two_cross_validations_that_of_the_same_folds_counts(results):
    rule = "remove_all_but_largest_component_from_segmentation"
    for folds, label in (("0", 1), ("0_1", 2)):
        folder = results / f"crossval_results_folds_{folds}"
        folder.mkdir()
        content = {"postprocessing_fns": [rule], "postprocessing_kwargs": [{"labels_or_regions": label}]}
        (folder / "postprocessing.json").write_text(json.dumps(content))
    assert read_nnunet(results).postprocessing == (KeepLargest((1,)),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"postprocessing_fns": ["fill_holes"], "postprocessing_kwargs": [{}]}, "only remove_all_but_largest"),
        ({"postprocessing_fns": [], "postprocessing_kwargs": [{}]}, "as many sets of arguments"),
        ({}, "as many sets of arguments"),
        (
            {
                "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
                "postprocessing_kwargs": [{"labels_or_regions": [7]}],
            },
            r"the model has \[0, 1, 2\]",
        ),
    ],
)
def test_other_rules_are_refused(results, content, message):
    folder = results / "crossval_results_folds_0"
    folder.mkdir()
    (folder / "postprocessing.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        read_nnunet(results)
    (folder / "postprocessing.json").unlink()
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(([len], [{}])))
    with pytest.raises(ModelError, match="holds builtins.len, which is not plain data"):
        read_nnunet(results)


# Slow and obvious: one window, one case, by scikit-image and scipy, as nnU-Net's description says


def slowly(image, network, patch, spacing, target):
    """Class of each voxel: z-score, cubic resampling with its clipping, one window, linear resampling of the logits."""
    scaled = (image - image.mean()) / image.std()
    shape = [round(s / t * n) for s, t, n in zip(spacing, target, image.shape, strict=True)]
    small = resize(scaled.astype(float), shape, 3, mode="edge", anti_aliasing=False)
    lower = [(p - n) // 2 for p, n in zip(patch, shape, strict=True)]
    inner = tuple(slice(a, a + n) for a, n in zip(lower, shape, strict=True))
    window = np.zeros(patch)
    window[inner] = small
    with torch.inference_mode():
        logits = network(torch.tensor(window, dtype=torch.float32)[None, None])[0].numpy()
    return np.stack([resize(head[inner].astype(float), image.shape, 1, mode="edge", anti_aliasing=False) for head in logits])


def test_an_imported_model_predicts_what_the_plain_formulas_do(tmp_path):
    spec = material.spec_of()
    entry = material.configuration_of(spec, spacing=[1.2, 1.0, 0.9])
    material.write_results(tmp_path / "it", spec, entry)
    path = import_model(tmp_path / "it", Workspace(tmp_path / "ws"))
    predictor = Predictor(load_bundle(path), PLAIN, device="cpu")
    rng = np.random.default_rng(1)
    image = 50 + ndimage.gaussian_filter(rng.normal(size=(14, 12, 13)), 1.0) * 100
    image[3:6, 4:8, 5:9] += 500.0  # an edge, where cubic splines overshoot and are clipped
    spacing = (1.3, 1.1, 1.0)
    geometry = Geometry.from_spacing(image.shape, spacing)
    found = predictor.predict(Volume(image[None].astype(np.float32), geometry), probabilities=True)
    logits = slowly(image.astype(np.float32), predictor.networks[0], (16, 16, 16), spacing, (1.2, 1.0, 0.9))
    chances = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert np.abs(found.probabilities - chances).max() < 1e-3
    assert (found.labels.data == logits.argmax(axis=0)).mean() > 0.999


def test_scans_are_taken_as_stored(tmp_path, results):
    path = import_model(results, Workspace(tmp_path / "ws"))
    predictor = Predictor(load_bundle(path), PLAIN, device="cpu")
    data = np.random.default_rng(2).normal(size=(1, 16, 16, 16)).astype(np.float32)
    grid = Geometry.from_spacing((16, 16, 16), (1.0, 1.0, 1.0))
    straight = predictor.predict(Volume(data, grid)).labels.data
    turned = predictor.predict(Volume(data, grid.flipped((0, 2)))).labels.data  # the same array, another direction in space
    assert np.array_equal(straight, turned)


def write_fingerprint(folder: Path, **changes: object) -> None:
    """What nnU-Net measured of four cases, axes as in their files."""
    shapes = [[20, 18, 24], [20, 19, 24], [21, 18, 25], [20, 18, 24]]
    numbers = {"0": {"percentile_00_5": -1.0, "percentile_99_5": 1.0}}
    content = {"spacings": [[1.0, 1.0, 1.0]] * 4, "shapes_after_crop": shapes}
    content |= {"foreground_intensity_properties_per_channel": numbers, "median_relative_size_after_cropping": 1.0}
    (folder / "dataset_fingerprint.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize("kind_of_file", ["folder", "zip"])
def test_the_fingerprint_of_the_training_data_comes_along_where_it_is_there(
    tmp_path: Path, results: Path, kind_of_file: str
) -> None:
    assert read_nnunet(results).scans is None
    write_fingerprint(results)
    source = results if kind_of_file == "folder" else as_zip(results, tmp_path / "it.zip")
    bundle = load_bundle(import_model(source, Workspace(tmp_path / "ws")))
    assert bundle.scans is not None
    assert (bundle.scans.cases, bundle.scans.shape[1].low, bundle.scans.spacing_mm[0].high) == (4, 18, 1)
    predictor = Predictor(bundle, PLAIN, device="cpu")
    data = np.random.default_rng(2).normal(size=(1, 20, 18, 24)).astype(np.float32)
    like, coarse = (predictor.prepare(Volume(data, Geometry.from_spacing((20, 18, 24), (z, 1, 1)))) for z in (1, 4))
    assert like.unlike == ()
    assert [one.quantity for one in coarse.unlike or ()] == ["spacing along z", "size along z"]


@pytest.mark.parametrize(
    "changes",
    [
        {"spacings": [[1.0, 1.0, 1.0]] * 3},
        {"spacings": [[1.0, 1.0]] * 4, "shapes_after_crop": [[2, 2]] * 4},
        {"spacings": [[0.0, 1.0, 1.0]] * 4},
        {"spacings": "none"},
        {"shapes_after_crop": [[1, 2, 3], [4]]},
        {"spacings": [], "shapes_after_crop": []},
        {"spacings": [[float("nan")] * 3] * 4},
    ],
)
def test_a_fingerprint_that_makes_no_sense_is_passed_over(results: Path, changes: dict[str, object]) -> None:
    write_fingerprint(results, **changes)
    assert read_nnunet(results).scans is None
