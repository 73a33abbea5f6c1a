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
from autoseg.options import TrainingOptions
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup
from autoseg.workspace import write_json

__all__ = ["recipe_words", "run_apart", "train_apart"]

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


def run_apart(words: Sequence[Any], name: str) -> None:
    """Run ``autoseg train`` with these words; what it says is logged under a name.

    Raises:
        TrainingError: with the last words of a training run that failed.
    """
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        logger.info("%s: %s", name, line)

    status = run_command(words, on_line=on_line)
    crashed = any(line.startswith("Traceback") for line in lines)  # also ends with status 1
    if status not in (0, 1) or crashed:  # 1: some cases could not be predicted, and metrics.json names them
        raise TrainingError(_last_words(lines, status))


def _last_words(lines: Sequence[str], status: int) -> str:
    """Why a process ended, from its status and what it said."""
    if status < 0:
        return f"its process was killed by signal {-status}; that is how a want of memory (signal 9) shows itself"
    if status == 130:
        return "its training run was stopped; the same command goes on from there"
    begins = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return "\n".join(lines[begins[-1] :] if begins else lines[-3:]) or f"its process ended with status {status}"
