"""A network of a comparison, trained by ``autoseg train`` in a process of its own: its memory is its own, and where it is
killed for want of memory the others go on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.engines import run_command
from autoseg.errors import TrainingError
from autoseg.options import TrainingOptions, TrainOptions
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup
from autoseg.workspace import Workspace, write_json

__all__ = ["failed", "last_words", "recipe_words", "relay", "run_apart", "train_apart", "train_words"]

logger = logging.getLogger(__name__)


def recipe_words(options: TrainingOptions) -> tuple[str, ...]:
    """The recipe and its changes as arguments of ``autoseg train``."""
    name = str(Path(options.recipe).absolute()) if options.recipe.endswith(".json") else options.recipe
    changes = [word for key, value in dict(options.settings).items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return ("--recipe", name, *changes)


def train_apart(setup: ComparisonSetup, run: ComparedRun) -> None:
    """Train a network of a comparison.

    Raises:
        TrainingError: with the last words of a training run that failed.
    """
    network, length = run.folder.parent / "network.json", setup.length
    write_json(network, run.training.plan.network)
    words: list[Any] = ["train", setup.ready.spec.folder, setup.fold, "--workspace", setup.workspace.folder]
    words += ["--plan", setup.ready.plan.name, "--network", network, "--name", run.run_name, "--seed", setup.seed]
    words += ["--time", f"{length.seconds}s"] if length.seconds else ["--iterations", length.steps]
    words += [*setup.recipe_words, "--set", f"batch_size={run.training.batch_size}", "--device", setup.device]
    words += ["--workers", setup.runtime.workers] if setup.runtime.workers else []
    words += ["--fresh"] if setup.runtime.fresh else []
    run_apart(words, run.name)


def train_words(
    dataset: Path, folds: Sequence[str], workspace: Workspace, options: TrainOptions, device: object, workers: int | None
) -> list[str]:
    """The command line of a training, from its options; paths in these are absolute."""
    asked = options.training
    words: list[Any] = ["train", dataset, ",".join(folds), "--workspace", workspace.folder]
    given = {
        "--name": options.name,
        "--plan": asked.plan,
        "--network": options.network,
        "--from": options.start,
        "--time": asked.seconds and f"{asked.seconds}s",
        "--iterations": asked.iterations,
        "--threads": options.threads,
        "--workers": workers,
        "--at-once": None if options.at_once == 1 else options.at_once or "auto",
    }
    words += [word for flag, value in given.items() if value is not None for word in (flag, value)]
    words += [*recipe_words(asked), "--seed", asked.seed, "--device", device]
    switches = {"--unseen": options.unseen, "--no-report": not options.report}
    return [*map(str, words), *(flag for flag, given in switches.items() if given)]


def run_apart(words: Sequence[Any], name: str) -> None:
    """Run ``autoseg train`` with these words; what it says is logged under a name.

    Raises:
        TrainingError: with the last words of a training run that failed.
    """
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        relay(name, line)

    status = run_command(words, on_line=on_line)
    if failed(lines, status):
        raise TrainingError(last_words(lines, status))


def relay(name: str, line: str) -> None:
    """Log what another process said, under a name ('' for none); its warnings stay such."""
    told = line.removeprefix("warning: ")
    logger.log(logging.INFO if told == line else logging.WARNING, "%s", f"{name}: {told}" if name else told)


def failed(lines: Sequence[str], status: int) -> bool:
    """Whether a training run, by what it said and its exit status, has not come to its end."""
    crashed = any(line.startswith("Traceback") for line in lines)  # also ends with status 1
    return status not in (0, 1) or crashed  # 1: some cases could not be predicted, and metrics.json names them


def last_words(lines: Sequence[str], status: int) -> str:
    """Why a process ended, from its status and what it said."""
    if status < 0:
        return f"its process was killed by signal {-status}; signal 9 usually means that memory ran out"
    if status == 130:
        return "its training run was stopped; the same command goes on from there"
    begins = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return "\n".join(lines[begins[-1] :] if begins else lines[-3:]) or f"its process ended with status {status}"
