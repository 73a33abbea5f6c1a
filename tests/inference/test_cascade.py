"""A model with a coarse stage: the fine network reads what the coarse one says of the same scan."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, ModelError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import COARSE, export_model, load_bundle, save_bundle
from autoseg.inference.cohort import depends_on
from autoseg.inference.predictor import Predictor
from autoseg.networks import NETWORKS, build_network
from autoseg.options import InferenceOptions
from autoseg.pipeline.importing import import_model
from autoseg.preprocess.case import coarse_codes, one_hot
from autoseg.workspace import Workspace
from planners.plan import CoarseLabels, Plan
from planners.records import digest
from tests.helpers.models import LABELS, ball_volume, make_plan, write_model, write_scans

FLIPPED = [[0, -1, 0, 40], [0, 0, 1, -7], [-1, 0, 0, 12]]
PLAIN = InferenceOptions(precision="fp32")


class Echo(torch.nn.Module):
    """Says of each voxel what the coarse stage said, and nothing of the image."""

    def __init__(self, spec: Any, ends: Any = None) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.slope * (x[:, 1:] - 0.5)
        return torch.cat([torch.zeros_like(one[:, :1]), one], dim=1)


def fine_plan(plan: Plan, network: str = "unet", labels: LabelSchema = LABELS, **changes: Any) -> Plan:
    """A plan that reads, beside the image, the labels that ``plan`` makes."""
    count = len(labels.declared_values) - 1
    spec = replace(
        plan.network,
        name=network,
        in_channels=1 + count,
        input_mean=(*plan.network.input_mean, *(0.0,) * count),
        input_std=(*plan.network.input_std, *(1.0,) * count),
    )
    return replace(plan, name="fine", network=spec, coarse=CoarseLabels(plan.name, count), **changes)


def write_cascade(folder: Path, coarse: Plan, fine: Plan, seeds: tuple[int, ...] = (0,)) -> Path:
    write_model(folder / COARSE, coarse, seeds=seeds)
    write_model(folder, fine, seeds=seeds)
    return folder


@pytest.fixture
def echo(tmp_path: Path, threshold_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Coarse: what exceeds 0.5. Fine: what the coarse stage said."""
    monkeypatch.setitem(NETWORKS, "echo", Echo)
    return write_cascade(tmp_path / "echo", threshold_plan, fine_plan(threshold_plan, "echo"))


@pytest.mark.parametrize("rows", [None, FLIPPED], ids=["canonical", "flipped"])
@pytest.mark.parametrize("axis_order", [(0, 1, 2), (2, 0, 1)])
def test_the_fine_stage_sees_the_labels_where_they_are(echo: Path, rows: Any, axis_order: tuple[int, int, int]) -> None:
    bundle = load_bundle(echo)
    predictor = Predictor(replace(bundle, plan=replace(bundle.plan, axis_order=axis_order)), PLAIN, device="cpu")
    volume, mask = ball_volume(rows=rows)
    prediction = predictor.predict(volume)
    np.testing.assert_array_equal(prediction.labels.data, 7 * mask)
    np.testing.assert_array_equal(predictor.prepare(volume).data[1].sum(), mask.sum())
    assert prediction.model == bundle.digest


def test_a_margin_of_zeros_moves_no_label(echo: Path) -> None:
    volume, mask = ball_volume((20, 20, 20))
    wide = np.zeros((1, 40, 50, 30), np.float32)
    wide[:, 5:25, 20:40, 8:28] = volume.data
    grid = Geometry.from_spacing((40, 50, 30), (1, 1, 1))
    labels = Predictor(echo, PLAIN, device="cpu").predict(Volume(wide, grid)).labels
    np.testing.assert_array_equal(labels.data[5:25, 20:40, 8:28], 7 * mask)
    assert labels.data.sum() == 7 * mask.sum()


def test_stages_have_grids_of_their_own(tmp_path: Path, threshold_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "echo", Echo)
    coarse = replace(threshold_plan, spacing_mm=(2.0, 2.0, 2.0))
    fine = fine_plan(coarse, "echo", spacing_mm=(0.7, 0.8, 0.9))
    predictor = Predictor(write_cascade(tmp_path / "it", coarse, fine), PLAIN, device="cpu")
    volume, mask = ball_volume(radius=9.0)
    found = predictor.predict(volume).labels.data == 7
    alone = predictor.coarse.predict(volume).labels.data == 7 if predictor.coarse else None
    assert alone is not None
    assert 0.9 < 2 * (alone & mask).sum() / (alone.sum() + mask.sum()) < 1  # as well as two millimetres allow
    assert 2 * (found & alone).sum() / (found.sum() + alone.sum()) > 0.98


def test_every_code_is_a_channel_in_the_order_of_codes() -> None:
    labels = LabelSchema(("one", "other"), ((9,), (4,)), False, (9, 4))
    plan = fine_plan(replace(make_plan(), axis_order=(1, 2, 0)), labels=labels)
    volume, mask = ball_volume(radius=4.0)
    values = np.where(mask, 9, 0)
    values[2, 3, 1] = 4
    found = one_hot(coarse_codes(labels.encode(values), volume, plan), plan.coarse.count)
    assert found.dtype == bool
    assert [tuple(index) for index in np.argwhere(found[0])] == [(3, 1, 2)]  # 4 is code 1
    np.testing.assert_array_equal(found[1], np.transpose(values == 9, (1, 2, 0)))
    with pytest.raises(AutosegError, match="no coarse labels among its inputs"):
        coarse_codes(labels.encode(values), volume, make_plan())


