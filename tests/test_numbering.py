"""Folders whose maps number the structures differently are not scored against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import PredictOptions, Runtime
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
