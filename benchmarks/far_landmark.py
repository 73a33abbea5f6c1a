"""A task that needs attention: the label of a structure depends only on the order of two distant landmarks.

    PYTHONPATH=. python benchmarks/far_landmark.py [--repeats 3] [--steps 300] [--arms "NAME;NAME"] [--out FILE]

A volume of 8 x 8 x 224 voxels has a ball in its middle, and a bright and a dark ball DISTANCE voxels to its left and right. The
middle ball is structure 1 if the bright one is on the left, otherwise structure 2. There is no other difference. A plain U-Net
of three stages has a reach of 20 voxels: no feature depends on two of the balls, or on one and an end of the volume. So its
features around each ball are the same in both orders, and so are their means and deviations, through which instance
normalisation makes every voxel depend on the whole patch. It cannot distinguish the orders, whatever its weights. (If the balls
were within twice the reach of each other, a feature between them could depend on their order, and normalisation would pass it
to all voxels.) The script first shows this with random weights (``blind``). Then it trains with the same batches and steps, and
scores new volumes:

- ``unet, 3 stages``: plain, its widths scaled to the operations of the next one
- ``full attention, 3 stages``: the U-Net with full self-attention after its last stage, which encodes positions
- ``slot attention, 3 stages``: the same with slots, which the planner chooses for a patch of this size; they get positions only
  from convolutions, which cannot provide them here
- both with their gates closed after training
- ``unet, 5 stages``: plain, and deep enough to reach the landmarks: shows whether the task can be learned at all

The same call continues with what FILE lacks. All of it takes less than ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import about

from autoseg.evaluation.statistics import paired_trainings
from autoseg.networks import build_network, close_gates
from autoseg.networks.attention import attention_blocks
from autoseg.networks.cost import match_operations, measure_cost
from autoseg.workspace import write_json
from planners.attention import add_attention
from planners.plan import AttentionStage, NetworkSpec
from planners.records import to_json

SHAPE = (8, 8, 224)
DISTANCE, RADIUS = 56, 3
BATCH, RATE, TESTED = 4, 2e-3, 48
PLAIN, FULL, SLOTS, DEEP = "unet, 3 stages", "full attention, 3 stages", "slot attention, 3 stages", "unet, 5 stages"


def radius_seen(spec: NetworkSpec) -> int:
    """How far along x, in voxels, a voxel's logits can depend on the image through convolutions alone."""
    step, seen = 1, 0
    strides, kernels = [stride[2] for stride in spec.strides], [kernel[2] for kernel in spec.kernels]
    for stage, stride in enumerate(strides):
        seen += (kernels[stage] // 2) * step  # the first convolution is on the finer grid
        step *= stride
        seen += (kernels[stage] // 2) * step * (spec.encoder_blocks[stage] - 1)
    for stage in reversed(range(len(strides) - 1)):
        finer = step // strides[stage + 1]
        seen += step - finer  # a voxel of the coarser grid covers several finer ones
        step = finer
        seen += (kernels[stage] // 2) * step * spec.decoder_blocks[stage]
    return seen


def volume(rng: np.random.Generator, *, left: bool, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """(image, classes) of ``SHAPE``; ``left``: the bright ball is on the left. All balls are shifted by the same few voxels."""
    middle = np.array([4, 4, SHAPE[2] // 2 + rng.integers(-3, 4)])
    grid = np.indices(SHAPE)
    image, classes = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.int64)
    for offset, value in ((0, 0.5), (-DISTANCE, 1.0 if left else -1.0), (DISTANCE, -1.0 if left else 1.0)):
        centre = (middle + [0, 0, offset]).reshape(3, 1, 1, 1)
        inside = ((grid - centre) ** 2).sum(axis=0) <= RADIUS**2
        image[inside] = value
        if not offset:
            classes[inside] = 1 if left else 2
    return image + noise * rng.normal(size=SHAPE).astype(np.float32), classes


def batch(seed: int, count: int, noise: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 1, z, y, x) images and (B, z, y, x) classes, half of them in each order."""
    rng = np.random.default_rng(seed)
    made = [volume(rng, left=number % 2 == 0, noise=noise) for number in range(count)]
    return torch.from_numpy(np.stack([image for image, _ in made]))[:, None], torch.from_numpy(np.stack([c for _, c in made]))


def specs(*, match: bool = True) -> dict[str, NetworkSpec]:
    """The networks by arm; ``match``: scale the plain one to the operations of full attention."""

    def unet(stages: int) -> NetworkSpec:
        features = (8, 16, 64, 64, 64)[:stages]
        flat = [(1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 1, 2), (1, 1, 2)]
        blocks, kernels = (2,) * stages, ((3, 3, 3),) * stages
        return NetworkSpec("unet", 1, 3, features, tuple(flat[:stages]), kernels, blocks, blocks[1:], deep_supervision=False)

    slots = add_attention(unet(3), SHAPE)
    full = replace(slots, attention=(AttentionStage(2, "full", 1),))
    plain = match_operations(unet(3), SHAPE, measure_cost(full, SHAPE).operations) if match else unet(3)
    return {PLAIN: plain, FULL: full, SLOTS: slots, DEEP: unet(5)}


def blind(spec: NetworkSpec) -> float:
    """Largest difference of the logits in the middle ball between both orders, with random weights and open gates."""
    torch.manual_seed(0)
    network = build_network(spec).eval().double()
    for block in attention_blocks(network):
        torch.nn.init.normal_(block.gate)
    both = [volume(np.random.default_rng(1), left=left, noise=0.0) for left in (True, False)]
    with torch.no_grad():
        one, other = (network(torch.from_numpy(image)[None, None].double())[0] for image, _ in both)
    return float((one - other).abs()[:, torch.from_numpy(both[0][1] > 0)].max())


def loss_of(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with about equal weight for the ball and the background, plus soft Dice loss of the two structures."""
    chances = logits.softmax(dim=1)
    truth = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    entropy = torch.nn.functional.cross_entropy(logits, classes, weight=torch.tensor([0.01, 1.0, 1.0]))
    both, total = ((chances * truth).sum((0, 2, 3, 4)), (chances + truth).sum((0, 2, 3, 4)))
    return entropy + 1 - (2 * both / (total + 1e-5))[1:].mean()


def trained(spec: NetworkSpec, seed: int, steps: int) -> torch.nn.Module:
    """A network trained for ``steps`` steps; batches depend only on the seed and the step."""
    torch.manual_seed(seed)
    network = build_network(spec)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        images, classes = batch(seed * 100_000 + step, BATCH)
        loss = loss_of(network(images), classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def scores(network: torch.nn.Module) -> dict[str, float]:
    """On new volumes: mean Dice of the structure present, and how often most of the ball gets the right label."""
    dice, right = [], []
    for number in range(TESTED // BATCH):
        images, classes = batch(10_000_000 + number, BATCH)
        for found, truth in zip(network(images).argmax(dim=1), classes, strict=True):
            structure = int(truth.max())
            mask, ball = found == structure, truth == structure
            dice.append(float(2 * (mask & ball).sum() / (mask.sum() + ball.sum())))
            right.append(float((found[ball] == structure).float().mean() > 0.5))
    return {"dice": float(np.mean(dice)), "right": float(np.mean(right))}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over repeats, and full attention minus each other arm, paired by repeat."""
    found: dict[str, Any] = {
        arm: {name: float(np.mean([run[name] for run in several])) for name in ("dice", "right", "seconds")}
        for arm, several in runs.items()
        if several
    }
    ours = [run["dice"] for run in runs.get(FULL, [])]
    for arm, several in runs.items():
        pairs = list(zip(ours, [run["dice"] for run in several], strict=False))
        if arm != FULL and pairs:
            found[arm]["full attention minus it"] = to_json(paired_trainings(*map(list, zip(*pairs, strict=True))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--arms", help="of those named above, with ; between them", default=";".join((PLAIN, FULL, SLOTS, DEEP))
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "far_landmark.json")
    options = parser.parse_args()
    networks = specs()
    asked = {"shape": SHAPE, "distance": DISTANCE, "steps": options.steps, "networks": to_json(networks)}
    asked = json.loads(json.dumps(asked))
    networks_told = {
        arm: {"radius_seen": radius_seen(spec), "blind": blind(spec), **to_json(measure_cost(spec, SHAPE))}
        for arm, spec in networks.items()
    }
    print(json.dumps(networks_told, indent=1), flush=True)
    known = json.loads(options.out.read_text()) if options.out.is_file() else {}
    runs: dict[str, list[dict[str, Any]]] = known["runs"] if known.get("asked") == asked else {}
    for repeat in range(options.repeats):
        for arm in options.arms.split(";"):
            if len(runs.setdefault(arm, [])) > repeat:
                continue
            begun = time.perf_counter()
            network = trained(networks[arm], repeat + 1, options.steps)
            runs[arm].append({**scores(network), "seconds": round(time.perf_counter() - begun, 1)})
            if networks[arm].attention:
                close_gates(network)
                runs.setdefault(f"{arm}, gates closed", []).append({**scores(network), "seconds": 0.0})
            print(arm, json.dumps(runs[arm][-1]), flush=True)
            told = {"networks": networks_told, "runs": runs, "summary": summary(runs)}
            write_json(options.out, {"machine": about(), "asked": asked, **told})
    print(json.dumps(summary(runs), indent=1))


if __name__ == "__main__":
    main()
