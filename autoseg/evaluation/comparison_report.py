"""A comparison as files: comparison.md, .csv and .json, cases.csv, and cost.png, accuracy against cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.atomic import replacing
from autoseg.digits import as_csv
from autoseg.errors import FileError
from autoseg.evaluation.comparison import (
    RECONSTRUCTION,
    SCALES,
    SEGMENTATION,
    SHARE,
    Comparison,
    Cost,
    Interval,
    Method,
    Scale,
    interval_text,
    p_text,
)
from autoseg.evaluation.markdown import markdown_table
from autoseg.evaluation.restored import RESTORED_HEADINGS, RestoredRow, restored_cells, summarise_restored
from autoseg.evaluation.statistics import Difference, few_cases
from autoseg.ledger import FOREIGN
from autoseg.names import counted
from autoseg.places import COMPARISON, refuse_foreign
from autoseg.workspace import REST, as_text, write_text

__all__ = [
    "About",
    "ComparisonRecord",
    "as_markdown",
    "as_record",
    "comparison_text",
    "refuse_foreign_comparison",
    "write_comparison",
]


@dataclass(frozen=True)
class About:
    """Facts common to all methods.

    Attributes:
        title: of the comparison.
        conditions: common conditions, in sentences.
        more: anything else to store, as JSON.
    """

    title: str
    conditions: tuple[str, ...]
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class TrainingRecord:
    """One of several training runs of a method: its cost, and its mean over cases for each metric."""

    cost: Cost
    means: dict[str, float | None]


@dataclass(frozen=True)
class NetworkRecord:
    """A method: ``cases`` has a dictionary for each case and structure, with the value of each metric."""

    name: str
    cost: Cost
    means: dict[str, Interval]
    failures: tuple[str, ...]
    trainings: dict[str, TrainingRecord]
    cases: tuple[dict[str, Any], ...]
    restored: tuple[RestoredRow, ...]


@dataclass(frozen=True)
class GatesRecord:
    """A network with its attention switched off: Dice by case, and the Dice lost by that."""

    dice: dict[str, float | None]
    difference: Difference


@dataclass(frozen=True)
class ComparisonRecord:
    """``comparison.json``: the complete comparison.

    Attributes:
        about: title, conditions and other facts common to all methods.
        support: what the data support, in sentences.
        margin: equivalence margin, in Dice.
        networks: the methods.
        failed: name -> why it has no scores.
        differences, over_trainings: metric -> name -> Difference; the second over pairs of training runs.
        gates_closed: by name, for networks with attention.
    """

    about: dict[str, Any] = field(metadata=REST)
    support: tuple[str, ...]
    margin: float
    networks: tuple[NetworkRecord, ...]
    failed: dict[str, str]
    differences: dict[str, dict[str, Difference]]
    over_trainings: dict[str, dict[str, Difference]]
    gates_closed: dict[str, GatesRecord]


COST = {
    "parameters": Scale("parameters, M", 1e-6),
    "operations": Scale("GFLOP per patch", 1e-9),
    "seconds_per_step": Scale("s per step", digits=3),
    "memory_mib": Scale("peak memory, MiB", digits=0),
    "batch_size": Scale("batch", digits=0),
    "steps": Scale("steps", digits=0),
    "seconds": Scale("minutes", 1 / 60, 1),
    "predict_seconds": Scale("s per scan", digits=2),
}
FILES = ("comparison.md", "comparison.csv", "cases.csv", COMPARISON)


def write_comparison(comparison: Comparison, about: About, folder: Path | str) -> tuple[Path, ...]:
    """Write the five files to a folder, each whole or not at all.

    Args:
        comparison: Comparison.
        about: facts common to all methods.
        folder: created if missing.

    Returns:
        tuple of the paths.
    """
    folder = Path(folder)
    texts = (
        as_markdown(comparison, about) + "\n![Accuracy against cost](cost.png)\n",
        _methods_csv(comparison),
        _cases_csv(comparison),
        as_text(as_record(comparison, about)),
    )
    for name, text in reversed(tuple(zip(FILES, texts, strict=True))):  # the one that tells whose they are comes first
        write_text(folder / name, text)
    with replacing(folder / "cost.png") as draft:
        _plot(comparison, draft)
    return tuple(folder / name for name in (*FILES, "cost.png"))


def refuse_foreign_comparison(folder: Path) -> None:
    """Raise FileError if a folder has files of these names that ``write_comparison`` did not write."""
    refuse_foreign(folder / COMPARISON)
    for path in (folder / name for name in (*FILES, "cost.png")):
        if path.exists() and not (folder / COMPARISON).exists():
            raise FileError(f"{path}: {FOREIGN}")


def as_markdown(comparison: Comparison, about: About) -> str:
    """``comparison_text`` under its title."""
    return f"# {about.title}\n\n{comparison_text(comparison, about)}"


def comparison_text(comparison: Comparison, about: About) -> str:
    """Conditions, what the data support, both tables, cost, paired differences, failures; ends with a newline."""
    parts = [" ".join(about.conditions), "\n".join(f"- {line}" for line in comparison.sentences())]
    if comparison.methods:
        parts += ["## Segmentation", _means(comparison, SEGMENTATION)]
        few = few_cases(mean.n for means in comparison.means.values() for mean in means.values())
        parts += [f"Means over cases of the mean over structures, with 95 % bootstrap intervals. {few}".rstrip()]
        parts += ["## Reconstruction", _means(comparison, SHARE | RECONSTRUCTION)]
        parts += [
            "Of masks: label maps as volumes; their errors depend on the fraction of the image that a structure fills. Of "
            "restored intensities: means over the degradations; only networks with a restoration head have them."
        ]
        parts += _restored(comparison)
        if any(method.trainings for method in comparison.methods):
            parts += ["## Training runs", _trainings(comparison)]
        parts += ["## Cost", _cost(comparison)]
    if comparison.differences:
        parts += [f"## {comparison.reference} minus the others", _differences(comparison)]
    if comparison.gates_closed:
        parts += ["## With attention switched off", _gates_closed(comparison)]
    failures = [f"- {name}: not trained: {reason}" for name, reason in comparison.failed.items()]
    failures += [f"- {c.name}: {failure}" for c in comparison.methods for failure in c.failures]
    if failures:
        parts += ["## Failed", "\n".join(failures)]
    return "\n\n".join(parts) + "\n"


def _means(comparison: Comparison, columns: Mapping[str, Scale]) -> str:
    lines = [["network", "cases", *(scale.heading for scale in columns.values())]]
    for method in comparison.methods:
        found = {metric: comparison.means[method.name][metric] for metric in columns}
        n = max(interval.n for interval in found.values())
        cells = [_cell(scale, found[metric], n) for metric, scale in columns.items()]
        lines.append([method.name, str(n or "–"), *cells])
    return markdown_table(lines)


def _restored(comparison: Comparison) -> list[str]:
    """A table of every degradation, if intensities were restored."""
    rows = []
    for method in comparison.methods:
        cells = restored_cells(summarise_restored(method.restored), structures=False)
        rows += [[method.name, *row] for row in cells]
    legend = "Intensities in [0, 1]. Baseline: the degraded image as it is, thick slices interpolated by cubic splines."
    return [markdown_table([("network", *RESTORED_HEADINGS), *rows]), legend] if rows else []


def _trainings(comparison: Comparison) -> str:
    """Mean Dice of each training run, and the difference over training runs."""
    dice = SEGMENTATION["dice"]
    seeds = sorted({seed for method in comparison.methods for seed in method.trainings})
    headings = [f"seed {seed}" for seed in seeds]
    lines = [["network", *headings, "standard deviation", f"{comparison.reference} minus it"]]
    for method in comparison.methods:
        found = {seed: training.mean_of("dice") for seed, training in method.trainings.items()}
        values = [value for value in found.values() if value is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        other = comparison.over_trainings.get("dice", {}).get(method.name)
        difference = f"{dice.text(other.mean, '+')} {interval_text(dice, other)}".strip() if other and other.n else "–"
        lines.append([method.name, *(dice.text(found.get(seed)) for seed in seeds), dice.text(spread), difference])
    legend = (
        "Mean Dice of the cases in percent, by training run. The difference is paired by seed, with the 95 % interval of "
        "Student's t over training runs: what to expect of other training runs on these cases. A p value above speaks of other "
        "cases."
    )
    return f"{markdown_table(lines)}\n\n{legend}"


def _cell(scale: Scale, interval: Interval, n: int) -> str:
    cell = f"{scale.text(interval.mean)} {interval_text(scale, interval)}".strip()
    return cell if interval.n in (0, n) else f"{cell}, {counted(interval.n, 'case')}"


def _cost(comparison: Comparison) -> str:
    lines = [["network", *(scale.heading for scale in COST.values()), "format", "mirrored"]]
    for method in comparison.methods:
        numbers = [scale.text(getattr(method.cost, name)) for name, scale in COST.items()]
        lines.append([method.name, *numbers, method.cost.precision or "–", method.cost.mirrored or "–"])
    legend = (
        "GFLOP: convolutions and matrix products of one forward pass over one patch, multiplication and addition as two. "
        "Seconds per step: all of the training's time, validation included. Memory: of the training process on a CPU, "
        "of its tensors on a GPU. Seconds per scan: the networks' part of predicting a validation case. "
        "Mirrored: training and prediction; short training runs are not (`mirror` in the recipe)."
    )
    return f"{markdown_table(lines)}\n\n{legend}"


def _differences(comparison: Comparison) -> str:
    metrics = [metric for metric, found in comparison.differences.items() if any(difference.n for difference in found.values())]
    lines = [["minus", *(SCALES[metric].heading for metric in metrics)]]
    for method in comparison.methods[1:]:
        found = [(SCALES[metric], comparison.differences[metric][method.name]) for metric in metrics]
        lines.append([method.name, *(_difference(*both) for both in found)])
    legend = (
        "Paired by case: mean difference with its 95 % bootstrap interval, and the p value of the Wilcoxon signed-rank test "
        "after Holm's correction for the number of networks. Dice and IoU say the same; they are not two findings."
    )
    return f"{markdown_table(lines)}\n\n{legend}"


def _difference(scale: Scale, difference: Difference) -> str:
    if difference.low is None:
        return "–"
    return f"{scale.text(difference.mean, '+')} {interval_text(scale, difference)}, {p_text(difference.p_value)}"


def _gates_closed(comparison: Comparison) -> str:
    dice = SEGMENTATION["dice"]
    lines = [["network", "Dice as trained, %", "Dice with closed gates, %", "difference"]]
    for name, (closed, difference) in comparison.gates_closed.items():
        open_and_closed = comparison.means[name]["dice"].mean, closed.mean_of("dice")
        lines.append([name, *map(dice.text, open_and_closed), _difference(dice, difference)])
    return markdown_table(lines)


def _methods_csv(comparison: Comparison) -> str:
    """One line per network; unknown values are empty."""
    header = ["network", *COST]
    for metric in SHARE | SCALES:
        header += [metric, f"{metric}_n", f"{metric}_low", f"{metric}_high"]
        header += [f"{metric}_{part}" for part in ("difference", "difference_low", "difference_high", "p_holm")]
    lines: list[list[Any]] = []
    for method in comparison.methods:
        line: list[Any] = [method.name, *(getattr(method.cost, name) for name in COST)]
        for metric in SHARE | SCALES:
            mean = comparison.means[method.name][metric]
            other = comparison.differences.get(metric, {}).get(method.name)
            line += [mean.mean, mean.n, mean.low, mean.high]
            line += [other.mean, other.low, other.high, other.p_value] if other else [None] * 4
        lines.append([*line, ""])
    lines += [[name, *[None] * (len(header) - 1), reason] for name, reason in comparison.failed.items()]
    return as_csv([[*header, "error"], *lines])


def _cases_csv(comparison: Comparison) -> str:
    """One line per network, training run, case and structure; undefined values, and the seed of a single run, are empty."""
    metrics = list(dict.fromkeys(m for c in comparison.methods for values in c.scores.values() for m in values))
    trainings: list[tuple[str, int | None, Method]] = []
    for c in comparison.methods:
        trainings += [(c.name, seed, one) for seed, one in c.trainings.items()] or [(c.name, None, c)]
    header = ["network", "seed", "case", "structure", *metrics]
    scores = ((name, seed, key, values) for name, seed, one in trainings for key, values in one.scores.items())
    return as_csv([header, *([name, seed, *key, *map(values.get, metrics)] for name, seed, key, values in scores)])


def as_record(comparison: Comparison, about: About) -> ComparisonRecord:
    """The content of ``comparison.json``."""
    return ComparisonRecord(
        about={"title": about.title, "conditions": list(about.conditions), **about.more},
        support=tuple(comparison.sentences()),
        margin=comparison.margin,
        networks=tuple(_network(method, comparison.means[method.name]) for method in comparison.methods),
        failed=comparison.failed,
        differences=comparison.differences,
        over_trainings=comparison.over_trainings,
        gates_closed={
            name: GatesRecord(closed.by_case("dice"), difference)
            for name, (closed, difference) in comparison.gates_closed.items()
        },
    )


def _network(method: Method, means: dict[str, Interval]) -> NetworkRecord:
    return NetworkRecord(
        name=method.name,
        cost=method.cost,
        means=means,
        failures=method.failures,
        trainings={
            str(seed): TrainingRecord(one.cost, {metric: one.mean_of(metric) for metric in SHARE | SCALES})
            for seed, one in method.trainings.items()
        },
        cases=tuple({"case": case, "structure": structure, **v} for (case, structure), v in method.scores.items()),
        restored=method.restored,
    )


def _plot(comparison: Comparison, path: Path) -> None:
    """Mean Dice with its interval against operations per patch and against seconds per step, as PNG."""
    from matplotlib.figure import Figure  # slow to import, rarely needed
    from matplotlib.ticker import NullFormatter

    markers = "osD^vP*Xhp<>d8"
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, cost in zip(panels, ("operations", "seconds_per_step"), strict=True):
        for i, method in enumerate(comparison.methods):
            dice, x = comparison.means[method.name]["dice"], getattr(method.cost, cost)
            if dice.mean is None or dice.low is None or dice.high is None or not x:
                continue
            y, ends = 100 * dice.mean, [[100 * (dice.mean - dice.low)], [100 * (dice.high - dice.mean)]]
            look = {"color": f"C{i % 10}", "marker": markers[i % len(markers)], "markersize": 8, "capsize": 3}
            panel.errorbar([COST[cost].factor * x], [y], ends, linestyle="none", label=method.name, **look)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        left, right = panel.get_xlim()
        panel.xaxis.set_minor_formatter("{x:g}" if right < 8 * left else NullFormatter())
        panel.set_xlabel(COST[cost].heading)
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("mean Dice of the validation cases, %")
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside right center")
    figure.savefig(path, dpi=130, format="png")
