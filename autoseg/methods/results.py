"""The methods statements of an evaluation and of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoseg.digits import as_text
from autoseg.evaluation.comparison import LEVEL
from autoseg.evaluation.comparison_report import ComparisonRecord
from autoseg.evaluation.markdown import COLUMNS, markdown_table
from autoseg.evaluation.report import Report
from autoseg.evaluation.statistics import FEWEST, RESAMPLES, Difference, few_cases
from autoseg.methods.statement import NOTHING, Statement, joined, named, number

__all__ = ["CONSTANTS", "compared", "differences_table", "evaluated", "scores_table"]

CONFIDENCE = 95  # percent, of all intervals
# numbers in no record, because they are the same for all results
CONSTANTS: Mapping[str, float] = {
    **{"confidence": CONFIDENCE, "resamples": RESAMPLES, "level": LEVEL, "perfect": 1, "missed": 0},
    **{"few": FEWEST, "one in": 20, **{f"misses over {n}": 2 ** (n - 1) for n in range(2, FEWEST)}},  # of few_cases
}

METRICS: Mapping[str, Statement] = {  # metric -> its name and source
    "dice": Statement("Dice coefficient", ("dice1945",)),
    "iou": Statement("intersection over union (IoU)", ("jaccard1912",)),
    "nsd": Statement("normalised surface Dice (NSD)", ("nikolov2021surface",)),
    "hd95_mm": Statement("95th percentile of the Hausdorff distance (HD95)", ("huttenlocher1993hausdorff",)),
    "assd_mm": Statement("average symmetric surface distance (ASSD)", ("taha2015metrics",)),
    "volume_error_ml": Statement("volume error", ("taha2015metrics",)),
    "mse_mask": Statement("mean squared error of the masks", ()),
    "ssim_mask": Statement("structural similarity of the masks (SSIM)", ("wang2004ssim",)),
    "brier": Statement("Brier score of the probabilities", ("brier1950",)),
    "lesion_f1": Statement("F1 score of lesions that were found", ("maierhein2024reloaded",)),
    "surface_assd_mm": Statement("ASSD of the surface meshes", ("taha2015metrics",)),
}


def evaluated(report: Report) -> tuple[Statement, ...]:
    """How predictions were scored, and the results."""
    count, failed = len(report.cases), len(report.failures)
    told = [METRICS[name] for name in METRICS if name in report.metrics]
    cites = tuple(dict.fromkeys(key for one in told for key in ("taha2015metrics", "maierhein2024reloaded", *one.cites)))
    lost = f"; {failed} could not be scored" if failed else ""
    means = Statement("Values are means over cases.")
    if any(one.low is not None for one in report.summaries):
        sentence = f"Values are means over cases with {CONFIDENCE} % intervals of the bias-corrected and accelerated bootstrap"
        means = Statement(f"{sentence} with {RESAMPLES} resamples.", ("efron1987bca",))
    dice = report.mean_of("dice")
    seen = len(report.trained_on)
    return (
        Statement(f"{count} {'case was' if count == 1 else 'cases were'} compared with reference labels{lost}."),
        Statement(f"The model was trained on {seen} of them.") if seen else NOTHING,
        Statement(f"The metrics were {joined(one.text for one in told)}.", cites) if told else NOTHING,
        _tolerance(report),
        Statement(
            "A missed structure counts with a Dice of 0 and, in distances, with the diagonal of the image. A structure in "
            "neither reference nor prediction is left out of the means."
        ),
        means,
        Statement(few_cases(summary.n for summary in report.summaries)),
        Statement(f"The mean Dice over structures was {as_text(dice, 3)}.") if dice is not None else NOTHING,
    )


def _tolerance(report: Report) -> Statement:
    found = sorted({row.tolerance_mm for row in report.rows})
    if "nsd" not in report.metrics or not found:
        return NOTHING
    told = f"{found[0]:.4g}" if f"{found[0]:.4g}" == f"{found[-1]:.4g}" else f"{found[0]:.4g} to {found[-1]:.4g}"
    return Statement(f"The tolerance of the NSD was {told} mm.")


def scores_table(report: Report) -> str:
    """Means with intervals of each structure."""
    columns = {name: title for name, title in COLUMNS.items() if name in report.metrics}
    lines = [["structure", "cases", *columns.values()]]
    for structure in report.labels.structures if report.rows else ():
        found = [report.summary(structure, name) for name in columns]
        lines.append([named([structure]), str(found[0].n_cases), *(_cell(one.mean, one.low, one.high) for one in found)])
    return markdown_table(lines) if len(lines) > 1 else ""


def _cell(mean: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if mean is None:
        return "undefined"
    return as_text(mean, 3, sign=sign) + ("" if low is None or high is None else f" [{as_text(low, 3)}, {as_text(high, 3)}]")


def compared(record: ComparisonRecord) -> tuple[Statement, ...]:
    """How networks were compared."""
    names = [one.name for one in record.networks]
    over = ""
    if record.over_trainings:
        over = " A difference counts where it also holds over pairs of training runs (Student's t)."
    return (
        Statement(f"{joined(names)} were compared on the same cases, with the same plan, recipe and length of training."),
        Statement(
            f"The first was paired with each of the others, case by case: mean differences with {CONFIDENCE} % bootstrap "
            "intervals, and two-sided Wilcoxon signed-rank tests with Holm's correction of p values; the level was "
            f"{number(LEVEL)}, and a mean Dice within {number(record.margin)} counts as equivalent.{over}",
            ("efron1987bca", "wilcoxon1945", "holm1979"),
        ),
        Statement(few_cases(one.n for others in record.differences.values() for one in others.values())),
    )


def differences_table(record: ComparisonRecord) -> str:
    """Differences of the first network to each other one."""
    lines = [[f"{record.networks[0].name} minus" if record.networks else "", "metric", "cases", "difference", "p"]]
    rows: Iterable[tuple[str, str, Difference]] = (
        (name, metric, one) for metric, others in record.differences.items() for name, one in others.items()
    )
    for name, metric, one in rows:
        p_value = "" if one.p_value is None else f"{one.p_value:.3g}"
        lines.append([name, metric, str(one.n), _cell(one.mean, one.low, one.high, "+"), p_value])
    return markdown_table(lines) if len(lines) > 1 else ""
