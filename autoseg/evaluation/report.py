"""The result of an evaluation as a value: every number of every case, and their summaries.

For each structure and metric, a ``Report`` also keeps the mean with its interval and number of cases. An undefined value is
counted with its reason, and a case that could not be scored is a failure; both are printed beside the means that they are
missing from. It is stored as ``metrics.json``.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, FileError
from autoseg.evaluation.groups import UNSTATED, Groups
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.statistics import mean_interval
from autoseg.workspace import OPTIONAL, called, read_record

__all__ = ["REPORT_FILE", "CaseMetrics", "Failure", "Mean", "Report", "ScoredFiles", "Summary", "read_report", "summarise"]

REPORT_FILE = "metrics.json"
TOGETHER = ("mse_mask_fg", "foreground_share_fg")  # values of all structures as one mask
NOT_ANNOTATED = "not annotated"  # reason for values of a structure that was not annotated in a case


@dataclass(frozen=True)
class CaseMetrics:
    """All metrics of one structure in one case.

    Attributes:
        case, structure: their names.
        values: of each metric, in the order of METRICS; then ``mse_mask_fg`` and ``foreground_share_fg``, of all structures
            as one mask, the same in each row of a case; then ``brier`` where the prediction has probabilities, and what
            ``more`` of ``evaluate_folder`` adds. None where undefined.
        reasons: why a value is None, or a substitute for a missing one; ordinary values have none. If the structure was
            not annotated in the case, no value is defined and no voxel is counted.
        tolerance_mm: tolerance of the surface Dice.
        counts: voxels in and out of the two masks.
    """

    case: str
    structure: str
    values: dict[str, float | None]
    reasons: dict[str, str]
    tolerance_mm: float = field(metadata=called("nsd_tolerance_mm"))
    counts: Counts = field(metadata=called("voxels"))

    def __getitem__(self, name: str) -> float | None:
        """The value of a metric, or None if it is undefined; KeyError for an unknown name."""
        return self.values[name]

    def reason(self, name: str) -> str:
        """Why the value of a metric is undefined or a substitute; '' otherwise."""
        return self.reasons.get(name, "")

    def with_more(self, found: Iterable[tuple[str, float | None, str]]) -> CaseMetrics:
        """The row with further (name, value, reason)."""
        found = list(found)
        values = {name: value for name, value, _ in found}
        reasons = {name: reason for name, _, reason in found if reason}
        return replace(self, values={**self.values, **values}, reasons={**self.reasons, **reasons})

    def not_annotated(self) -> CaseMetrics:
        """The row for a structure that was not annotated in the case: nothing is known about its prediction."""
        own = [name for name in self.values if name not in TOGETHER]
        return replace(
            self,
            values={**self.values, **dict.fromkeys(own)},
            reasons={**self.reasons, **dict.fromkeys(own, NOT_ANNOTATED)},
            counts=Counts(0, 0, 0, 0),
        )


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored, and why."""

    case: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over all cases that were scored.

    Attributes:
        n: cases in which the metric is defined; mean, median and interval are over these.
        n_cases: cases scored.
        mean, median: None when ``n`` is 0.
        low, high: 95 % bootstrap interval of the mean; None when ``n`` is below 2.
        reasons: (reason, cases) for values that are undefined or substitutes.
    """

    structure: str
    metric: str
    n: int
    n_cases: int
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Mean:
    """A mean over the structures that have a mean; None if none has."""

    mean: float | None
    n_structures: int


@dataclass(frozen=True)
class ScoredFiles:
    """The names of the two label maps of a case; in older versions, their paths."""

    reference: str
    predicted: str


@dataclass(frozen=True)
class Report:
    """An evaluation of many cases.

    Attributes:
        labels: LabelSchema of the structures.
        summaries: one Summary per structure and metric.
        foreground_mean: metric -> mean of the structures' means.
        rows: CaseMetrics of every case and structure.
        failures: cases that could not be scored; they are not part of any mean.
        files: case -> its files.
        not_scored: predictions without a reference.
        notes: sentences about values in the label maps that are not structures.
        groups: groups of cases, if requested.
        trained_on: scored cases that the model had among its training cases, if its record says so.
    """

    labels: LabelSchema
    summaries: tuple[Summary, ...] = field(metadata=called("structures"))
    foreground_mean: dict[str, Mean]
    rows: tuple[CaseMetrics, ...] = field(metadata=called("cases"))
    failures: tuple[Failure, ...] = ()
    files: dict[str, ScoredFiles] = field(default_factory=dict)
    not_scored: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    groups: Groups = field(default=Groups(), metadata=OPTIONAL)
    trained_on: tuple[str, ...] = field(default=(), metadata=OPTIONAL)

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases scored."""
        return tuple(self.by_case)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that were measured."""
        return tuple(self.foreground_mean)

    @cached_property
    def by_case(self) -> Mapping[str, tuple[CaseMetrics, ...]]:
        """The rows of each case."""
        return _grouped(self.rows, "case")

    @cached_property
    def by_structure(self) -> Mapping[str, tuple[CaseMetrics, ...]]:
        """The rows of each structure."""
        return _grouped(self.rows, "structure")

    @cached_property
    def by_group(self) -> Mapping[str, Report]:
        """The report on the cases of each group; {} if there are no groups."""
        names = self.groups.names(self.cases) if self.groups.column else ()
        of: dict[str, list[CaseMetrics]] = {name: [] for name in names}
        for row in self.rows if names else ():
            of[self.groups.of.get(row.case, UNSTATED)].append(row)
        return {name: summarise(rows, self.labels) for name, rows in of.items()}

    @property
    def unlabelled(self) -> dict[str, tuple[int, ...]]:
        """{case: numbers of its structures that were not annotated}, for cases that have any."""
        first = self.metrics[0] if self.metrics else ""
        found = {
            case: tuple(n for n, row in enumerate(rows) if row.reason(first) == NOT_ANNOTATED)
            for case, rows in self.by_case.items()
        }
        return {case: numbers for case, numbers in found.items() if numbers}

    @cached_property
    def _summaries(self) -> Mapping[tuple[str, str], Summary]:
        return {(summary.structure, summary.metric): summary for summary in self.summaries}

    def summary(self, structure: str, metric: str) -> Summary:
        """The Summary of one structure and metric; KeyError for an unknown name."""
        return self._summaries[structure, metric]

    def mean_of(self, metric: str) -> float | None:
        """The mean of a metric over structures; None if it is undefined or was not measured."""
        return self.foreground_mean[metric].mean if metric in self.foreground_mean else None

    def table(self) -> str:
        """The report as Markdown: means with intervals, undefined values, the worst cases, the failures."""
        from autoseg.evaluation.markdown import as_markdown  # it imports this module

        return as_markdown(self)


def _grouped(rows: Iterable[CaseMetrics], name: str) -> dict[str, tuple[CaseMetrics, ...]]:
    found: dict[str, list[CaseMetrics]] = {}
    for row in rows:
        found.setdefault(getattr(row, name), []).append(row)
    return {key: tuple(group) for key, group in found.items()}


def summarise(
    rows: Sequence[CaseMetrics],
    labels: LabelSchema,
    *,
    failures: Iterable[Failure] = (),
    files: Mapping[str, ScoredFiles] | None = None,
    not_scored: Iterable[str] = (),
    notes: Iterable[str] = (),
    trained_on: Iterable[str] = (),
) -> Report:
    """A Report from the CaseMetrics of any number of cases; see Report for the arguments."""
    names = list(rows[0].values) if rows else list(METRICS)
    by_structure = _grouped(rows, "structure")
    summaries = tuple(
        _summarise_metric(structure, name, by_structure.get(structure, ())) for structure in labels.structures for name in names
    )
    means: dict[str, list[float]] = {name: [] for name in names}
    for summary in summaries:
        if summary.mean is not None:
            means[summary.metric].append(summary.mean)
    return Report(
        labels=labels,
        summaries=summaries,
        foreground_mean={n: Mean(statistics.fmean(found) if found else None, len(found)) for n, found in means.items()},
        rows=tuple(rows),
        failures=tuple(failures),
        files=dict(files or {}),
        not_scored=tuple(not_scored),
        notes=tuple(notes),
        trained_on=tuple(trained_on),
    )


def _summarise_metric(structure: str, metric: str, rows: Sequence[CaseMetrics]) -> Summary:
    values = [value for row in rows if (value := row[metric]) is not None]
    low, high = mean_interval(values)
    return Summary(
        structure=structure,
        metric=metric,
        n=len(values),
        n_cases=len(rows),
        mean=statistics.fmean(values) if values else None,
        median=statistics.median(values) if values else None,
        low=low,
        high=high,
        reasons=tuple(Counter(reason for row in rows if (reason := row.reason(metric))).items()),
    )


def read_report(path: Path | str) -> Report:
    """The Report in a metrics.json.

    Raises:
        FileError: missing, damaged, or of a version that did not store the labels.
    """
    try:
        return read_record(Report, path, strict=False)
    except AutosegError as fault:
        raise FileError(f"{path}: not the metrics.json of `autoseg evaluate` ({fault}). Score the predictions again") from fault
