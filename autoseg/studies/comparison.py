"""Several networks under one plan, one recipe and one budget, on the same cases.

Every network is trained in its own process (``process``), and its results are read from its run folder (``method``). The name
of a run holds a digest of everything that it depends on. So the same call continues interrupted runs and does not repeat
finished ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from autoseg.errors import AutosegError
from autoseg.evaluation.comparison import Method
from autoseg.names import folders_of, scrubbed
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup, compared_run
from autoseg.studies.method import is_finished, read_method, with_closed_gates
from autoseg.studies.process import train_apart
from autoseg.studies.settled import tell
from autoseg.training.fold import refuse_task
from autoseg.training.memory import told_when_short_of_memory

__all__ = ["TrainedRuns", "train_all"]

logger = logging.getLogger(__name__)

BySeed = dict[int, Method]


@dataclass(frozen=True)
class TrainedRuns:
    """The results of the training runs by network, those with closed gates, and why some ``failed``."""

    runs: dict[str, ComparedRun] = field(default_factory=dict)
    trained: dict[str, BySeed] = field(default_factory=dict)
    closed: dict[str, BySeed] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def train_all(setup: ComparisonSetup, names: Sequence[str], seeds: Sequence[int], *, match: bool) -> TrainedRuns:
    """Train all networks with each seed in turn. Those that cannot be trained are told before the first training run."""
    found, settled = TrainedRuns(), dict[tuple[int, str], ComparedRun]()
    operations = compared_run(setup, names[0]).cost.operations if match else None
    several = [replace(setup, seed=number) for number in seeds]
    called = {(seed, name): name if len(seeds) == 1 else f"{name}, seed {seed}" for seed in seeds for name in names}
    for one in several:
        for name in names:
            with _told_of(called[one.seed, name], found, setup):
                run = compared_run(one, name, operations if name != names[0] else None)
                refuse_task(run.task, setup.device)
                settled[one.seed, name] = run
    for one in several:
        if len(seeds) > 1:
            logger.info("training runs with seed %d", one.seed)
        for name, run in ((name, settled[one.seed, name]) for name in names if (one.seed, name) in settled):
            with _told_of(called[one.seed, name], found, setup):
                found.runs.setdefault(name, run)
                found.trained.setdefault(name, {})[one.seed] = _trained(one, run)
            if one.seed not in found.trained.get(name, {}):
                continue
            with _told_of(f"{called[one.seed, name]}, with closed gates", found, setup), told_when_short_of_memory():
                if without := with_closed_gates(one, run):
                    found.closed.setdefault(name, {})[one.seed] = without
    return found


@contextmanager
def _told_of(what: str, found: TrainedRuns, setup: ComparisonSetup) -> Iterator[None]:
    """Turn a fault of a network into a warning and an entry of those that failed."""
    try:
        yield
    except AutosegError as fault:
        found.failed[what] = scrubbed(str(fault), folders_of([setup.workspace.folder, setup.ready.spec.folder]))
        logger.warning("%s: failed: %s", what, fault)


def _trained(setup: ComparisonSetup, run: ComparedRun) -> Method:
    """Train a network unless it is finished, and read its results."""
    tell(run.warnings)
    if setup.runtime.fresh or not is_finished(run):
        train_apart(setup, run)
    return read_method(run)
