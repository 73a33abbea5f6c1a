"""Scores by a column of a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.evaluation import CaseMetrics, Report, read_report, summarise, write_report
from autoseg.evaluation.groups import UNSTATED, read_groups
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.overlap import Counts
from autoseg.imaging.files import write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.options import EvaluateOptions, Runtime
from autoseg.pipeline import evaluate
from autoseg.studies.crossval import merge_reports

LABELS = LabelSchema(("organ",), ((1,),), False, (1,))


def report_of(dice: dict[str, float]) -> Report:
    rows = [
        CaseMetrics(case, "organ", dict.fromkeys(METRICS) | {"dice": value}, {}, 1.0, Counts(1, 1, 1, 1))
        for case, value in dice.items()
    ]
    return summarise(rows, LABELS)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_each_group_has_the_means_of_its_cases(tmp_path: Path, separator: str) -> None:
    lines = (["age", "case", "scanner"], ["7", "a", "A | 3T"], ["8", "b", "B"], ["9", "c", "A | 3T"], ["", "d", ""])
    (tmp_path / "cases.csv").write_text("\ufeff" + "\n".join(separator.join(line) for line in lines))
    groups = read_groups(f"{tmp_path / 'cases.csv'}:scanner")
    report = replace(report_of({"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.1}), groups=groups)
    means = {name: group.summary("organ", "dice").mean for name, group in report.by_group.items()}
    assert means == pytest.approx({"A | 3T": 0.6, "B": 0.9, UNSTATED: 0.1})
    assert "| A \\| 3T | organ | 2 | 0.600" in report.table()
    write_report(report, tmp_path / "out")
    assert read_report(tmp_path / "out" / "metrics.json").by_group.keys() == means.keys()


@pytest.mark.parametrize(
    "content",
    [
        b"patient,Case,scanner\n1,a,3T\n2,b,1.5T\n",
        "case\tscanner\na\t3T\nb\t1.5T\n".encode("utf-16"),
        b"sep=;\ncase;scanner\na;3T\nb;1.5T\n",
        b"# of the trial\n\ncase,scanner\na, 3T\nb,1.5T\n",
    ],
)
def test_groups_are_read_as_spreadsheets_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    assert read_groups(f"{tmp_path / 'cases.csv'}:scanner").of == {"a": "3T", "b": "1.5T"}


def test_what_is_wrong_with_a_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("case,site\na,1\na,2\n")
    for text, told in (
        (f"{path}:site", "'a' is in two groups"),
        (f"{path}:sex", "no column 'sex' in it. There are: case, site"),
        (str(path), "expected FILE:COLUMN"),
        (f"{tmp_path / 'none.csv'}:site", "there is no such file"),
    ):
        with pytest.raises(AutosegError, match=told):
            read_groups(text)


def test_folds_are_put_together_and_a_case_counts_once() -> None:
    whole = merge_reports([report_of({"a": 0.5, "b": 0.9}), report_of({"c": 0.7, "a": 0.1})])
    assert [(row.case, row["dice"]) for row in whole.rows] == [("a", 0.5), ("b", 0.9), ("c", 0.7)]
    assert whole.summary("organ", "dice").mean == pytest.approx(0.7)


def test_what_is_said_of_folds_together_is_true_of_all_their_cases() -> None:
    first = report_of({"a": 0.5})
    one = replace(first, rows=(replace(first.rows[0], counts=Counts(0, 1, 0, 1)),))
    said = ("in predictions alone: organ (value 1)", "lesions: pieces")
    assert merge_reports([replace(one, notes=said), replace(report_of({"b": 0.5}), notes=said[1:])]).notes == said[1:]
    assert merge_reports([replace(one, notes=said)]).notes == said[::-1]


def test_a_table_may_name_files_and_one_of_other_cases_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("file,site\na.nii.gz,A\nb.seg.nrrd,B\nu\u0308.nii.gz,C\nd,D\nelse,E\n")
    groups = read_groups(f"{path}:site").among(["a", "b", "\u00fc", "d", "e"])
    assert groups.of == {"a": "A", "b": "B", "\u00fc": "C", "d": "D"}
    with pytest.raises(
        AutosegError, match="expected 'site' of the cases x, y, found it for others, a.nii.gz, b.seg.nrrd, d, ..."
    ):
        read_groups(f"{path}:site").among(["x", "y"])


def test_groups_of_no_case_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    for folder in ("truth", "guess"):
        label = np.zeros((4, 5, 6), np.uint8)
        label[1:3, 1:4, 1:4] = 1
        write_label_volume(LabelVolume(label, Geometry.from_spacing(label.shape, (1, 1, 1))), tmp_path / folder / "a.nii.gz")
    (tmp_path / "cases.csv").write_text("case,site\nb,A\n")
    options = EvaluateOptions(groups=f"{tmp_path / 'cases.csv'}:site")
    with pytest.raises(AutosegError, match="expected 'site' of the cases a, found it for others, b"):
        evaluate(tmp_path / "truth", tmp_path / "guess", tmp_path / "out", options, Runtime(workers=1))
    assert not (tmp_path / "out").exists()
