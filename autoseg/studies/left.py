"""The unfinished parts of a training run, a study or a prediction, as independent commands."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from autoseg.data.dataset import read_dataset
from autoseg.data.sources import find_inputs
from autoseg.errors import AutosegError
from autoseg.inference.bundle import load_bundle
from autoseg.inference.cohort import MADE_BY
from autoseg.ledger import DONE, Ledger
from autoseg.options import PredictOptions, Runtime, StudyOptions, TrainOptions
from autoseg.studies.fold import fold_folder
from autoseg.studies.method import is_trained
from autoseg.studies.settled import settled_run
from autoseg.studies.study import trainings_of
from autoseg.workspace import Workspace

__all__ = ["folds_left", "shards_left", "trainings_left"]


def folds_left(
    dataset: str | PathLike[str], fold: str, workspace: Workspace, options: TrainOptions, runtime: Runtime
) -> tuple[str, ...]:
    """The unfinished folds of a training run.

    Args:
        runtime: with the device of the jobs, which this machine need not have.

    Raises:
        AutosegError: as in ``pipeline.train``. Nothing is planned, prepared or written.
    """
    run = settled_run(dataset, fold, workspace, replace(options, dry_run=True), replace(runtime, elsewhere=True))
    return tuple(name for name, task in run.tasks.items() if not is_trained(fold_folder(run.folder, name), task))


def trainings_left(
    dataset: str | PathLike[str], workspace: Workspace, options: StudyOptions, runtime: Runtime
) -> tuple[tuple[str, ...], ...]:
    """The arguments of ``autoseg`` for each unfinished training run of a study: one for each fold of each configuration. As
    ``folds_left``."""
    runtime = replace(runtime, elsewhere=True)
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    step, items = trainings_of(spec, workspace, options, runtime)
    found = []
    for item in items:
        left = folds_left(spec.folder, ",".join(step.folds), workspace, step.options(item), runtime)
        found += [tuple(replace(step, folds=(fold,)).words(item, runtime.device)) for fold in left]
    return tuple(found)


def shards_left(
    source: str | PathLike[str], target: str | PathLike[str], model: Path, options: PredictOptions, count: int
) -> tuple[int, ...]:
    """The shards of a prediction that have cases without a result. Only the jobs check whether existing results come from the
    same scans and model, because that needs reading all of them."""
    if options.shard != (0, 1):
        raise AutosegError("--shard: the jobs share the cases themselves. Leave it out, and give autoseg slurm --shards N")
    bundle = load_bundle(model)
    inputs = find_inputs(
        Path(source), channels=bundle.channels, file_ending=bundle.file_ending, inverts=options.invert_monochrome1
    )
    ledger = Ledger(Path(target), MADE_BY)
    entries = [ledger.find(case.id) for case in inputs.cases]
    is_left = [entry is None or entry.state != DONE for entry in entries]
    return tuple(shard for shard in range(min(count, len(is_left))) if any(is_left[shard::count]))
