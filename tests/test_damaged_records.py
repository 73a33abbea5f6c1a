"""Records, settings and headers that are not what they should be end in a sentence of ours, wherever they are read."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from autoseg.data.dataset import Case, DatasetSpec, read_dataset
from autoseg.data.labels import LabelSchema
from autoseg.data.layouts import LAYOUTS
from autoseg.data.layouts.folders import read_names
from autoseg.errors import AutosegError, DatasetError, FileError, ModelError, TrainingError, blamed_on, reason_of
from autoseg.imaging import files, nifti
from autoseg.imaging.files import read_file, read_geometry
from autoseg.inference.find import find_model
from autoseg.interop.nnunet import read_nnunet
from autoseg.ledger import Journal
from autoseg.options import ReportOptions
from autoseg.page.gather import page_of
from autoseg.records import FoldRecord, as_recorded, read_validations, write_fold
from autoseg.studies.folds import draw_splits
from autoseg.training.checkpoint import load_checkpoint, read_state
from autoseg.training.recipe import RECIPES
from autoseg.workspace import DEEPEST, Workspace, parse_json, read_json
from planners.records import RecordError, from_json, to_json
from tests.helpers.models import LABELS, make_plan, write_model
from tests.interop.material import configuration_of, spec_of, write_results


@pytest.mark.parametrize("fault", [KeyError("spacing"), ZeroDivisionError(), TypeError("no"), RuntimeError("first\n last. ")])
def test_what_a_library_raises_is_a_sentence_with_case_reason_and_remedy(fault: Exception) -> None:
    with pytest.raises(ModelError) as told, blamed_on("a.zip", "a model", ModelError, "Copy it again."):
        raise fault
    assert str(told.value) == f"a.zip: expected a model, found: {reason_of(fault)}. Copy it again."
    assert reason_of(fault) in ("KeyError 'spacing'", "ZeroDivisionError", "TypeError no", "last")


def test_our_own_errors_stay_and_reasons_are_short_valid_text() -> None:
    with pytest.raises(DatasetError, match="^ours$"), blamed_on("a", "b"):
        raise DatasetError("ours")
    assert reason_of(ValueError("x" * 1000)) == "x" * 297 + "..."
    assert reason_of(ValueError("\udc80")).encode() == b"\\udc80"
    assert "memory" in reason_of(MemoryError())


def test_a_format_that_raises_something_of_its_own_is_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise IndexError("tuple index out of range")

    for name in ("read", "read_geometry"):
        monkeypatch.setattr(nifti, name, broken)
    for read in (read_file, read_geometry):
        with pytest.raises(FileError, match=r"a\.nii: expected an image that can be read, found: IndexError .* Copy or export"):
            read(tmp_path / "a.nii")
    monkeypatch.setattr(nifti, "description", broken)
    assert files.description_of(tmp_path / "a.nii") == ""


def test_json_is_read_as_deep_as_anything_can_follow(tmp_path: Path) -> None:
    for depth, is_read in ((DEEPEST, True), (DEEPEST + 1, False), (400, False), (100_000, False)):
        (tmp_path / "a.json").write_text("[" * depth + "]" * depth)
        if is_read:
            assert to_json(read_json(tmp_path / "a.json")) == parse_json("[" * depth + "]" * depth, "it")
        else:
            with pytest.raises(AutosegError, match=r"a\.json: not readable as JSON: nested too deeply"):
                read_json(tmp_path / "a.json")


def test_a_long_value_is_cut_in_a_message() -> None:
    with pytest.raises(RecordError) as told:
        from_json(LabelSchema, {**to_json(LABELS), "has_regions": "x" * 10_000})
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [[]]},
        {"values": [[1], [2]]},
        {"paint_values": []},
        {"paint_values": [2**40]},
        {"values": [[-(2**40)]]},
        {"ignore": 2**31},
        {"structures": ["ball", "ball"], "values": [[1], [2]], "paint_values": [1, 2]},
    ],
    ids=str,
)
def test_labels_that_nobody_can_mean_are_refused(changes: dict[str, object]) -> None:
    assert from_json(LabelSchema, to_json(LABELS)) == LABELS
    with pytest.raises(RecordError, match="expected"):
        from_json(LabelSchema, to_json(LABELS) | changes)


def spec_in(folder: Path) -> DatasetSpec:
    cases = tuple(Case(name, name, (), None) for name in "abc")
    return DatasetSpec("phantom", folder, ("CT",), LABELS, cases, (), ".nii.gz")


@pytest.mark.parametrize("stored", [[], "folds", {"patients": [["a", "a"], ["b", "b"], ["c", "c"]]}], ids=str)
def test_stored_folds_that_are_none_are_drawn_anew_or_named(tmp_path: Path, stored: object) -> None:
    path = tmp_path / "fingerprints" / "phantom" / "splits.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored))
    if isinstance(stored, dict):
        with pytest.raises(DatasetError, match=r"splits\.json: expected a list"):
            draw_splits(spec_in(tmp_path), (), Workspace(tmp_path), keep=False)
    else:
        assert len(draw_splits(spec_in(tmp_path), (), Workspace(tmp_path), keep=False)) == 3


def test_a_damaged_model_stops_nobody_who_looks_for_another(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_model(workspace.model("good"), make_plan())
    content = json.loads((workspace.model("good") / "model.json").read_text())
    content.pop("seal")
    content["info"] = {"run": "mine"}
    (workspace.model("good") / "model.json").write_text(json.dumps(content))
    for name, text in (("text", "no JSON"), ("list", "[]"), ("odd", '{"info": 3}')):
        workspace.model(name).mkdir(parents=True)
        (workspace.model(name) / "model.json").write_text(text)
    assert find_model("mine", workspace) == workspace.model("good")


def test_lines_of_a_history_or_a_journal_that_are_none_are_left_out(tmp_path: Path) -> None:
    for damage in (b"\xff\xfe\x80", b"[" * 100_000, b"1" * 5000):
        (tmp_path / "history.jsonl").write_bytes(b'{"step": 1, "seconds": 2}\n' + damage)
        assert [check.step for check in read_validations(tmp_path / "history.jsonl")] == [1]
        (tmp_path / "journal").mkdir(exist_ok=True)
        (tmp_path / "journal" / "j").write_bytes(b'{"by": "x"}\n{"file": "a", "key": "k", "digest": "d"}\n' + damage)
        assert list(Journal.open(tmp_path / "journal" / "j", {"by": "x"}).entries) == ["a"]


@pytest.mark.parametrize("about", [None, {}, {"state": "[" * 100_000}, {"state": "3"}], ids=["none", "empty", "deep", "number"])
def test_a_checkpoint_whose_header_says_nothing_is_named(tmp_path: Path, about: dict[str, str] | None) -> None:
    path = tmp_path / "checkpoint.safetensors"
    safetensors.torch.save_file({"weights.weight": torch.ones(1, 1)}, path, metadata=about)
    for read in (read_state, lambda path: load_checkpoint(path, torch.nn.Linear(1, 1, bias=False), [])):
        with pytest.raises(
            TrainingError, match=r"checkpoint\.safetensors: (expected the whole checkpoint.*--fresh|not readable)"
        ):
            read(path)


def test_names_without_a_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('{"liver": Infinity}')
    with pytest.raises(DatasetError, match=r"names\.json: expected names of label values"):
        read_names(tmp_path / "names.json")


@pytest.mark.parametrize("name", ["x" * 300, "../elsewhere"])
def test_the_page_of_a_fold_looks_for_its_data_set_in_the_workspace_alone(tmp_path: Path, name: str) -> None:
    fold = tmp_path / "runs" / "phantom" / "tiny" / "fold_0"
    fold.mkdir(parents=True)
    task = {"plan": replace(make_plan(), dataset=name), "labels": LABELS, "recipe": RECIPES["autoseg"], "length": {"steps": 3}}
    write_fold(fold, FoldRecord(as_recorded({**task, "seed": 0, "training": ("a",), "validation": ()})))
    with pytest.raises(AutosegError, match="fingerprints: .* does not lie in it.* expected a plain file name"):
        page_of(fold, ReportOptions())


@pytest.mark.parametrize("text", ["3", '[{"severity": "error"}]', '{"a": 1}', "[[]]"])
def test_the_page_names_findings_that_are_none(tmp_path: Path, text: str) -> None:
    fold = tmp_path / "runs" / "phantom" / "tiny" / "fold_0"
    fold.mkdir(parents=True)
    task = {"plan": make_plan(), "labels": LABELS, "recipe": RECIPES["autoseg"], "length": {"steps": 3}, "seed": 0}
    write_fold(fold, FoldRecord(as_recorded({**task, "training": ("a",), "validation": ()})))
    about = tmp_path / "fingerprints" / "phantom"
    about.mkdir(parents=True)
    (about / "findings.json").write_text(text)
    with pytest.raises(AutosegError, match=r"findings\.json.*Correct it there"):
        page_of(fold, ReportOptions())


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization_schemes": [["ZScoreNormalization"]]},
        {"resampling_fn_data_kwargs": [1]},
        {"architecture": {"network_class_name": "x.PlainConvUNet", "arch_kwargs": {"features_per_stage": [4], "strides": 3.5}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_plans_of_another_form_are_blamed_on_the_model(tmp_path: Path, changes: dict[str, object]) -> None:
    spec = spec_of()
    write_results(tmp_path / "results", spec, {**configuration_of(spec), **changes})
    with pytest.raises(ModelError, match="results"):
        read_nnunet(tmp_path / "results")


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_picture_that_claims_more_than_its_bytes_hold_is_refused_before_it_is_decoded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".png":
        head = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
        parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"0")), (b"IEND", b"")]
        packed = [
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
        ]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    else:
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(path)
        content = path.read_bytes()
        for tag in (256, 257):  # width and height, as an entry of the directory writes them
            at = next(i for i in range(8, len(content)) if content[i : i + 2] == struct.pack("<H", tag))
            content = content[: at + 8] + struct.pack("<I", 9000) + content[at + 12 :]
        path.write_bytes(content)
    with pytest.raises(FileError, match=rf"a{ending}: expected at least \d+ bytes for \d+ x \d+ pixels, found \d+"):
        read_file(path)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "I", "F", "RGB", "P"])
@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_adobe_deflate", "tiff_lzw"])
def test_pictures_of_one_colour_are_read_however_small_they_are_packed(tmp_path: Path, mode: str, compression: str) -> None:
    if (mode, compression) in (("I;16", "tiff_lzw"), ("I;16", "packbits")):
        pytest.skip("Pillow writes no such file")
    Image.new(mode, (1000, 900)).save(tmp_path / "a.tif", compression=compression)
    assert read_file(tmp_path / "a.tif").data.shape[1:] == (1, 900, 1000)


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "a\0b"], ids=["name", "whole", "zero"])
def test_a_path_that_no_file_system_has_is_refused_where_it_stands(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "Dataset001_Tiny"
    (folder / "imagesTr").mkdir(parents=True)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii"}
    for entry in ({"images": [path], "label": "a.nii"}, {"images": ["a.nii"], "label": path}):
        (folder / "dataset.json").write_text(json.dumps({**description, "dataset": {"a": entry}}))
        with pytest.raises(
            DatasetError, match=r"dataset\.json: \"dataset\": case 'a': expected paths of files, found .*bytes?,"
        ):
            read_dataset(folder)
    task = {"modality": {"0": "CT"}, "labels": {"0": "background"}, "training": [{"image": path, "label": "a.nii"}]}
    (folder / "dataset.json").write_text(json.dumps(task))
    with pytest.raises(DatasetError, match=r"dataset\.json: expected the form of the Decathlon, .*expected paths of files"):
        LAYOUTS["msd"](folder)
    (tmp_path / "a.mhd").write_text(f"NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = {path}\n")
    with pytest.raises(FileError, match=r"a\.mhd: expected its voxels in one file beside it"):
        read_file(tmp_path / "a.mhd")
    known = tmp_path / "fingerprints" / "Tiny" / "dataset.json"
    known.parent.mkdir(parents=True)
    known.write_text(json.dumps({"folder": path}))
    with pytest.raises(DatasetError, match=r"dataset\.json: folder: expected a path, found"):
        Workspace(tmp_path).dataset_folder("1")
