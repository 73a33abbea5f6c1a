"""What a user sees of a training run: a line of history per validation, and the curves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autoseg.atomic import replacing
from autoseg.errors import AutosegError
from autoseg.records import Validation, read_validations
from autoseg.registry import Registry
from autoseg.room import told_when_full
from autoseg.workspace import write_text
from planners.records import to_json

__all__ = ["LISTENERS", "Listener", "append_history", "tell_listeners", "plot_history", "trim_history"]


logger = logging.getLogger(__name__)

Listener = Callable[[Path, dict[str, Any]], object]

# name -> function of the folder of a fold and each new record of its history.jsonl; installed packages provide them
LISTENERS: Registry[Listener] = Registry("listener", {})


def tell_listeners(folder: Path, row: Validation, silent: set[str]) -> None:
    """Pass a validation to every listener. A listener that fails is reported and not called again; training goes on.

    Args:
        folder: folder of the fold, such as ``runs/DATASET/RUN/fold_0``.
        silent: names of the listeners that have failed; changed in place.
    """
    for name in [name for name in LISTENERS if name not in silent]:
        try:
            LISTENERS[name](folder, to_json(row))
        except Exception as fault:  # noqa: BLE001 - code of other packages may raise anything
            silent.add(name)
            told = fault if isinstance(fault, AutosegError) else f"{type(fault).__name__}: {fault}"
            logger.warning("the listener %r failed and is not called again in this run: %s", name, told)


def append_history(path: Path | str, row: Validation) -> None:
    """Append one validation to ``history.jsonl``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path.parent), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(to_json(row), allow_nan=False) + "\n")


def trim_history(path: Path, step: int) -> None:
    """Remove the rows after ``step``, which a resumed run will write again."""
    rows = [row for row in read_validations(path) if row.step <= step]
    write_text(path, "".join(json.dumps(to_json(row), allow_nan=False) + "\n" for row in rows))


def plot_history(rows: Sequence[Validation], path: Path) -> None:
    """Losses, patch Dice and learning rate over the steps, as one PNG; nothing if there are no rows."""
    if not rows:
        return
    from matplotlib.figure import Figure  # slow to import, and seldom needed

    steps = [row.step for row in rows]
    figure = Figure(figsize=(7, 8), layout="constrained")
    losses, dice, rate = figure.subplots(3, 1, sharex=True)
    losses.plot(steps, [row.train_loss for row in rows], label="training loss")
    losses.plot(steps, [row.validation_loss for row in rows], label="validation loss (averaged weights)")
    losses.set_ylabel("loss")
    losses.legend()
    for name in rows[-1].patch_dice:
        values = [row.patch_dice.get(name) for row in rows]
        dice.plot(steps, [float("nan") if v is None else v for v in values], label=name)
    dice.set_ylabel("Dice on validation patches")
    dice.set_ylim(0, 1)
    if len(rows[-1].patch_dice) <= 12:
        dice.legend(fontsize="small")
    rate.plot(steps, [row.learning_rate for row in rows])
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    with replacing(path) as draft:
        figure.savefig(draft, dpi=110, format="png")
