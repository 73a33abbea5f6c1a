"""Several networks under one plan, one recipe and one budget, on the same cases.

Every network is trained in a process of its own (``process``); what it leaves in its run folder is read back (``method``).
The name of a run holds a digest of all that it depends on: the same call continues what was interrupted and repeats nothing
that is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autoseg.errors import AutosegError
from autoseg.evaluation.comparison import Method
from autoseg.names import folders_of, scrubbed
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup, compared_run
from autoseg.studies.method import is_finished, read_method, with_closed_gates
from autoseg.studies.process import train_apart
from autoseg.studies.settled import tell
from autoseg.training.memory import told_when_short_of_memory

__all__ = ["TrainedRuns", "train_all"]

logger = logging.getLogger(__name__)

BySeed = dict[int, Method]


@dataclass(frozen=True)
class TrainedRuns:
    """What the training runs came to, by network: also with closed gates, and why some ``failed``."""

    runs: dict[str, ComparedRun] = field(default_factory=dict)
    trained: dict[str, BySeed] = field(default_factory=dict)
    closed: dict[str, BySeed] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def train_all(setup: ComparisonSetup, names: Sequence[str], seeds: Sequence[int], *, match: bool) -> TrainedRuns:
    """Train all networks with one seed, then with the next."""
    found = TrainedRuns()
    operations = compared_run(setup, names[0]).cost.operations if match else None
    for one in (replace(setup, seed=number) for number in seeds):
        if len(seeds) > 1:
            logger.info("training runs with seed %d", one.seed)
        for name in names:
            what = name if len(seeds) == 1 else f"{name}, seed {one.seed}"
            try:
                run = compared_run(one, name, operations if name != names[0] else None)
                found.runs.setdefault(name, run)
                found.trained.setdefault(name, {})[one.seed] = _trained(one, run)
                what += ", with closed gates"
                with told_when_short_of_memory():
                    without = with_closed_gates(one, run)
                if without:
                    found.closed.setdefault(name, {})[one.seed] = without
            except AutosegError as fault:
                found.failed[what] = scrubbed(str(fault), folders_of([setup.workspace.folder, setup.ready.spec.folder]))
                logger.warning("%s: failed: %s", what, fault)
    return found


def _trained(setup: ComparisonSetup, run: ComparedRun) -> Method:
    """Train a network, unless that is finished, and read what it came to."""
    tell(run.warnings)
    if setup.runtime.fresh or not is_finished(run):
        train_apart(setup, run)
    return read_method(run)
