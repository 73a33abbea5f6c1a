"""Train several networks in the same way, compare their scores in pairs, and write the results as tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from autoseg.data.dataset import read_dataset
from autoseg.errors import AutosegError, every
from autoseg.evaluation.comparison import Comparison, average_trainings, compare_scores
from autoseg.evaluation.comparison_report import About, as_markdown, refuse_foreign_comparison, write_comparison
from autoseg.methods import try_methods
from autoseg.networks import NETWORKS
from autoseg.networks.devices import choose_device
from autoseg.options import CompareOptions, Runtime
from autoseg.places import check_folder
from autoseg.room import check_writable
from autoseg.studies.about import comparison_name, describe
from autoseg.studies.compared_run import ComparisonSetup
from autoseg.studies.comparison import train_all
from autoseg.studies.folds import ALL, count_folds, draw_splits, fold_names
from autoseg.studies.process import recipe_words
from autoseg.studies.ready import choose_recipe, length_of, ready_to_train
from autoseg.workspace import Workspace

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """The comparison, the folder of its files, and sentences about failures."""

    folder: Path
    comparison: Comparison
    about: About
    failures: tuple[str, ...]

    def summary(self) -> str:
        return f"{as_markdown(self.comparison, self.about)}\ntables and plot: {self.folder}"


def compare(
    dataset: str | PathLike[str],
    fold: str,
    workspace: Workspace,
    options: CompareOptions | None = None,
    runtime: Runtime | None = None,
) -> Compared:
    """Train, predict and score several networks in the same way, and compare them. The same call continues.

    Args:
        dataset: as in ``verify``. Planning and preparation are done first if necessary.
        fold: the networks are compared on its validation cases.
        workspace: for the runs, and for the tables if no other folder is given.
        options: which networks, and how they are trained.
        runtime: where and how to run; ``fresh`` trains all again.

    Returns:
        Compared. It names networks that failed; the others are compared.

    Raises:
        AutosegError: the call or the data set is wrong. Nothing was trained.
    """
    options, runtime = options or CompareOptions(), runtime or Runtime()
    names = tuple(dict.fromkeys(options.networks or NETWORKS))
    every(partial(NETWORKS.__getitem__, name) for name in names)  # an unknown name is an error that lists the known ones
    if options.target:
        check_folder(Path(options.target))  # before planning
    setup = _setup(dataset, str(fold), workspace, options, runtime)
    seeds = range(setup.seed, setup.seed + options.repeats)
    named = comparison_name(setup, seeds, names, options.match_flops)
    folder = Path(options.target) if options.target else workspace.comparison(named)
    check_writable(folder)
    if not runtime.fresh:
        refuse_foreign_comparison(folder)
    found = train_all(setup, names, seeds, match=options.match_flops)
    merge = average_trainings if options.repeats > 1 else lambda trainings: trainings[setup.seed]
    methods = [merge(found.trained[name]) for name in names if name in found.trained]
    closed = {name: merge(trainings) for name, trainings in found.closed.items()}
    comparison = compare_scores(methods, margin=options.margin, failed=found.failed, gates_closed=closed)
    about = describe(setup, seeds, list(found.runs.values()), options)
    write_comparison(comparison, about, folder)
    try_methods(folder)
    failures = [f"{name}: {reason}" for name, reason in found.failed.items()]
    failures += [f"{c.name}: {failure}" for c in methods for failure in c.failures]
    return Compared(folder, comparison, about, tuple(failures))


def _setup(
    dataset: str | PathLike[str], fold: str, workspace: Workspace, options: CompareOptions, runtime: Runtime
) -> ComparisonSetup:
    """What the networks have in common. Missing parts are made."""
    device, recipe = choose_device(runtime.device), choose_recipe(options.training)
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    count = count_folds(spec)
    if fold == ALL or len(fold_names(fold, count)) > 1:
        raise AutosegError(f"fold {fold!r}: a comparison needs the validation cases of one fold, 0 to {count - 1}")
    (fold,) = fold_names(fold, count)
    ready = ready_to_train(spec, workspace, options.training.plan, runtime)
    return ComparisonSetup(
        ready=ready,
        cases_digest=ready.digest,
        voxels=ready.voxels,
        fold=fold,
        split=draw_splits(spec, ready.scans, workspace)[int(fold)],
        recipe=recipe,
        recipe_words=recipe_words(options.training),
        workspace=workspace,
        length=length_of(options.training, ready.plan),
        seed=options.training.seed,
        device=device,
        runtime=runtime,
    )
