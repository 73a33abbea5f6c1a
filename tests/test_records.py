"""The files that several parts share: read as they were written, by this version or by older ones."""

import json

import pytest

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.records import (
    CaseRecord,
    CohortRecord,
    FoldRecord,
    SurfaceManifest,
    as_recorded,
    read_case,
    read_cohort,
    read_fold,
    read_surface_manifest,
    read_validations,
    write_fold,
    write_surface_scores,
)
from autoseg.training.monitor import trim_history
from autoseg.workspace import read_json, write_json
from planners import Budget, get_planner
from planners.fingerprint import ChannelStats, Fingerprint
from planners.records import from_json, to_json

PREDICTED = {
    "measurements": [{"structure": "liver", "volume_ml": 1.5, "touches_border": False}],
    "isotropic": {"derived": True, "restored": None},
    "made_by": "autoseg predict",
    "case": "a",
    "identity": {"model": "m", "inputs": [{"file": "a_0000.nii.gz", "digest": "d"}], "options": {}},
    "state": "done",
    "outputs": {"a.nii.gz": "1", "a_surfaces/liver.stl": "2"},
    "labels": {"liver": 1, "both": [1, 2]},
    "seconds": {"infer": 2.5},
    "notes": ["small"],
    "device": "cpu",
    "precision": "fp32",
}
RECONSTRUCTED = {
    "made_by": "autoseg reconstruct",
    "case": "a",
    "source": "/maps/a.nii.gz",
    "identity": {"input": {"file": "a.nii.gz", "digest": "d"}, "names": [], "options": {}},
    "state": "done",
    "outputs": {},
    "labels": {"liver": [1]},
    "measurements": [],
}


@pytest.fixture
def task():
    channel = ChannelStats("MR", 1.0, 1.0, 0.5, 0.0, 9.0, 0.1, 8.0)
    scans = Fingerprint("Hippo", ("a", "b"), ((36, 50, 35),) * 2, ((1.0, 1.0, 1.0),) * 2, (channel,), ("thing",), 2)
    return {
        "plan": to_json(get_planner("fullres_3d").plan(scans, Budget())),
        "labels": to_json(LabelSchema(("thing",), ((1,),), False, (1,))),
        "recipe": {"name": "autoseg", "patch_stages": [{"until": 0.7}], "a_setting_that_is_gone": 3},
        "length": {"seconds": None, "steps": 30},
        "seed": 0,
        "training": ["a", "b"],
        "validation": ["c"],
        "prepared_digest": "d",
        "start": "",
    }


def test_the_record_of_a_case_that_an_older_version_wrote_is_read_and_loses_nothing(tmp_path):
    write_json(tmp_path / "a.json", PREDICTED)
    found = read_case(tmp_path / "a.json")
    assert found.is_done
    assert found.groups == {"liver": (1,), "both": (1, 2)}
    assert found.inputs == {"a_0000.nii.gz": "d"}
    assert found.more == {"isotropic": {"derived": True, "restored": None}}
    assert to_json(found) == PREDICTED
    write_json(tmp_path / "a.json", RECONSTRUCTED)
    assert read_case(tmp_path / "a.json").inputs == {"a.nii.gz": "d"}


