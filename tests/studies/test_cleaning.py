"""Rules for pieces and holes are kept where predictions of cases that a model did not see are better with them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.labels import LabelSchema
from autoseg.engines import LocalEngine
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.report import Report, ScoredFiles
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.components import FillHoles, KeepLargest, apply_rules
from autoseg.studies.cleaning import TryRules, decide_rules

GRID = Geometry.from_spacing((14, 20, 24), (2.0, 1.0, 1.5))
LABELS = LabelSchema(("organ", "pair"), ((1,), (4,)), False, (1, 4))
REGIONS = LabelSchema(("whole", "core"), ((1, 4), (4,)), True, (1, 4))


def write(folder: Path, number: int, *, stray: bool, hollow: bool) -> None:
    """A case: an organ, and a structure that has two pieces; predicted with a stray piece and a hole where asked for."""
    truth = np.zeros(GRID.shape, np.uint8)
    truth[3 : 8 + number % 3, 3:10, 3:11] = 1
    truth[4:8, 13:16, 3:7], truth[4:8, 13:16, 12:15] = 4, 4
    guess = np.roll(truth, number % 2, 1)
    if stray:
        guess[11:13, 2 : 4 + number % 4, 18:21] = 1
    if hollow:
        guess[5:6, 6 : 7 + number % 2, 6:7] = 0
    for side, data in (("reference", truth), ("predicted", guess)):
        write_label_volume(LabelVolume(data, GRID), folder / side / f"case_{number:02}.nii.gz")


def scored(folder: Path, labels: LabelSchema = LABELS) -> Report:
    return evaluate_folder(folder / "reference", folder / "predicted", labels, engine=LocalEngine(1))


def files(folder: Path) -> dict[str, ScoredFiles]:
    names = [path.name for path in sorted((folder / "reference").iterdir())]
    return {n: ScoredFiles(str(folder / "reference" / n), str(folder / "predicted" / n)) for n in names}


def test_what_helps_by_the_paired_test_is_kept_and_what_harms_is_not(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, number, stray=number != 5, hollow=number != 3)
    found = decide_rules(files(tmp_path), LABELS, LocalEngine(1))
    assert found.rules == (KeepLargest((1,)), FillHoles((1,)))
    told = {f"{decision.what}, {decision.chosen}": decision.rule for decision in found.decisions}
    assert "p = " in told["post-processing of organ, only the largest piece of label 1: helps"]
    assert "-" in told["post-processing of pair, only the largest piece of label 4: not kept"]


def test_predictions_that_gain_nothing_or_too_seldom_are_left_alone(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, number, stray=number < 3, hollow=False)
    found = decide_rules(files(tmp_path), LABELS, LocalEngine(1))
    assert found.rules == ()
    assert any("the data do not support it" in decision.rule for decision in found.decisions)


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_dice_with_a_rule_is_that_of_the_map_written_and_scored_anew(tmp_path: Path, labels: LabelSchema) -> None:
    candidates = ((KeepLargest((1,)),), (KeepLargest((4,), 1),), (KeepLargest((1, 4)), FillHoles((1, 4))), (FillHoles((4,)),))
    write(tmp_path, 0, stray=True, hollow=True)
    report = scored(tmp_path, labels)
    step = pickle.loads(pickle.dumps(TryRules(labels, candidates)))  # noqa: S301 - our own
    (tried,) = (outcome.value for outcome in LocalEngine(1).map(step, files(tmp_path).items()))
    assert tried.before == pytest.approx([row["dice"] for row in report.rows])
    guess = read_label_volume(tmp_path / "predicted" / "case_00.nii.gz")
    for number, rules in enumerate(candidates):
        cleaned = apply_rules(guess.data, rules, 0.003)
        assert (not tried.after[number]) == (cleaned is guess.data)
        write_label_volume(LabelVolume(cleaned, GRID), tmp_path / "predicted" / "case_00.nii.gz")
        expected = [row["dice"] for row in scored(tmp_path, labels).rows]
        assert [tried.with_rule(number, s) for s in range(2)] == pytest.approx(expected)
