import csv
import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.errors import FileError
from autoseg.evaluation import Failure, evaluate_case, summarise, write_report
from autoseg.evaluation.groups import Groups
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.report import CaseMetrics, ScoredFiles
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume

LABELS = read_labels({"background": 0, "head": 1, "tail": 2})


def volume(data, spacing_mm=(1.5, 1, 1)):
    return LabelVolume(data, Geometry.from_spacing(data.shape, spacing_mm))


def scored_case(case, tail=True, found=True, shift=0, labels=LABELS):
    reference, predicted = np.zeros((2, 10, 12, 14), np.uint8)
    reference[2:6, 2:6, 2:8] = 1
    predicted[2:6, 2:6, 2 + shift : 8 + shift] = 1
    if tail:
        reference[7:9, 7:10, 2:8] = 2
    if found:
        predicted[7:9, 7:10, 2:8] = 2
    return evaluate_case(reference=volume(reference), predicted=volume(predicted), labels=labels, case=case)


@pytest.fixture
def report():
    rows = [*scored_case("a"), *scored_case("b", shift=1), *scored_case("c", found=False, shift=3)]
    rows += [*scored_case("d", tail=False, found=False), *scored_case("e", tail=False)]
    return summarise(
        rows,
        LABELS,
        failures=[Failure("f", "case 'f': no prediction;\nexpected x")],
        files={"a": ScoredFiles("r/a.nii.gz", "p/a.nii.gz")},
        not_scored=["g_iso"],
    )


def test_a_summary_says_how_many_cases_it_is_over(report):
    dice = report.summary("tail", "dice")
    assert (dice.n, dice.n_cases, dice.reasons) == (4, 5, (("both empty", 1),))
    assert dice.mean == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert dice.low < dice.mean < dice.high
    hd95 = report.summary("tail", "hd95_mm")
    assert hd95.n == 3
    assert dict(hd95.reasons) == {
        "both empty": 1,
        "reference empty": 1,
        "prediction empty: diagonal of the image": 1,
    }


def test_the_foreground_mean_is_over_structures(report):
    found = report.foreground_mean["dice"]
    assert found.n_structures == 2
    assert found.mean == report.mean_of("dice") == pytest.approx((report.summary("head", "dice").mean + 0.5) / 2)


def test_the_table_counts_what_is_missing_and_names_the_worst(report):
    text = report.table()
    assert "5 cases scored; 1 could not be scored." in text
    assert "4 of 5 cases" in text
    assert "3 of 5 cases" in text
    assert "NSD: fraction of the surfaces within 1.5 mm" in text
    assert "- tail, both empty: undefined dice, iou" in text
    assert "in 1 of 5 cases (d)" in text
    assert "stand-in hd95_mm, hd_mm, assd_mm in 1 of 5 cases (c)" in text
    assert "| c | tail | 0.000 |" in text
    assert "- f: case 'f': no prediction; expected x" in text
    assert "1 predictions (g_iso)" in text or "1 prediction (g_iso)" in text
    widths = {line.count("|") for line in text.split("\n\n")[1].splitlines()}
    assert len(widths) == 1


def test_nothing_scored_is_still_a_report(tmp_path):
    report = summarise([], LABELS, failures=[Failure("a", "unreadable")])
    assert "0 cases scored; 1 could not be scored." in report.table()
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["failures"] == [{"case": "a", "reason": "unreadable"}]


def test_one_case_has_no_interval(tmp_path):
    report = summarise(scored_case("a"), LABELS)
    assert report.summary("head", "dice").low is None
    assert "[" not in report.table()
    write_report(report, tmp_path)


def test_few_cases_are_named_below_the_means_and_below_the_groups(report):
    said = "Intervals over fewer than 6 cases say little about other cases: of those over"
    assert f"{said} 3, about one in 4 or more misses the true mean, not one in 20." in report.table()
    many = summarise([row for case in "abcdef" for row in scored_case(case)], LABELS)
    assert said not in many.table()
    grouped = replace(many, groups=Groups("site", {"a": "north", "b": "north"}))
    assert f"other ways. {said} 2, about one in 2" in grouped.table()


