"""What is predicted in shards is put together as one command would have written it."""

import json
import shlex
from dataclasses import replace

import pytest

from autoseg.cli import main
from autoseg.errors import AutosegError
from autoseg.imaging.files import digest_on_disk, write_label_volume, write_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.options import InferenceOptions, PredictOptions, ReportOptions, Runtime
from autoseg.outputs.shards import merge_shards
from autoseg.outputs.tables import write_tables
from autoseg.pipeline import evaluate, predict, report
from autoseg.records import CaseOutcome, CaseRecord, CohortRecord
from autoseg.workspace import write_json
from planners.records import digest
from tests.helpers.models import ball_volume, make_plan, write_model, write_scans

CPU = Runtime(device="cpu", workers=1)
TABLES = ("measurements.csv", "metrics.csv", "metrics.json", "metrics.md", "summary.json")


@pytest.fixture
def folder(tmp_path):
    """Five scans, of which the last is broken, references for three, and a model."""
    write_model(tmp_path / "model", make_plan())
    (tmp_path / "in").mkdir()
    write_scans(tmp_path / "in", 5)
    (tmp_path / "in" / "e_0000.nii.gz").write_bytes(b"broken")
    for number, case in enumerate("abd"):
        volume, mask = ball_volume(radius=3.0 + number)
        write_label_volume(LabelVolume(mask.astype("uint8") * 7, volume.geometry), tmp_path / "labels" / f"{case}.nii.gz")
    return tmp_path


def run(folder, name, *shards, **options):
    options = {"inference": InferenceOptions(mirror=False), **options}
    asked = PredictOptions(reference=str(folder / "labels"), **options)
    for shard in shards or [(0, 1)]:
        predict(folder / "in", folder / name, folder / "model", replace(asked, shard=shard), CPU)
    return folder / name


def record(folder):
    """``run.json`` without the seconds."""
    found = json.loads((folder / "run.json").read_text())
    cases = [{key: value for key, value in case.items() if key != "seconds"} for case in found.pop("cases")]
    return {key: value for key, value in found.items() if key not in ("seconds", "shards")} | {"cases": cases}


def test_shards_give_the_tables_record_and_page_of_one_command(folder, caplog):
    whole, parts = run(folder, "whole"), run(folder, "parts", (0, 3), (1, 3), (2, 3))
    shown = ReportOptions(images=str(folder / "in"), reference=str(folder / "labels"))
    for place in (whole, parts):
        report(place, shown, CPU)
    assert "missing" not in caplog.text
    for name in TABLES:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert record(parts) == record(whole)
    assert json.loads((parts / "run.json").read_text())["shards"] == 3
    assert (parts / "report.html").read_bytes() == (whole / "report.html").read_bytes()


def test_scores_of_training_cases_are_warned_of_and_the_content_of_a_scan_tells_them(folder, caplog):
    scans = {case: digest([digest_on_disk(folder / "in" / f"{case}_0000.nii.gz")]) for case in "ac"}
    write_model(folder / "model", make_plan(), seeds=(0, 1), learned_from={"0": tuple(scans.values())})
    said = "The model was trained on 1 of 3 scored cases: a. Scores of training cases are higher"
    whole, parts = run(folder, "whole"), run(folder, "parts", (0, 2), (1, 2))
    report(parts, runtime=CPU)
    for place in (whole, parts):
        assert [case["case"] for case in record(place)["cases"] if case.get("trained_on") == ["0"]] == ["a", "c"]
        assert said in (place / "metrics.md").read_text()
        assert said in (place / "report.html").read_text()
    assert "The model was trained on 1 of them." in (whole / "methods.md").read_text()
    for again in (lambda: run(folder, "whole"), lambda: evaluate(folder / "labels", whole, folder / "scored")):
        caplog.clear()
        again()
        assert said in caplog.text
    caplog.clear()
    run(folder, "other fold", inference=InferenceOptions(mirror=False, folds=("1",)))
    write_volume(ball_volume(radius=5.5)[0], folder / "in" / "a_0000.nii.gz")  # another scan of that name
    run(folder, "other scan")
    assert "was trained on" not in caplog.text


def test_each_shard_ends_with_the_command_that_combines_them(folder, capsys):
    words = ["predict", "-i", str(folder / "in"), "-o", str(folder / "some parts"), "-m", str(folder / "model"), "--quiet"]
    for shard in ("0/2", "1/2"):
        assert main([*words, "--device", "cpu", "--shard", shard]) in (0, 1)
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("once all 2 shards are done, combine them: autoseg report ")
    assert main([*shlex.split(last.partition("autoseg ")[2]), "--quiet"]) == 0
    assert [case["case"] for case in record(folder / "some parts")["cases"]] == list("abcde")
    capsys.readouterr()
    assert main([*words, "--device", "cpu"]) in (0, 1)
    assert "combine" not in capsys.readouterr().out


def test_a_missing_shard_is_told_and_taken_in_when_it_comes(folder, caplog):
    parts = run(folder, "parts", (0, 2))
    report(parts, runtime=CPU)
    assert "shards that are missing, and whose cases are in no table: 1/2" in caplog.text
    assert [case["case"] for case in record(parts)["cases"]] == ["a", "c", "e"]
    run(folder, "parts", (1, 2))
    report(parts, runtime=CPU)
    assert [case["case"] for case in record(parts)["cases"]] == list("abcde")


def test_shards_that_were_predicted_differently_are_refused(folder):
    parts = run(folder, "parts", (0, 2))
    run(folder, "parts", (1, 2), probabilities=True)
    with pytest.raises(AutosegError, match=r"run_1_of_2\.json: expected the options of the other shards"):
        report(parts, runtime=CPU)


def test_the_record_of_a_command_on_all_cases_stays(folder):
    parts = run(folder, "parts", (0, 2), (0, 1))
    before = (parts / "run.json").read_bytes()
    report(parts, runtime=CPU)
    assert (parts / "run.json").read_bytes() == before


def test_borders_of_all_shards_are_in_one_table(tmp_path):
    border = {"first": "liver", "second": "kidney", "faces": 9, "gap_max_mm": 0.5}
    for number, case in enumerate("ab"):
        made = CohortRecord("autoseg predict", shard=(number, 2), cases=(CaseOutcome(case, "done"),))
        write_json(tmp_path / f"run_{number}_of_2.json", made)
        write_json(tmp_path / f"{case}.json", CaseRecord("autoseg predict", case, state="done", borders=(border,)))
    merge_shards(tmp_path)
    heading, *rows = (tmp_path / "borders.csv").read_text().splitlines()
    assert heading.startswith("case,first,second,faces,")
    assert [row[:15] for row in rows] == ["a,liver,kidney,", "b,liver,kidney,"]


def test_a_table_of_another_program_stays_where_there_are_no_borders(tmp_path):
    for text, stays in (("theirs", True), ("case,first,second,faces,ours", False)):
        (tmp_path / "borders.csv").write_text(text)
        write_tables(tmp_path, [])
        assert (tmp_path / "borders.csv").exists() is stays
