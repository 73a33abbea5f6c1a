"""Small training runs that several ranks can share: ``python -m tests.helpers.ranks FILE JOB ...`` is one rank.

A job is NETWORK:MODE; the first rank writes {job: rows of history} to the file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoseg.networks import NETWORKS, build_network
from autoseg.networks.devices import prepare_for
from autoseg.records import Validation
from autoseg.training.batch import Batch, Lesson
from autoseg.training.loop import Job, Length, MakeBatch, fit
from autoseg.training.losses import LOSSES
from autoseg.training.ranks import ALONE, Ranks, join
from autoseg.training.recipe import Recipe
from planners.plan import AttentionStage
from tests.helpers.networks import small_unet

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SPEC = small_unet(
    4,
    8,
    8,
    name="",
    out_channels=3,
    input_mean=(0.5,),
    input_std=(0.25,),
    attention=(AttentionStage(1, "slot", 2, 4), AttentionStage(2, "full", 2)),
    restoration=True,
)
SAMPLES, STEPS = 3, 3  # of which the first of two ranks has two, and the second one
RECIPE = Recipe(
    batch_size=SAMPLES,
    patch_curriculum=(),
    bf16=False,
    validations=STEPS,
    patience=None,
    checkpoint_minutes=1000,
    restoration_weight=0.3,
    restoration_every=2,
    divide_batch=True,
)
WHOLE = replace(RECIPE, divide_batch=False, batch_size=2, restoration_weight=0.0)
# mode -> (recipe, whether Dice is of the whole batch, the loss): what must be the same on one device and on two
MODES = {
    "divided": (RECIPE, True, "dice_cross_entropy"),
    "per_sample": (RECIPE, False, "dice_cross_entropy"),
    "whole": (WHOLE, False, "dice_cross_entropy"),
    # killed before the last step, and resumed; one row of history, of all steps
    "resumed": (replace(WHOLE, validations=1, checkpoint_minutes=1e-9), False, "dice_cross_entropy"),
}


def sample(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(image (1, 8, 16, 16) float32, codes (8, 16, 16)) with blobs of two classes; every number gives another sample."""
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(1, 1, 8, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool3d(noise, 5, 1, 2)[0]
    codes = (smooth > 0.05).short() + (smooth > 0.12).short()
    image = codes * 0.3 + 0.2 * torch.rand(codes.shape, generator=generator)
    return image.float(), codes[0]


def batch(ranks: Ranks, recipe: Recipe, step: int, fraction: float, left: float = 0) -> Batch:
    """This rank's samples of a step: its part of one batch, or of two batches if the batch is not divided."""
    size = int(recipe.batch_size or 1) * (1 if recipe.divide_batch else 2)
    made = ranks.share([sample(100 * step + i) for i in range(size)])
    images, codes = (torch.stack(parts) for parts in zip(*made, strict=True))
    if not recipe.restoration_weight:
        return Batch(images, codes)
    codes[:, :2][images[:, 0, :2] > 0.35] = -1
    if step % recipe.restoration_every:
        return Batch(images, codes)
    clean = images.clamp(0, 1).masked_fill(images < 0.03, torch.nan)
    return Batch(images, codes, Lesson((images + 0.05).sqrt(), clean, torch.ones(len(images), 3)))


class Killed(Exception):
    """Stands for a kill by a signal."""


def until_killed(ranks: Ranks, recipe: Recipe, step: int, fraction: float, left: float = 0) -> Batch:
    """As ``batch``, but raises ``Killed`` in the last step."""
    if step == STEPS - 1:
        raise Killed
    return batch(ranks, recipe, step, fraction, left)


def train(job: str, folder: Path, ranks: Ranks = ALONE, *, loss: Any = None) -> list[Validation]:
    """The rows of history of a job, in a folder that all ranks share; one device takes the batches of all."""
    name, mode = job.split(":")
    recipe, batch_dice, kind = MODES[mode]
    # with seed 0, an input of a ReLU of residual_unet is near 0: even one process has two results, by the order of its samples
    torch.manual_seed(1)
    spec = replace(SPEC, name=name, restoration=recipe.restoration_weight > 0)
    rows: list[Validation] = []

    def fitted(samples: MakeBatch) -> None:
        fit(
            build_network(spec, lazy_logits=mode == "divided").train(),
            samples,
            ranks.share([batch(ALONE, replace(recipe, batch_size=1, divide_batch=True), 1000 + i, 1.0) for i in range(3)]),
            Job(
                recipe=recipe,
                length=Length(steps=STEPS),
                loss=partial(loss or LOSSES[kind], batch_dice=batch_dice),
                score=lambda results: {"seen": sum(ranks.summed([float(len(list(results)))]))},
                device=CPU,
                identity=job,
                checkpoint=folder / "checkpoint.safetensors",
                prepare=lambda network, precision: prepare_for(
                    CPU, network, spec, [(8, 16, 16)], precision=precision, training=True
                ),
                ranks=ranks,
            ),
            on_check=rows.append,
        )

    if mode == "resumed":
        with suppress(Killed):
            fitted(partial(until_killed, ranks, recipe))
        ranks.alone(lambda: None)  # wait until the checkpoint is written
    fitted(partial(batch, ranks, recipe))
    return rows


def train_together(jobs: Iterable[str], file: Path, *, count: int = 2) -> dict[str, list[dict[str, float]]]:
    """The rows of ``count`` ranks, each a process on this machine, by job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    words = [sys.executable, "-m", "tests.helpers.ranks", str(file), *jobs]
    started = [subprocess.Popen(words, cwd=ROOT, env={**shared, "RANK": str(rank)}) for rank in range(count)]
    try:
        assert [process.wait(timeout=600) for process in started] == [0] * count
    finally:
        for process in started:
            process.kill()
    found: dict[str, list[dict[str, float]]] = json.loads(file.read_text())
    return found


def main(file: str, *jobs: str) -> None:
    found = {}
    with join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "cpu") as (ranks, _):
        for job in jobs:
            found[job] = [
                {"train": row.train_loss, "validation": row.validation_loss, "seen": row.patch_dice["seen"]}
                for row in train(job, Path(file).with_name(job.replace(":", "_")), ranks)
            ]
        ranks.alone(lambda: Path(file).write_text(json.dumps(found)))


if __name__ == "__main__":
    assert set(NETWORKS)
    main(*sys.argv[1:])
