"""``model import`` of what it cannot take: status 2, one sentence that names it, and nothing written."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.cli import main

_spec = importlib.util.spec_from_file_location("nnunet_material", Path(__file__).with_name("material.py"))
assert _spec is not None
assert _spec.loader is not None
material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(material)

CHECKPOINT = "fold_0/checkpoint_final.pth"


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"Dataset900_Phantom/trainer__plans__3d_fullres/{file.relative_to(folder).as_posix()}")
    return path


def configured(folder: Path, **changes: Any) -> Path:
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"].update(changes)
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def with_weights(folder: Path, trainer: str, **weights: torch.Tensor) -> Path:
    content = torch.load(folder / CHECKPOINT, weights_only=False)
    content["network_weights"] |= {name.replace("__", "."): value for name, value in weights.items()}
    torch.save({**content, "trainer_name": trainer}, folder / CHECKPOINT)
    return folder


def another_network(folder: Path) -> Path:
    arguments: dict[str, Any] = {"network_class_name": "nnunet_mednext.MedNeXt", "arch_kwargs": {"n_stages": 5}}
    return configured(folder, architecture=arguments)


def wider_layer(folder: Path) -> Path:
    name = "encoder__stages__1__0__convs__0__conv__weight"
    return with_weights(folder, "nnUNetTrainerWide", **{name: torch.zeros(16, 4, 3, 3, 3)})


def batch_normalised(folder: Path) -> Path:
    name = "encoder__stages__0__0__convs__0__norm__running_mean"
    return with_weights(folder, "nnUNetTrainerBN", **{name: torch.zeros(4)})


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def cut_checkpoint(folder: Path) -> Path:
    cut(folder / CHECKPOINT, 0.7)
    return folder


def text_for_a_checkpoint(folder: Path) -> Path:
    (folder / CHECKPOINT).write_text("version https://git-lfs.github.com/spec/v1\n")
    return folder


def asks_for_more(folder: Path) -> Path:
    content = torch.load(folder / CHECKPOINT, weights_only=False)
    torch.save({**content, "logging": Path("somewhere")}, folder / CHECKPOINT)
    return folder


def a_bundle_of_another_program(folder: Path) -> Path:
    path = folder.with_name("bundle.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle/configs/inference.json", "{}")
        archive.writestr("bundle/models/model.pt", b"weights")
    return path


def a_folder_of_scans(folder: Path) -> Path:
    (folder.parent / "scans").mkdir()
    (folder.parent / "scans" / "a_0000.nii.gz").write_bytes(b"scan")
    return folder.parent / "scans"


def a_checkpoint_alone(folder: Path) -> Path:
    path = folder.parent / "weights.pth"
    (folder / CHECKPOINT).rename(path)
    return path


def a_web_page(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    path.write_text("\n<!DOCTYPE html><html><body>404 Not Found</body></html>")
    return path


def an_empty_checkpoint(folder: Path) -> Path:
    (folder / CHECKPOINT).write_bytes(b"")
    return folder


def without_plans(folder: Path) -> Path:
    (folder / "plans.json").unlink()
    return folder


def a_fold_that_is_not_done(folder: Path) -> Path:
    (folder / CHECKPOINT).rename(folder / "fold_0" / "checkpoint_latest.pth")
    return folder


def plans_of_2d(folder: Path) -> Path:
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"] = {"2d": plans["configurations"]["3d_fullres"]}
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def described(folder: Path, **changes: Any) -> Path:
    about = json.loads((folder / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(json.dumps({key: value for key, value in about.items() if value is not None}))
    return folder


def a_second_fold_cut_short(folder: Path) -> Path:
    (folder / "fold_1").mkdir()
    (folder / "fold_1" / "checkpoint_final.pth").write_bytes((folder / CHECKPOINT).read_bytes()[:3000])
    return folder


def of_nnunet_1(folder: Path) -> Path:
    older = folder.with_name("nnUNetTrainerV2__nnUNetPlansv2.1")
    (older / "fold_0").mkdir(parents=True)
    (older / "plans.pkl").write_bytes(b"")
    (older / "fold_0" / "model_final_checkpoint.model").write_bytes(b"")
    return older


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another network": (another_network, "the network MedNeXt is not known here. Known: PlainConvUNet, ResidualEncoderUNet"),
    "a trainer that widens": (wider_layer, "encoder.stages.1.0.convs.0.conv.weight: expected shape (8, 4, 3, 3, 3)"),
    "and is named": (wider_layer, "nnUNetTrainerWide"),
    "a trainer with batch normalisation": (batch_normalised, "no encoder.stages.0.0.convs.0.norm.running_mean"),
    "and is named too": (batch_normalised, "nnUNetTrainerBN"),
    "a checkpoint cut short": (
        cut_checkpoint,
        "checkpoint_final.pth: expected a whole checkpoint, as torch 1.6 and later save it",
    ),
    "a placeholder for a checkpoint": (text_for_a_checkpoint, "found: a Git LFS pointer instead of the file"),
    "an empty checkpoint": (an_empty_checkpoint, "checkpoint_final.pth: expected a whole checkpoint, as torch 1.6 and later"),
    "and it says so": (an_empty_checkpoint, "found: an empty file"),
    "a second fold cut short": (a_second_fold_cut_short, "fold_1/checkpoint_final.pth: expected a whole checkpoint"),
    "a web page for a zip": (a_web_page, "expected a model folder or a whole zip, found: a web page"),
    "no plans": (without_plans, "plans.json: is missing. Give the results folder with plans.json"),
    "a fold without plans": (lambda folder: without_plans(folder) / "fold_0", "plans.json: is missing"),
    "a zip without plans": (lambda folder: zipped(without_plans(folder)), "expected one results folder in it, with plans.json"),
    "plans of another configuration": (plans_of_2d, "it has 2d. Use the plans.json that nnU-Net wrote beside this fold"),
    "no channel names": (lambda folder: described(folder, channel_names=None), "expected channel_names such as {'0': 'CT'}"),
    "a channel more": (
        lambda folder: described(folder, channel_names={"0": "T1", "1": "T2"}),
        "2 channels, but normalization_schemes of 1 and use_mask_for_norm of 1. Use the dataset.json and the plans.json",
    ),
    "a label less": (
        lambda folder: described(folder, labels={"background": 0, "left": 1}),
        "expected shape (2, 4, 1, 1, 1), found shape (3, 4, 1, 1, 1). Take the plans.json and dataset.json of this training",
    ),
    "a fold that is not done": (a_fold_that_is_not_done, "found fold_0/checkpoint_latest.pth. Give that file to import it"),
    "a circle of plans": (lambda folder: configured(folder, inherits_from="3d_fullres"), "'3d_fullres' inherits from itself"),
    "a model of nnU-Net 1": (of_nnunet_1, "found one of nnU-Net 1 (plans.pkl). These cannot be imported"),
    "a fold of it": (lambda folder: of_nnunet_1(folder) / "fold_0", "found one of nnU-Net 1 (plans.pkl)"),
    "a checkpoint of more than numbers": (asks_for_more, "which is not plain data"),
    "a zip cut short": (lambda folder: cut(zipped(folder), 0.8), "expected a model folder or a whole zip"),
    "a zip of a bad checkpoint": (lambda folder: zipped(cut_checkpoint(folder)), "checkpoint_final.pth"),
    "a bundle of another program": (a_bundle_of_another_program, "expected one model.json in it, found 0"),
    "a folder of scans": (a_folder_of_scans, "no model.json in it, so this is not a model"),
    "a checkpoint alone": (a_checkpoint_alone, "expected it in a folder such as fold_0"),
    "nothing": (lambda folder: folder / "nowhere", "there is no such model"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_written(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, sentence = CASES[case]
    spec = material.spec_of()
    folder = tmp_path / "results"
    material.write_results(folder, spec, material.configuration_of(spec))
    path = spoil(folder)
    assert main(["model", "import", str(path), "--workspace", str(tmp_path / "ws")]) == 2
    told = capsys.readouterr().err
    assert sentence in told.replace("\n", " ")
    assert "Traceback" not in told
    assert not (tmp_path / "ws").exists()