def refuse_constant(token):
    raise AssertionError(f"{token} is not JSON")


def test_json_and_csv_hold_every_number(report, tmp_path):
    paths = write_report(report, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["metrics.csv", "metrics.json", "metrics.md", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(p.name for p in paths)
    found = json.loads(paths[1].read_text(), parse_constant=refuse_constant)
    assert len(found["cases"]) == 10
    assert found["cases"][7]["reasons"]["dice"] == "both empty"
    assert found["files"]["a"] == {"reference": "r/a.nii.gz", "predicted": "p/a.nii.gz"}
    with open(paths[0], newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 11
    assert lines[3]["case"] == "b"
    assert float(lines[2]["dice"]) == pytest.approx(5 / 6)
    assert lines[7]["dice"] == ""
    assert "dice: both empty" in lines[7]["note"]
    assert lines[10]["note"] == "not scored: case 'f': no prediction; expected x"
    assert paths[2].read_text().endswith(report.table())


def test_summary_json_is_as_nnunet_writes_it(report, tmp_path):
    write_report(report, tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text())
    names = {"Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref"}
    assert set(found) == {"foreground_mean", "mean", "metric_per_case"}
    assert set(found["foreground_mean"]) == set(found["mean"]["1"]) == names
    first = found["metric_per_case"][0]
    assert (first["reference_file"], first["prediction_file"]) == ("r/a.nii.gz", "p/a.nii.gz")
    counts = {"FN": 0, "FP": 0, "TN": 1680 - 96, "TP": 96, "n_pred": 96, "n_ref": 96}
    assert first["metrics"]["1"] == {"Dice": 1, "IoU": 1, **counts}
    assert math.isnan(found["metric_per_case"][3]["metrics"]["2"]["Dice"])
    assert found["mean"]["2"]["Dice"] == pytest.approx(0.5)
    assert found["mean"]["2"]["TP"] == pytest.approx(np.mean([36, 36, 0, 0, 0]))
    assert found["foreground_mean"]["IoU"] == pytest.approx((found["mean"]["1"]["IoU"] + found["mean"]["2"]["IoU"]) / 2)


def test_summary_json_names_regions_by_their_values(tmp_path):
    labels = read_labels({"background": 0, "whole": [1, 2], "tail": 2}, [1, 2])
    write_report(summarise(scored_case("a", labels=labels), labels), tmp_path)
    assert set(json.loads((tmp_path / "summary.json").read_text())["mean"]) == {"(1, 2)", "2"}


def test_a_failed_write_leaves_the_old_report(report, tmp_path, monkeypatch):
    write_report(report, tmp_path)
    before = (tmp_path / "metrics.csv").read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(Exception, match="disk full"):
        write_report(summarise(scored_case("z"), LABELS), tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_the_summary_of_another_program_is_kept(report, tmp_path):
    (tmp_path / "summary.json").write_text("theirs")
    with pytest.raises(FileError, match=r"summary\.json: exists and was not made by this program.*choose another place"):
        write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    write_report(report, tmp_path / "ours")
    write_report(report, tmp_path / "ours")


@pytest.mark.thorough
def test_a_report_takes_memory_for_its_numbers_and_one_byte_a_draw(tmp_path):
    labels = LabelSchema(("organ",), ((1,),), False, (1,))

    def peak(n_cases):
        rng = np.random.default_rng(n_cases)
        values = [{name: float(rng.random()) for name in METRICS} for _ in range(n_cases)]
        rows = [CaseMetrics(f"case_{i}", "organ", v, {}, 1.0, Counts(1, 1, 1, 1)) for i, v in enumerate(values)]
        tracemalloc.start()
        try:
            write_report(summarise(rows, labels), tmp_path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert (peak(503) - peak(211)) / (503 - 211) < 25_000  # bytes a case; 10 000 are draws of the bootstrap
