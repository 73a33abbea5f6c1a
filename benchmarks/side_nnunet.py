"""One stage of ``side_by_side.py`` in nnU-Net 2.8.1: prints the seconds of the work as JSON, after an uncounted round.

Runs in nnU-Net's environment, with the arguments of ``side_autoseg.py``; RESULTS is the folder of the model's plans.
``--torch`` resamples with ``resample_torch_fornnunet``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from side_data import (
    AFTER,
    BATCH,
    CURRENT_SPACING,
    NEW_SPACING,
    PATCH,
    SAMPLES,
    STEPS,
    boxes,
    class_maps,
    noisy_scan,
    scores,
)


def resample(what: str, with_torch: bool) -> Callable[[], object]:
    image, labels = noisy_scan()
    data = image if what == "image" else labels[None]
    spacings = (CURRENT_SPACING, NEW_SPACING)
    if with_torch:
        threads = os.cpu_count() or 1
        return lambda: resample_torch_fornnunet(data, AFTER, *spacings, is_seg=what == "labels", num_threads=threads)
    order = 3 if what == "image" else 1
    return lambda: resample_data_or_seg_to_shape(data, AFTER, *spacings, is_seg=what == "labels", order=order)


def augment() -> Callable[[], object]:
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    patch, limit = (128, 128, 128), (-math.pi / 6, math.pi / 6)
    size = tuple(int(edge) for edge in get_patch_size(patch, limit, limit, limit, (0.85, 1.25)))
    transforms = nnUNetTrainer.get_training_transforms(
        patch, limit, None, (0, 1, 2), False, use_mask_for_norm=[False], foreground_labels=[1, 2]
    )

    def run() -> object:
        for _ in range(SAMPLES):
            image, labels = map(torch.from_numpy, boxes(size))
            transforms(image=image, segmentation=labels[None])
        return None

    return run


def step(results: Path, device: torch.device) -> Callable[[], object]:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((results / "plans.json").read_text()))
    settings = plans.get_configuration(results.name.split("__")[2])
    network = get_network_from_plans(
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
        1,
        3,
        deep_supervision=True,
    )
    network = network.to(device).train()
    dice = {"batch_dice": settings.batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    images = torch.rand(BATCH, 1, *PATCH).to(device)
    with torch.no_grad():
        shapes = [logits.shape[2:] for logits in network(images)]
    weights = np.array([1 / 2**level for level in range(len(shapes))])
    weights[-1] = 0  # nnU-Net ignores the coarsest
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    labels = [torch.randint(0, 3, (BATCH, 1, *shape)).float().to(device) for shape in shapes]
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")  # as in its trainer
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)

    def run() -> object:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                total = loss(network(images), labels)
            scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            scaler.step(optimizer)
            scaler.update()
        return total.item()  # waits for the device

    return run


def export(classes: int, edge: int, native_edge: int, with_torch: bool) -> Callable[[], object]:
    logits, shape = scores(class_maps(classes, edge), classes), (native_edge,) * 3
    spacings = ((1.5,) * 3, (1.5 * edge / native_edge,) * 3)
    threads = os.cpu_count() or 1

    def run() -> object:
        if with_torch:
            found = resample_torch_fornnunet(logits, shape, *spacings, is_seg=False, num_threads=threads)
        else:
            found = resample_data_or_seg_to_shape(logits, shape, *spacings, is_seg=False, order=1, force_separate_z=None)
        return torch.as_tensor(found).argmax(0)

    return run


def main() -> None:
    with_torch = "--torch" in sys.argv
    results, what, *rest = (word for word in sys.argv[1:] if word != "--torch")
    if what == "step":
        run = step(Path(results), torch.device(*(rest or ["cpu"])))
    elif what == "augment":
        run = augment()
    elif what == "resample":
        run = resample(rest[0], with_torch)
    else:
        run = export(*map(int, rest), with_torch)
    run()
    begun = time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
