"""Folders whose maps number the structures differently are not scored against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import PredictOptions, ReconstructOptions, Runtime, SurfaceOptions
from autoseg.pipeline import evaluate, predict, reconstruct
from autoseg.workspace import write_json
from tests.helpers.models import make_plan, write_model, write_scans

ONE_WORKER = Runtime(workers=1)


def write_maps(folder: Path, *values: int) -> Path:
    """``a.nii.gz``, ``b.nii.gz``, ... with a cube of each of the values."""
    for case in "ab":
        data = np.zeros((4, 8, 4 * len(values)), np.uint8)
        for number, value in enumerate(values):
            data[1:3, 2:6, 4 * number : 4 * number + 3] = value
        write_label_volume(LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1))), folder / f"{case}.nii.gz")
    return folder


def record(folder: Path, case: str, **labels: int) -> None:
    write_json(folder / f"{case}.json", {"made_by": "autoseg predict", "labels": labels})


def test_predictions_of_another_numbering_are_not_scored(tmp_path: Path) -> None:
    references, predicted = write_maps(tmp_path / "data/labelsTr", 1, 2), write_maps(tmp_path / "masks", 2, 1)
    write_json(tmp_path / "data/dataset.json", {"labels": {"background": 0, "liver": 1, "kidney": 2}})
    record(predicted, "a", liver=1, kidney=2)
    record(predicted, "b", kidney=1, liver=2)
    with pytest.raises(AutosegError, match=r"b\.nii\.gz: expected liver as 1, found that it is 2"):
        evaluate(references, predicted, tmp_path / "scores", runtime=ONE_WORKER)
    assert not (tmp_path / "scores").exists()


def test_references_of_another_numbering_than_the_model_are_refused_before_the_prediction(tmp_path: Path) -> None:
    model, scans = tmp_path / "model", write_scans(tmp_path / "scans", 2)
    write_model(model, make_plan())
    references = write_maps(tmp_path / "data/labelsTr", 1)
    write_json(tmp_path / "data/dataset.json", {"labels": {"background": 0, "ball": 1}})
    options = PredictOptions(reference=str(references))
    with pytest.raises(AutosegError, match=r"a\.nii\.gz: expected ball as 7, found that it is 1"):
        predict(scans, tmp_path / "out", model, options, ONE_WORKER)
    with pytest.raises(AutosegError, match="holds the references"):
        predict(scans, references, model, options, Runtime(workers=1, fresh=True))
    assert not (tmp_path / "out").exists()


def test_each_map_of_a_mixed_folder_is_named_by_its_own_record(tmp_path: Path) -> None:
    predicted = write_maps(tmp_path / "masks", 1, 2)
    record(predicted, "a", liver=1, kidney=2)
    record(predicted, "b", kidney=1, liver=2)
    last = {"structures": ["kidney", "liver"], "values": [[1], [2]], "has_regions": False, "paint_values": [1, 2]}
    write_json(predicted / "run.json", {"made_by": "autoseg predict", "labels": {**last, "ignore": None, "overwrite": False}})
    assert not reconstruct(predicted, tmp_path / "out", runtime=ONE_WORKER).failures
    rows = [line.split(",")[:2] for line in (tmp_path / "out/measurements.csv").read_text().splitlines()[1:]]
    assert rows == [["a", "liver"], ["a", "kidney"], ["b", "kidney"], ["b", "liver"]]


def test_references_that_are_scored_against_themselves_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    references = write_maps(tmp_path / "labels", 1)
    (tmp_path / "masks").symlink_to(references)
    assert evaluate(references, tmp_path / "masks", tmp_path / "scores", runtime=ONE_WORKER).mean_of("dice") == 1
    assert "the references are scored against themselves" in caplog.text


def test_results_of_another_scan_of_the_same_name_or_of_another_model_are_not_replaced_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    scan = write_scans(tmp_path / "one", 1) / "a_0000.nii.gz"
    write_volume(
        Volume(np.full((1, 6, 6, 6), 3, np.float32), Geometry.from_spacing((6, 6, 6), (1, 1, 1))), tmp_path / "two/a.nii.gz"
    )
    for model in ("first", "second"):
        write_model(tmp_path / model, make_plan(mirror_axes=()), seeds=(len(model),))

    def warnings_of(scan: Path, model: str) -> list[str]:
        caplog.clear()
        assert not predict(scan, tmp_path / "out", tmp_path / model, runtime=ONE_WORKER).failures
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert warnings_of(scan, "first") == []
    blank = "a: the network sees one value in all voxels of MRI"
    replaced = "a: results of another file of this name are replaced"
    assert warnings_of(tmp_path / "two/a.nii.gz", "first") == [replaced, blank]
    assert warnings_of(tmp_path / "two/a.nii.gz", "first") == [blank]
    holds = f"{tmp_path / 'out'}: holds results of the model first; those of cases that are predicted again are replaced"
    assert warnings_of(tmp_path / "two/a.nii.gz", "second") == [holds, blank]


def test_results_of_other_options_are_not_removed_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(tmp_path / "model", make_plan(mirror_axes=()))
    scans, maps = write_scans(tmp_path / "scans", 1), write_maps(tmp_path / "maps", 1)
    kinds = {"predict": ("stl", "stl", None), "reconstruct": ("stl", "stl", "ply")}
    for verb, formats in kinds.items():
        folder, told = tmp_path / verb, []
        for kind in formats:
            caplog.clear()
            surfaces = SurfaceOptions((kind,) if kind else ())
            if verb == "predict":
                predict(scans, folder, tmp_path / "model", PredictOptions(surfaces=surfaces), ONE_WORKER)
            else:
                reconstruct(maps, folder, ReconstructOptions(surfaces), ONE_WORKER)
            told.append(
                f"{folder}: holds results of other options; those of cases that are done again are replaced" in caplog.text
            )
        assert told == [False, False, True]
    assert not (tmp_path / "predict/a_surfaces").exists()  # which held nothing but surfaces
    assert [path.suffix for path in (tmp_path / "reconstruct/a_surfaces").iterdir() if path.suffix != ".json"] == [".ply"]


def test_the_table_of_a_folder_keeps_the_cases_of_earlier_calls(tmp_path: Path) -> None:
    maps = write_maps(tmp_path / "maps", 1)
    for case in "ab":
        reconstruct(maps / f"{case}.nii.gz", tmp_path / "out", ReconstructOptions(SurfaceOptions()), ONE_WORKER)
    rows = (tmp_path / "out/measurements.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == ["a", "b"]


def test_probabilities_are_those_of_the_structure_that_the_record_names(tmp_path: Path) -> None:
    references, predicted = write_maps(tmp_path / "data/labelsTr", 1, 2), write_maps(tmp_path / "masks", 1, 2)
    write_json(
        tmp_path / "data/dataset.json",
        {"labels": {"background": 0, "whole": [1, 2], "core": [2], "more": [3]}, "regions_class_order": [1, 2, 3]},
    )
    chances = np.zeros((2, 4, 8, 8), np.float16)
    chances[0, 1:3, 2:6, 4:7], chances[1, 1:3, 2:6] = 1, 0.5  # core, whole
    for case in "ab":
        write_json(predicted / f"{case}.json", {"made_by": "autoseg predict", "labels": {"core": [2], "whole": [1, 2]}})
        np.savez_compressed(predicted / f"{case}_probabilities.npz", probabilities=chances)
    report = evaluate(references, predicted, tmp_path / "scores", runtime=ONE_WORKER)
    assert not report.failures
    rows = {row.structure: row for row in report.by_case["a"]}
    assert (rows["core"]["brier"], rows["whole"]["brier"]) == (0, 0.25 * 64 / 256)
    assert rows["more"].reason("brier") == "no probabilities"
