"""Where slots look, shown by a network whose slots are set by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.imaging.files import read_file, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.predictor import Predictor
from autoseg.inference.slot_maps import ChosenSlot, blended_maps, choose_slots, enlarged
from autoseg.networks import NETWORKS
from autoseg.networks.attention import SlotAttention
from autoseg.networks.unet import UNet
from autoseg.options import InferenceOptions, PredictOptions
from autoseg.outputs.asked import asked_outputs
from planners.plan import AttentionStage
from tests.helpers.models import make_plan, write_model

COS, SIN = np.cos(np.radians(20)), np.sin(np.radians(20))
SHAPE, SPACING_MM, BLOB = (12, 34, 28), (3.5, 0.8, 0.9), (8, 25, 10)
ROWS = np.array([[0, -SIN, COS, 3], [0, -COS, -SIN, 50], [-1, 0, 0, -20]]) * [*SPACING_MM, 1]  # flipped and oblique
SLOTS = torch.tensor([[[0.0, 0.0], [20.0, 0.0], [-1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [10.0, 0.0]]])  # head, slot, d


class Planted(UNet):
    """Class 1 above 0.5. Slots 1 of head 0 and 2 of head 1 look at what is bright, slot 0 of both everywhere alike."""

    def __init__(self, spec, ends=None):
        torch.nn.Module.__init__(self)  # of a U-Net it has the encoder alone
        self.spec, self.scaling, self.encoder = spec, torch.nn.Identity(), torch.nn.Module()
        sample, block = torch.nn.Conv3d(1, 8, 1, stride=2), SlotAttention(8, 2, 3)
        self.encoder.stem = torch.nn.Identity()
        self.encoder.stages = torch.nn.ModuleList([torch.nn.Sequential(), torch.nn.Sequential(sample, block)])
        with torch.no_grad():
            for parameter in (sample.weight, sample.bias, block.project.weight):
                parameter.zero_()
            sample.weight[0], sample.bias[1] = 1, 1  # channels: the brightness, and one
            block.project.weight[[4, 6], 0] = 1  # keys of either head: these two
            block.project.weight[[5, 7], 1] = 1
            block.slots.copy_(SLOTS)
            block.gate[3] = -0.5

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), x - 0.5], 1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the planted ``model`` and ``in/a_0000.nii.gz``, a tilted scan of thick slices with a blob."""
    monkeypatch.setitem(NETWORKS, "planted", Planted)
    plan = make_plan()
    network = replace(plan.network, name="planted", attention=(AttentionStage(1, "slot", 2, 3),))
    write_model(tmp_path / "model", replace(plan, network=network), seeds=(0, 1))
    index = np.indices(SHAPE) - np.reshape(BLOB, (3, 1, 1, 1))
    distance = np.sqrt(((index * np.reshape(SPACING_MM, (3, 1, 1, 1))) ** 2).sum(axis=0))
    data = (0.1 + 2 * np.exp(-((distance / 4) ** 2))).astype(np.float32)[None]
    write_volume(Volume(data, Geometry.from_affine(SHAPE, ROWS)), tmp_path / "in" / "a_0000.nii.gz")
    return tmp_path


def predict(place, *more, model="model"):
    folders = ["-i", str(place / "in"), "-o", str(place / "out"), "-m", str(place / model)]
    return main(["predict", *folders, "--device", "cpu", "--no-mirror", *more])