@pytest.mark.parametrize("text", ["[]", "{", '{"measurements": 3}', '{"notes": "one"}'])
def test_a_file_that_is_no_record_of_a_case_is_none(tmp_path, text):
    assert read_case(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_text(text)
    assert read_case(tmp_path / "a.json") is None


def test_a_field_that_says_nothing_is_left_out_of_the_file():
    assert to_json(CaseRecord(case="a", seconds={"infer": 1.0})) == {"case": "a", "seconds": {"infer": 1.0}}


def test_a_fold_is_read_from_its_own_file_and_from_that_of_older_versions(tmp_path, task):
    older = {"task": task, "device": "cpu", "batch_size": 2, "versions": {"torch": "2"}, "memory_mib": 640}
    write_json(tmp_path / "run.json", older)
    found = read_fold(tmp_path)
    assert to_json(found) == older
    assert found.task.plan.patch_size == (40, 56, 40)
    assert found.task.recipe["a_setting_that_is_gone"] == 3
    write_fold(tmp_path, FoldRecord(as_recorded({**task, "seed": 7}), device="cuda"))
    assert read_fold(tmp_path).task.seed == 7
    assert json.loads((tmp_path / "run.json").read_text())["device"] == "cpu"


def test_the_record_of_a_folder_of_predictions_is_no_fold(tmp_path):
    write_json(tmp_path / "run.json", CohortRecord(made_by="autoseg predict", device="cpu"))
    assert read_fold(tmp_path) is None
    assert read_cohort(tmp_path).device == "cpu"
    assert read_cohort(tmp_path / "empty") == CohortRecord()


def test_what_a_newer_version_added_is_passed_over(tmp_path, task):
    task["plan"]["colour"] = "blue"
    write_json(tmp_path / "fold.json", {"task": {**task, "ranks": 4}, "weather": "fine"})
    found = read_fold(tmp_path)
    assert found.task.more == {"ranks": 4}
    assert found.more == {"weather": "fine"}


def test_a_damaged_record_of_a_fold_names_its_place(tmp_path, task):
    write_json(tmp_path / "fold.json", {"task": {**task, "seed": "seven"}})
    with pytest.raises(AutosegError, match=r"fold\.json\.task\.seed: expected int, found 'seven'"):
        read_fold(tmp_path)


def test_checks_end_where_a_crash_cut_the_file(tmp_path):
    rows = ['{"step": 1, "seconds": 2, "patch_dice": {"thing": null}}', '{"step": 2, "seconds": 4.5}', '{"step": 3, "sec']
    (tmp_path / "history.jsonl").write_text("\n".join(rows))
    found = read_validations(tmp_path / "history.jsonl")
    assert [check.step for check in found] == [1, 2]
    assert found[0].patch_dice == {"thing": None}
    assert read_validations(tmp_path / "none.jsonl") == ()


def test_rows_of_a_newer_version_stay_whole_where_a_resumed_training_drops_the_later_ones(tmp_path):
    rows = [f'{{"step": {step}, "seconds": 2.0, "ranks": 4, "patch_dice": {{}}}}' for step in (1, 2, 3)]
    (tmp_path / "history.jsonl").write_text("\n".join(rows))
    trim_history(tmp_path / "history.jsonl", 2)
    kept = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(row["step"], row["ranks"]) for row in kept] == [(1, 4), (2, 4)]


def test_a_manifest_of_surfaces_comes_back_as_it_was(tmp_path):
    written = {
        "formats": ["stl"],
        "decimate": 0.0,
        "coordinates": "RAS",
        "unit": "mm",
        "method": {"from": "scores", "iterations": 10},
        "structures": [
            {"structure": "a", "files": ["a.stl"], "colour": [1, 2, 3], "vertices": 4, "faces": 4, "note": ""},
            {"structure": "b", "files": [], "colour": [4, 5, 6], "note": "no voxels"},
        ],
    }
    assert to_json(from_json(SurfaceManifest, written)) == written
    write_json(tmp_path / "surfaces.json", written)
    assert read_surface_manifest(tmp_path).structures[1].faces is None
    assert read_surface_manifest(tmp_path / "none") == SurfaceManifest()


def test_scores_of_surfaces_have_a_file_of_their_own_that_names_the_surfaces_they_were_made_of(tmp_path):
    write_json(tmp_path / "a.json", PREDICTED)
    before = (tmp_path / "a.json").read_bytes()
    write_surface_scores(tmp_path, "a", ({"structure": "liver", "surface_nsd": 0.5},))
    assert (tmp_path / "a.json").read_bytes() == before
    made_of = {name: digest for name, digest in PREDICTED["outputs"].items() if name.startswith("a_surfaces/")}
    assert read_json(tmp_path / "a_surfaces" / "scores.json") == {
        "made_of": made_of,
        "scores": [{"structure": "liver", "surface_nsd": 0.5}],
    }
