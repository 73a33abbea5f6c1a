"""One stage of ``side_by_side.py`` in autoseg: prints the seconds of the work as JSON, after an uncounted round.

python benchmarks/side_autoseg.py MODEL resample image|labels
python benchmarks/side_autoseg.py MODEL augment
python benchmarks/side_autoseg.py MODEL step [DEVICE]
python benchmarks/side_autoseg.py MODEL export CLASSES EDGE NATIVE_EDGE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from side_data import AFTER, BATCH, BEFORE, CURRENT_SPACING, PATCH, SAMPLES, STEPS, boxes, class_maps, noisy_scan, scores

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import axis_matrix, resample_codes, resample_image
from autoseg.inference.bundle import load_bundle
from autoseg.networks import build_network
from autoseg.networks.devices import prepare_for
from autoseg.reconstruct.native import logits_to_codes
from autoseg.room import keep_memory
from autoseg.training.augment import PRESETS, Setting, apply, draw
from autoseg.training.losses import LOSSES, deep_supervision_loss


def resample(what: str) -> Callable[[], object]:
    image, codes = noisy_scan()
    geometry = Geometry.from_spacing(BEFORE, CURRENT_SPACING)
    onto = geometry.resized(AFTER)

    def run() -> object:
        axis_matrix.cache_clear()
        if what == "image":
            return resample_image(image, geometry, onto, (3, 3, 3))
        return resample_codes(codes, geometry, onto, (1, 1, 1))

    return run


def augment() -> Callable[[], object]:
    torch.set_num_threads(1)
    keep_memory()
    rng, setting = np.random.default_rng(1), Setting((128, 128, 128))

    def run() -> object:
        for _ in range(SAMPLES):
            drawn = draw(rng, PRESETS["nnunet"], setting)
            apply(*map(torch.from_numpy, boxes(drawn.source_size)), drawn)
        return None

    return run


def step(model: Path, device: torch.device) -> Callable[[], object]:
    plan = load_bundle(model).plan
    network = build_network(plan.network).to(device).train()
    done = prepare_for(
        device, network, plan.network, (PATCH,), precision="fp32" if device.type == "cpu" else "auto", training=True
    )
    loss = partial(LOSSES["dice_cross_entropy"], batch_dice=plan.batch_dice)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    images, codes = torch.rand(BATCH, 1, *PATCH).to(device), torch.randint(0, 3, (BATCH, *PATCH)).to(device)

    def run() -> object:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=done.precision == "bf16"):
                logits = network(images, every_scale=True)
            total = deep_supervision_loss(loss, logits, codes)
            total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
        return total.item()  # waits for the device

    return run


def export(classes: int, edge: int, native_edge: int) -> Callable[[], object]:
    logits = scores(class_maps(classes, edge), classes)
    geometry = Geometry.from_spacing((edge,) * 3, (1.5, 1.5, 1.5))
    return lambda: logits_to_codes(logits, geometry, geometry.resized((native_edge,) * 3))


def main() -> None:
    model, what, *rest = sys.argv[1:]
    if what == "step":
        run = step(Path(model), torch.device(*(rest or ["cpu"])))
    elif what == "augment":
        run = augment()
    elif what == "resample":
        run = resample(rest[0])
    else:
        run = export(*map(int, rest))
    run()
    begun = time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
