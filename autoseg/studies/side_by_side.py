"""Trains folds of a run at the same time, each lane with ``autoseg train`` in its own process.

Planning and preparation are done once before. A lane that fails does not stop the others. Stopping this process stops all lanes
cleanly. They leave the same files as folds trained one after the other, so the same command continues.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autoseg.engines import default_workers, run_commands
from autoseg.errors import TrainingError
from autoseg.evaluation.report import REPORT_FILE, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult
from autoseg.options import Runtime, TrainOptions
from autoseg.outputs.predicted import failures_of
from autoseg.room import free_memory
from autoseg.studies.fold import FoldResult, Run, fold_folder
from autoseg.studies.lanes import Lane, bytes_of_a_fold, device_names, how_many_fit, lanes_of
from autoseg.studies.method import VALIDATION, folds_of, is_trained
from autoseg.studies.process import failed, last_words, relay, train_words
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT
from autoseg.workspace import Workspace, read_record, write_json
from planners import NetworkSpec

__all__ = ["choose_lanes", "train_side_by_side"]

logger = logging.getLogger(__name__)


def choose_lanes(run: Run, at_once: int, devices: str) -> tuple[Lane, ...] | None:
    """The lanes of the folds that are not trained yet; None if folds are trained one after the other.

    Args:
        at_once: number of folds at the same time; 0 for as many as fit.
        devices: as for ``device_names``.
    """
    names, cores, folds = device_names(devices), torch.get_num_threads(), tuple(run.tasks)
    names = names if len(names) > 1 else (str(run.device),)
    if not at_once:
        training, is_gpu = run.training, run.device.type == "cuda"
        free = torch.cuda.mem_get_info(run.device)[0] if is_gpu else free_memory()
        needed = bytes_of_a_fold(training.plan, training.batch_size, half=is_gpu)
        at_once = how_many_fit(len(folds), cores, free, needed) * (len(names) if is_gpu else 1)
    if len(lanes_of(folds, names, at_once, cores)) < 2:
        return None
    trained = () if run.runtime.fresh else folds_of(run.model)
    left = [fold for fold in folds if fold not in trained or not is_trained(fold_folder(run.folder, fold), run.tasks[fold])]
    return lanes_of(folds, names, at_once, cores, left)


def train_side_by_side(
    run: Run, lanes: Sequence[Lane], workspace: Workspace, options: TrainOptions, runtime: Runtime
) -> list[FoldResult]:
    """Train lanes at the same time; returns all folds of the run in order, including those trained before.

    Folds that begin again have been removed before, by ``begin_anew``.

    Raises:
        TrainingError: lanes failed; raised when all have ended, with the last lines of each. Other lanes are complete.
        KeyboardInterrupt: this process was stopped; all lanes have ended cleanly.
    """
    network = options.network
    if isinstance(network, NetworkSpec):
        network = run.folder / "network.json"
        write_json(network, options.network)
    elif network is not None and str(network).endswith(".json"):
        network = Path(network).absolute()
    place = Workspace(workspace.folder.absolute())
    start = str(Path(options.start).absolute()) if options.start and Path(options.start).exists() else options.start
    shared = replace(options, network=network, start=start, name=run.folder.name, at_once=1, report=False)
    workers = runtime.workers or max(1, default_workers() // max(1, len(lanes)))
    commands = [
        train_words(run.spec.folder, lane.folds, place, replace(shared, threads=lane.threads), lane.device, workers)
        for lane in lanes
    ]
    if lanes:
        logger.info("at the same time: %s", "; ".join(f"{lane.name} on {lane.device}" for lane in lanes))
    lines: list[list[str]] = [[] for _ in lanes]

    def on_line(number: int, line: str) -> None:
        lines[number].append(line)
        relay("" if line.removeprefix("warning: ").startswith("fold ") else lanes[number].name, line)

    statuses = run_commands(commands, on_line=on_line)
    broken = [
        f"{lane.name}: {last_words(said, status)}"
        for lane, said, status in zip(lanes, lines, statuses, strict=True)
        if failed(said, status)
    ]
    if broken:
        raise TrainingError("\n".join([*broken, "What is trained is kept: the same command goes on from there"]))
    return [read_result(run, fold) for fold in run.tasks]


def read_result(run: Run, fold: str) -> FoldResult:
    """The result of a trained fold, from its folder.

    Raises:
        TrainingError: the fold is not trained.
    """
    folder = fold_folder(run.folder, fold)
    results, state = folder / VALIDATION, read_state(folder / CHECKPOINT)
    if state is None or not (results / REPORT_FILE).is_file():
        raise TrainingError(f"{folder}: expected a trained fold, found none of its files. Give the same command again")
    report, restored = read_report(results / REPORT_FILE), results / RESTORED_FILE
    return FoldResult(
        fold=fold,
        folder=folder,
        model=run.model,
        report=report,
        failures=failures_of(report),
        steps=state.step,
        seconds=state.seconds,
        restoration=read_record(RestorationResult, restored, strict=False) if restored.is_file() else None,
    )