def test_folds_of_both_stages_belong_together(tmp_path: Path) -> None:
    folder = write_cascade(tmp_path / "it", make_plan(), fine_plan(make_plan()), seeds=(0, 1))

    def coarse_folds(*folds: str) -> tuple[str, ...]:
        options = replace(PLAIN, folds=folds or None)
        predictor = Predictor(folder, options, device="cpu")
        assert predictor.coarse is not None
        return predictor.coarse.facts.folds

    assert (coarse_folds(), coarse_folds("1")) == (("0", "1"), ("1",))
    bundle = load_bundle(folder)
    save_bundle(
        folder,
        plan=bundle.plan,
        labels=LABELS,
        channels=("MRI",),
        weights={"2": build_network(bundle.plan.network).state_dict()},
    )
    assert coarse_folds("2") == ("0", "1")  # it has no fold 2, so all of its own


def test_the_identity_of_a_cascade_has_both_stages(tmp_path: Path) -> None:
    coarse, fine = make_plan(), fine_plan(make_plan())
    first = load_bundle(write_cascade(tmp_path / "a", coarse, fine))
    again = load_bundle(write_cascade(tmp_path / "b", coarse, fine))
    assert first.digest == again.digest
    other = write_cascade(tmp_path / "c", coarse, fine)
    write_model(other / COARSE, coarse, seeds=(5,))  # another fold of the coarse stage
    with pytest.raises(ModelError, match="its coarse stage is not the one that was saved with it"):
        load_bundle(other)
    write_model(other, fine)
    assert load_bundle(other).digest != first.digest
    assert digest(replace(fine, coarse=None, network=coarse.network, name=coarse.name)) == digest(coarse)
    mirrored = replace(first, plan=replace(fine, mirror_axes=()))  # then the coarse stage alone is mirrored
    assert depends_on(mirrored, PLAIN, ()) != depends_on(mirrored, replace(PLAIN, mirror=False), ())


@pytest.mark.thorough
def test_one_file_holds_both_stages(tmp_path: Path) -> None:
    folder = write_cascade(tmp_path / "it", make_plan(), fine_plan(make_plan()))
    path = export_model(folder, tmp_path / "it.zip")
    bundle = load_bundle(path)
    assert bundle.digest == load_bundle(folder).digest
    assert bundle.coarse is not None
    assert all(load() for load in bundle.coarse.folds.values())
    imported = import_model(path, Workspace(tmp_path / "ws"))
    assert load_bundle(imported).digest == bundle.digest
    volume, _ = ball_volume()
    expected = Predictor(folder, PLAIN, device="cpu").predict(volume).labels.data
    np.testing.assert_array_equal(Predictor(path, PLAIN, device="cpu").predict(volume).labels.data, expected)
    for kind in ("onnx", "nnunet"):
        words = ["model", "export", str(imported), str(tmp_path / f"out.{kind}"), "--format", kind]
        assert main([*words, "--workspace", str(tmp_path / "ws")]) == 2
        assert not (tmp_path / f"out.{kind}").exists()


def test_a_cascade_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = write_cascade(tmp_path / "it", make_plan(), fine_plan(make_plan()))
    shutil.copytree(folder, tmp_path / "torn")
    weights = tmp_path / "torn" / COARSE / "fold_0.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="fold_0.safetensors is not the file that was saved"):
        Predictor(tmp_path / "torn", PLAIN, device="cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="coarse: fold_0.safetensors: expected .* bytes, found no such file"):
        load_bundle(tmp_path / "torn")
    shutil.rmtree(folder / COARSE)
    with pytest.raises(ModelError, match="coarse: no model.json in it"):
        load_bundle(folder)
    with pytest.raises(ModelError, match="there is no such model"):
        write_model(tmp_path / "without", fine_plan(make_plan()))
    assert not (tmp_path / "without" / "model.json").exists()
    write_cascade(tmp_path / "three" / COARSE, make_plan(), fine_plan(make_plan()))
    with pytest.raises(ModelError, match="a coarse stage with a coarse stage of its own"):
        write_model(tmp_path / "three", replace(fine_plan(make_plan()), coarse=CoarseLabels("fine", 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": replace(make_plan(), name="another")}, "coarse stage has other plan"),
        ({"labels": replace(LABELS, structures=("cube",))}, "coarse stage has other labels"),
        ({"channels": ("CT",)}, "coarse stage has other channels"),
    ],
)
def test_a_coarse_stage_of_other_scans_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_model(tmp_path / "it" / COARSE, **{"plan": make_plan(), **change})
    with pytest.raises(ModelError, match=message):
        write_model(tmp_path / "it", fine_plan(make_plan()))


def test_plans_say_what_does_not_fit() -> None:
    plan = fine_plan(make_plan())
    with pytest.raises(ValueError, match="1 channels and coarse 2 labels, but the network takes 2"):
        replace(plan, coarse=CoarseLabels("tiny", 2))
    with pytest.raises(ValueError, match="at least one code"):
        CoarseLabels("tiny", 0)
    with pytest.raises(ValueError, match="need the plan"):
        CoarseLabels("../tiny", 1)
    with pytest.raises(ValueError, match="network.input_mean"):
        replace(plan, network=replace(plan.network, input_mean=(0.5, 0.5)))


@pytest.mark.thorough
def test_predict_runs_both_stages_and_skips_what_is_done(
    echo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = write_scans(tmp_path / "scans", 2)
    words = ["predict", "-i", str(scans), "-o", str(tmp_path / "out"), "-m", str(echo), "--device", "cpu"]
    assert main(words) == 0
    assert main([*words, "--quiet"]) == 0
    cases = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert [case["status"] for case in cases] == ["skipped", "skipped"]
    assert main(["report", str(tmp_path / "out")]) == 0
    assert main(["model", "info", str(echo)]) == 0
    assert f"{echo}/coarse" in capsys.readouterr().out
