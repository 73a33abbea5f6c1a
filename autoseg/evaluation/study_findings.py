"""The findings of a study: decisions with their reasons, and their effect on the cross-validated Dice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoseg.evaluation.calibration import Calibration
from autoseg.evaluation.comparison import Method
from autoseg.evaluation.report import Report
from autoseg.evaluation.statistics import Difference, paired_difference

__all__ = ["ALL_STRUCTURES", "MADE_BY", "Change", "Decided", "StudyFindings", "change_of", "changes_between"]

MADE_BY = "autoseg study"
ALL_STRUCTURES = "mean of structures"
METRIC = "dice"
TOLERANCE = 1e-9  # of Dice; smaller differences come from the order of summation


@dataclass(frozen=True)
class Decided:
    """What was chosen, by which rule and from which numbers, each as a sentence or short phrase."""

    what: str
    chosen: str
    rule: str
    numbers: str = ""


@dataclass(frozen=True)
class Change:
    """Mean Dice over cases with something and without it.

    Attributes:
        name: a structure, ``ALL_STRUCTURES``, or an ensemble of two configurations.
        before, after: means over the cases in which Dice is defined; None if there are none.
        difference: after minus before, over the cases in which both are defined.
        kept: whether the model has it.
    """

    name: str
    before: float | None
    after: float | None
    difference: Difference
    kept: bool = True

    @property
    def lowers(self) -> bool:
        """Whether the mean is lower with it, by more than its interval allows."""
        mean, high = self.difference.mean, self.difference.high
        return mean is not None and mean < -TOLERANCE and (high is None or high < 0)


@dataclass(frozen=True)
class StudyFindings:
    """The content of ``study.json``.

    Attributes:
        made_by: the verb.
        model: name of the resulting model; '' while the study is running.
        chosen: the configuration of that model.
        about: configuration -> its description, in a sentence.
        decisions: what was decided, and why.
        calibration: None without voxels for calibration.
        ensembles: each ensemble considered, against the configuration chosen before.
        cleaned: each structure with and without the rules for pieces and holes; empty without rules.
        failed: configuration -> why it could not be trained.
        predicted: case -> its scored label map, relative to the workspace folder.
    """

    made_by: str = ""
    model: str = ""
    chosen: str = ""
    about: dict[str, str] = field(default_factory=dict)
    decisions: tuple[Decided, ...] = ()
    calibration: Calibration | None = None
    ensembles: tuple[Change, ...] = ()
    cleaned: tuple[Change, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    predicted: dict[str, str] = field(default_factory=dict)

    @property
    def checks(self) -> tuple[tuple[str, bool], ...]:
        """(a condition that a study must meet, whether it does), for all conditions that apply."""
        found = []
        changes = [*(change for change in self.ensembles if change.kept), *self.cleaned]
        if changes:
            lower = [change.name for change in changes if change.lowers]
            said = f"lower: {', '.join(lower)}" if lower else "in no case are they lower by more than the interval allows"
            found.append((f"Mean Dice with what was added, against that without it: {said}", not lower))
        if self.calibration and self.calibration.temperatures:
            before, after = self.calibration.mean_errors
            words = f"Calibration error on cases held out, mean of structures: {before:.4f} before, {after:.4f} after"
            found.append((words, after < before))
        return tuple(found)


def change_of(name: str, after: Method, before: Method, *, kept: bool) -> Change:
    """One method against another, by mean Dice per case."""
    return _change(name, before.by_case(METRIC), after.by_case(METRIC), kept)


def changes_between(before: Report, after: Report) -> tuple[Change, ...]:
    """A Change for the mean over structures, and one for each structure."""
    whole = [Method("", {(row.case, row.structure): row.values for row in report.rows}) for report in (before, after)]
    changes = [change_of(ALL_STRUCTURES, whole[1], whole[0], kept=True)]
    for structure in before.labels.structures:
        one, other = (
            {row.case: row.values.get(METRIC) for row in report.by_structure.get(structure, ())} for report in (before, after)
        )
        changes.append(_change(structure, one, other, True))
    return tuple(changes)


def _change(name: str, before: Mapping[str, float | None], after: Mapping[str, float | None], kept: bool) -> Change:
    cases = sorted(before)
    difference = paired_difference([after.get(case) for case in cases], [before[case] for case in cases])
    return Change(name, _mean(before), _mean(after), difference, kept)


def _mean(values: Mapping[str, float | None]) -> float | None:
    defined = [value for value in values.values() if value is not None]
    return sum(defined) / len(defined) if defined else None
