"""Models for other programs: nnU-Net's results folders, and ONNX."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, ModelError
from autoseg.inference.bundle import load_bundle, load_networks, save_bundle
from autoseg.interop.nnunet import read_nnunet
from autoseg.interop.onnx_export import write_onnx
from autoseg.networks import build_network
from autoseg.pipeline import export_model, import_model
from autoseg.reconstruct.components import KeepLargest
from autoseg.workspace import Workspace
from planners.plan import AttentionStage, ChannelNormalization

_spec = importlib.util.spec_from_file_location("nnunet_material", Path(__file__).with_name("material.py"))
material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(material)

KINDS = {"3d": {}, "2d": {"flat": True}, "resenc": {"residual": True}}


@pytest.fixture(params=KINDS, ids=list(KINDS))
def imported(request, tmp_path):
    """A model that came from nnU-Net, of two folds and with a rule for its labels."""
    kind = KINDS[request.param]
    spec, flat = material.spec_of(**kind), kind.get("flat", False)
    entry = material.configuration_of(spec, flat)
    axes = {"inference_allowed_mirroring_axes": (0, 1)}
    name = "2d" if flat else "3d_fullres"
    material.write_results(tmp_path / "first", spec, entry, name=name, folds=("0", "1"), **axes)
    rules = tmp_path / "first" / "crossval_results_folds_0_1"
    rules.mkdir()
    content = {"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"]}
    content["postprocessing_kwargs"] = [{"labels_or_regions": 2}]
    (rules / "postprocessing.json").write_text(json.dumps(content))
    return import_model(tmp_path / "first", Workspace(tmp_path / "ws"))


def test_a_model_of_nnunet_goes_back_as_it_came(tmp_path, imported, capsys):
    assert main(["model", "export", str(imported), str(tmp_path / "back"), "--format", "nnunet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "back")
    before, after = read_nnunet(tmp_path / "first"), read_nnunet(tmp_path / "back")
    told = ("planner", "preset", "decisions")
    assert dataclasses.replace(after.plan, **{name: getattr(before.plan, name) for name in told}) == before.plan
    assert (after.labels, after.channels, after.file_ending) == (before.labels, before.channels, before.file_ending)
    assert after.postprocessing == before.postprocessing == (KeepLargest((2,)),)
    for fold, state in before.weights.items():
        assert all(torch.equal(after.weights[fold][name], value) for name, value in state.items())
    theirs = [torch.load(tmp_path / one / "fold_1" / "checkpoint_final.pth", weights_only=False) for one in ("first", "back")]
    assert theirs[0]["network_weights"].keys() == theirs[1]["network_weights"].keys()
    assert theirs[1]["inference_allowed_mirroring_axes"] == (0, 1)


def model_of(tmp_path, **changes):
    """A model that could go to nnU-Net, but for the changes."""
    spec = material.spec_of()
    material.write_results(tmp_path / "source", spec, material.configuration_of(spec))
    found = read_nnunet(tmp_path / "source")
    parts = {"plan": found.plan, "labels": found.labels, "channels": found.channels, "weights": found.weights} | changes
    if parts["plan"].network != found.plan.network:
        parts["weights"] = {"0": build_network(parts["plan"].network).state_dict()}
    save_bundle(tmp_path / "model", **parts)
    return tmp_path / "model"


def test_a_ct_model_of_ours_keeps_its_scale(tmp_path):
    spec = material.spec_of()
    material.write_results(tmp_path / "plan", spec, material.configuration_of(spec))
    plan = read_nnunet(tmp_path / "plan").plan
    how = ChannelNormalization("CT", "ct", lower=-100.0, upper=300.0, input_mean=0.4, input_std=0.25)
    network = dataclasses.replace(plan.network, input_mean=(0.4,), input_std=(0.25,))
    ours = dataclasses.replace(plan, normalization=(how,), network=network, orientation="canonical")
    export_model(model_of(tmp_path, plan=ours, channels=("CT",)), tmp_path / "out", Workspace(tmp_path), format="nnunet")
    plans = json.loads((tmp_path / "out" / "plans.json").read_text())
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
    numbers = plans["foreground_intensity_properties_per_channel"]["0"]
    scan = np.linspace(-200, 400, 50)
    theirs = (np.clip(scan, numbers["percentile_00_5"], numbers["percentile_99_5"]) - numbers["mean"]) / numbers["std"]
    assert theirs == pytest.approx(((np.clip(scan, -100, 300) + 100) / 400 - 0.4) / 0.25)


def test_a_network_without_deep_supervision_gets_the_heads_that_nnunet_expects(tmp_path):
    spec = material.spec_of()
    material.write_results(tmp_path / "plan", spec, material.configuration_of(spec))
    plan = read_nnunet(tmp_path / "plan").plan
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, deep_supervision=False))
    model = model_of(tmp_path, plan=plan)
    export_model(model, tmp_path / "out", Workspace(tmp_path), format="nnunet")
    state, ours = read_nnunet(tmp_path / "out").weights["0"], load_bundle(model).folds["0"]()
    assert set(state) - set(ours) == {"decoder.heads.1.weight", "decoder.heads.1.bias"}
    assert all(torch.equal(state[name], value) for name, value in ours.items())


def test_models_that_nnunet_would_run_otherwise_are_refused(tmp_path):
    spec = material.spec_of()
    material.write_results(tmp_path / "plan", spec, material.configuration_of(spec))
    plan = read_nnunet(tmp_path / "plan").plan
    labels = LabelSchema(("a", "b"), ((1,), (5,)), False, (1, 5))
    overlapping = LabelSchema(("a", "b"), ((1, 3), (2, 3)), True, (1, 2))
    robust = ChannelNormalization("MRI0", "robust")
    attention = dataclasses.replace(
        plan.network, name="self_attention_unet", attention=(AttentionStage(stage=2, kind="full", heads=1),)
    )
    two = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=2))
    for number, (changes, message) in enumerate(
        [
            ({"plan": dataclasses.replace(plan, normalization=(robust,))}, "no normalisation like 'robust'"),
            ({"plan": dataclasses.replace(plan, network=attention)}, "nnU-Net has no network 'self_attention_unet'"),
            ({"labels": labels}, r"without gaps, and the one to ignore last; found \(0, 1, 5\)"),
            ({"plan": two, "labels": overlapping}, "overlap in ways that nnU-Net"),
        ]
    ):
        model = model_of(tmp_path / str(number), **changes)
        with pytest.raises(ModelError, match=message):
            export_model(model, tmp_path / "out", Workspace(tmp_path), format="nnunet")
        assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path):
    model = model_of(tmp_path)
    with pytest.raises(ModelError, match="exists already"):
        export_model(model, tmp_path / "source", Workspace(tmp_path), format="nnunet")
    (tmp_path / "it.json").write_text("mine")
    with pytest.raises(ModelError, match="exists already"):
        export_model(model, tmp_path / "it.onnx", Workspace(tmp_path), format="onnx")
    with pytest.raises(ModelError, match=r"ends in \.onnx"):
        export_model(model, tmp_path / "it.bin", Workspace(tmp_path), format="onnx")


NETWORKS = {
    "unet": {},
    "residual_unet": {"residual": True},
    "flat": {"flat": True},
    "full attention": {"attention": "full"},
    "slot attention": {"attention": "slot"},
}


@pytest.mark.filterwarnings("ignore")  # of the packages that write the graph
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow) if k in ("residual_unet", "flat", "full attention") else k for k in NETWORKS],
)
def test_onnx_runtime_computes_the_same_logits(tmp_path, kind):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    how = dict(NETWORKS[kind])
    attention = how.pop("attention", None)
    spec = material.spec_of(**how)
    material.write_results(tmp_path / "plan", spec, material.configuration_of(spec, how.get("flat", False)),
                           inference_allowed_mirroring_axes=None)  # fmt: skip
    plan = read_nnunet(tmp_path / "plan").plan
    network = dataclasses.replace(plan.network, input_mean=(0.5,), input_std=(0.25,))
    if attention:
        stage = AttentionStage(stage=2, kind=attention, heads=1, slots=4 if attention == "slot" else 0)
        network = dataclasses.replace(network, name="self_attention_unet", attention=(stage,))
    scale = ChannelNormalization("MRI0", "robust", input_mean=0.5, input_std=0.25)
    plan = dataclasses.replace(plan, network=network, normalization=(scale,))
    torch.manual_seed(3)
    weights = {}
    for fold in ("0", "1"):
        state = build_network(network).state_dict()
        weights[fold] = {k: v if k.startswith("scaling") else v + 0.1 * torch.randn_like(v) for k, v in state.items()}
    save_bundle(
        tmp_path / "model", plan=plan, labels=read_nnunet(tmp_path / "plan").labels, channels=("MRI0",), weights=weights
    )
    path = export_model(tmp_path / "model", tmp_path / "it.onnx", Workspace(tmp_path), format="onnx")
    assert sorted(file.name for file in tmp_path.glob("it*")) == ["it.json", "it.onnx"]
    written = b"".join(file.read_bytes() for file in tmp_path.glob("it.*"))
    for place in (Path(__file__).parents[2], Path(torch.__file__).parents[1]):  # where the code that made it lies
        assert str(place).encode() not in written
    about = json.loads((tmp_path / "it.json").read_text())
    assert (about["heads"], about["channels"], about["folds"]) == (["background", "left", "right"], ["MRI0"], ["0", "1"])
    image = torch.rand(about["input"]["shape"])
    networks = load_networks(load_bundle(tmp_path / "model")).values()
    with torch.inference_mode():
        expected = sum(network(image) for network in networks) / 2
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": image.numpy()})
    assert list(found.shape) == about["output"]["shape"]
    assert np.abs(found - expected.numpy()).max() < 1e-4 * float(expected.abs().max())


def test_without_the_extra_the_way_out_is_named(tmp_path, monkeypatch):
    def absent(*arguments, dynamo, **how):
        raise ModuleNotFoundError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", absent)
    bundle = load_bundle(model_of(tmp_path))
    with pytest.raises(Exception, match="pip install onnx onnxruntime onnxscript"):
        write_onnx(tmp_path / "it.onnx", list(load_networks(bundle).values()), plan=bundle.plan, labels=bundle.labels, about={})
    assert not list(tmp_path.glob("it.*"))


def test_a_torch_that_cannot_write_onnx_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda network, arguments: None)  # as before 2.5
    bundle = load_bundle(model_of(tmp_path))
    with pytest.raises(AutosegError, match=rf"torch 2\.6 or later is needed, found {torch.__version__.partition('+')[0]}"):
        write_onnx(tmp_path / "it.onnx", list(load_networks(bundle).values()), plan=bundle.plan, labels=bundle.labels, about={})
