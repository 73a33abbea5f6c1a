"""What a study added, against the same without it."""

from __future__ import annotations

import pytest

from autoseg.data.labels import LabelSchema
from autoseg.evaluation.calibration import Calibration
from autoseg.evaluation.comparison import Method
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.report import CaseMetrics, Report, summarise
from autoseg.evaluation.study_findings import ALL_STRUCTURES, StudyFindings, change_of, changes_between

LABELS = LabelSchema(("organ", "lesion"), ((1,), (2,)), False, (1, 2))
CASES = [f"case_{number}" for number in range(12)]


def report(organ: list[float], lesion: list[float | None]) -> Report:
    rows = []
    for case, *values in zip(CASES, organ, lesion, strict=True):
        for structure, dice in zip(LABELS.structures, values, strict=True):
            rows.append(CaseMetrics(case, structure, {"dice": dice}, {}, 1.0, Counts(1, 1, 1, 1)))
    return summarise(rows, LABELS)


@pytest.mark.thorough
def test_each_structure_is_compared_over_the_cases_that_have_it() -> None:
    before = report([0.5] * 12, [0.0, *[0.4] * 11])
    after = report([0.6] * 12, [None, *[0.4] * 11])
    whole, organ, lesion = changes_between(before, after)
    assert (whole.name, organ.name, lesion.name) == (ALL_STRUCTURES, "organ", "lesion")
    assert organ.difference.mean == pytest.approx(0.1)
    assert (lesion.before, lesion.after) == (pytest.approx(4.4 / 12), pytest.approx(0.4))
    assert (lesion.difference.n, lesion.difference.mean) == (11, 0.0)
    assert not any(change.lowers for change in (whole, organ, lesion))


@pytest.mark.thorough
def test_a_mean_that_falls_by_more_than_its_interval_is_told_and_noise_is_not() -> None:
    def of(gain: float, noise: float) -> Method:
        return Method("", {(case, "organ"): {"dice": 0.7 + gain + noise * (-1) ** n} for n, case in enumerate(CASES)})

    worse, noisy = (
        change_of("pair", of(gain, noise), of(0.0, 0.0), kept=True) for gain, noise in ((-0.1, 0.01), (-0.001, 0.1))
    )
    assert worse.lowers
    assert not noisy.lowers
    ((said, holds),) = StudyFindings(cleaned=(worse,)).checks
    assert not holds
    assert said.endswith("lower: pair")
    ((_, holds),) = StudyFindings(ensembles=(noisy, change_of("left out", of(-0.1, 0.0), of(0.0, 0.0), kept=False))).checks
    assert holds
    assert StudyFindings().checks == ()


def test_the_calibration_error_on_held_out_cases_is_among_what_is_told() -> None:
    fallen = Calibration((2.0,), {"a": 0.2, "b": 0.1}, {"a": 0.1, "b": 0.12}, 1.0, 0.9, 10)
    assert fallen.mean_errors == pytest.approx((0.15, 0.11))
    ((said, holds),) = StudyFindings(calibration=fallen).checks
    assert holds
    assert "0.1500 before, 0.1100 after" in said