def test_maps_lie_on_the_grid_of_the_scan_and_are_largest_where_the_slot_looks(place):
    assert predict(place, "--attention-maps", "2") == 0
    maps, scan = read_file(place / "out/a_attention/stage1.nii.gz"), read_file(place / "in/a_0000.nii.gz")
    assert maps.geometry.matches(scan.geometry, 1e-3)
    assert maps.data.dtype == np.uint8
    assert maps.data.shape == (4, *SHAPE)
    assert maps.data.max(axis=(1, 2, 3)).min() > 200  # 255 lies between slices
    record = json.loads((place / "out/a.json").read_text())
    attention = record["attention"]
    (stage,) = attention.pop("stages")
    assert attention == {"fold": "0", "mirrored": False}
    assert stage["file"] == "a_attention/stage1.nii.gz"
    assert stage["file"] in record["outputs"]
    assert stage["gate"] == 0.5
    slots = stage["slots"]
    assert [(entry["head"], entry["slot"]) for entry in slots] == [(0, 1), (0, 2), (1, 2), (1, 0)]
    assert 0 < slots[0]["entropy"] < slots[1]["entropy"] < 1 > slots[2]["entropy"]
    assert (slots[3]["entropy"], slots[3]["maximum"]) == pytest.approx((1, 1), abs=1e-4)
    assert (maps.data[3] >= 254).all()  # head 1, slot 0: everywhere alike
    for volume in (0, 2):
        peak = np.unravel_index(maps.data[volume].argmax(), SHAPE)
        assert np.linalg.norm((np.array(peak) - BLOB) * SPACING_MM) < 1.5
        assert slots[volume]["maximum"] > 20
    assert maps.data[1][BLOB] < 128  # slot 2 of head 0 looks away


@pytest.mark.thorough
def test_labels_do_not_depend_on_maps_but_resuming_does(place, capsys):
    assert predict(place) == 0
    labels = (place / "out/a.nii.gz").read_bytes()
    done = {(): (0, 1), ("--attention-maps",): (1, 0), ("--attention-maps", "4"): (0, 1), ("--attention-maps", "1"): (1, 0)}
    for more, (predicted, before) in done.items():
        capsys.readouterr()
        assert predict(place, *more) == 0
        assert f"{predicted} predicted, {before} were done already" in capsys.readouterr().out
        assert (place / "out/a.nii.gz").read_bytes() == labels
    (place / "out/a_attention/stage1.nii.gz").write_bytes(b"damaged")
    assert predict(place, "--attention-maps", "1") == 0
    assert len(read_file(place / "out/a_attention/stage1.nii.gz").data) == 2


def test_a_model_without_slots_is_refused_before_anything_is_written(place, threshold_plan, capsys):
    write_model(place / "other", threshold_plan)
    assert predict(place, "--attention-maps", model="other") == 2
    told = capsys.readouterr().err
    assert "no slots whose attention could be shown; its network is 'threshold'" in told
    assert "Leave --attention-maps out, or take a model of self_attention_unet" in told
    assert not (place / "out").exists()


@pytest.mark.parametrize(("shut", "slots"), [(True, 2), (True, 0), (False, 2)])
def test_who_asks_for_maps_is_told_where_the_gates_never_opened(place, caplog, shut, slots):
    options = InferenceOptions(precision="fp32", closed_gates=shut)
    predictor = Predictor(place / "model", options, device="cpu")
    for output in asked_outputs(PredictOptions(attention_maps=slots), ".nii.gz"):
        output.check(predictor.facts)
    told = "the gates of its attention are almost closed (at most 0.000)" in caplog.text
    assert told == ("--set attention_rate=0.005" in caplog.text) == (shut and slots > 0)


def test_windows_blend_into_one_where_a_slot_looks_everywhere_alike(place):
    predictor = Predictor(place / "model", InferenceOptions(precision="fp32"), device="cpu")
    data = np.random.default_rng(0).random((1, 20, 33, 8), np.float32)  # smaller than a window, and larger
    even, bright = blended_maps(predictor, data, 1, (ChosenSlot(1, 1, 1.0), ChosenSlot(0, 1, 0.0)))
    np.testing.assert_allclose(even, 1, atol=1e-5)
    assert bright.max() > 2
    assert [(slot.head, slot.slot) for slot in choose_slots(predictor, data, 1)[1]] == [(0, 1), (1, 2)]


def test_a_voxel_of_a_stage_goes_to_the_middle_of_what_it_sees():
    maps = torch.zeros(1, 2, 3, 4, 2)
    maps[0, 1, 1, 2, 1] = 8
    large = enlarged(maps, (3, 16, 4))  # strides 1, 4, 2
    assert large.shape == (1, 2, 3, 16, 4)
    assert large[0, 1].argmax() == np.ravel_multi_index((1, 8, 2), (3, 16, 4))
    assert large[0, 1, 1, 5:12, 2].tolist() == [2, 4, 6, 8, 6, 4, 2]
    assert large[0, 1, 1, 8].tolist() == [0, 4, 8, 8]
    assert not large[0, 0].any()
