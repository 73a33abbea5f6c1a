"""CPU time per sample of the ``nnunet`` augmentation, against the same list of transforms from batchgenerators.

    python benchmarks/augmentation.py [--samples 100] [--out benchmarks/results/augmentation.json]

Both sides have the same probabilities, ranges and linear interpolation, one thread, one channel, and labels 0, 1, 2.
batchgenerators gets the enlarged box that it needs for every sample, since it draws after reading; ours gets the box
that was drawn. Reading and copying the boxes is not counted. Samples alternate, so that both sides have the same machine load,
and freed memory is kept as in a training run.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from machine import about

from autoseg.room import keep_memory
from autoseg.training.augment import PRESETS, Setting, apply, draw, initial_patch_size, rotation_limit

PATCHES = ((40, 56, 40), (128, 128, 128))


def peer(patch):
    """The augmentation of nnU-Net's default trainer, as transforms of batchgenerators."""
    limit = math.radians(rotation_limit(patch))
    angles = (-limit, limit)
    return Compose(
        [
            SpatialTransform(
                patch,
                do_elastic_deform=False,
                angle_x=angles,
                angle_y=angles,
                angle_z=angles,
                scale=(0.7, 1.4),
                border_mode_data="constant",
                border_mode_seg="constant",
                border_cval_seg=-1,
                order_data=1,
                order_seg=1,
                random_crop=False,
                p_el_per_sample=0,
                p_scale_per_sample=0.2,
                p_rot_per_sample=0.2,
            ),
            GaussianNoiseTransform((0, 0.1), p_per_sample=0.1),
            GaussianBlurTransform((0.5, 1.0), True, True, p_per_channel=0.5, p_per_sample=0.2),
            BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
            ContrastAugmentationTransform((0.75, 1.25), p_per_sample=0.15),
            SimulateLowResolutionTransform(
                (0.5, 1), per_channel=True, p_per_channel=0.5, order_downsample=0, order_upsample=1, p_per_sample=0.25
            ),
            GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
            GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
            MirrorTransform((0, 1, 2)),
        ]
    )


def scan(size):
    """A noisy image (1, *size) float32 with two boxes, and their codes (*size) int16."""
    codes = np.zeros(size, dtype=np.int16)
    z, y, x = size
    codes[z // 4 : z // 2, y // 4 : y // 2, x // 4 : -x // 4] = 1
    codes[z // 2 : -z // 4, y // 3 : -y // 3, x // 3 : -x // 3] = 2
    noise = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    return (noise + codes)[None], codes


def centre_box(array, size):
    """The middle of an array whose last three axes are at least ``size``, as a copy."""
    lower = [(have - want) // 2 for have, want in zip(array.shape[-3:], size, strict=True)]
    return array[(..., *(slice(a, a + n) for a, n in zip(lower, size, strict=True)))].copy()


def measure(patch, samples):
    """CPU seconds and voxels read per sample for both sides."""
    rng = np.random.default_rng(1)
    np.random.seed(1)
    setting = Setting(patch)
    read = initial_patch_size(patch, rotation_degrees=rotation_limit(patch))
    image, codes = scan([2 * edge + 10 for edge in patch])
    transforms = peer(patch)
    times = {"ours": [], "batchgenerators": []}
    voxels = []
    for sample in range(-2, samples):  # two to warm up
        batch = {"data": centre_box(image, read)[None], "seg": centre_box(codes, read)[None, None]}
        start = time.thread_time()
        result = transforms(**batch)
        theirs = time.thread_time() - start
        assert result["data"].shape == (1, 1, *patch)

        start = time.thread_time()
        drawn = draw(rng, PRESETS["nnunet"], setting)
        ours = time.thread_time() - start
        box = [torch.from_numpy(centre_box(array, drawn.source_size)) for array in (image, codes)]
        start = time.thread_time()
        moved, _ = apply(*box, drawn)
        ours += time.thread_time() - start
        assert moved.shape == (1, *patch)
        if sample >= 0:
            times["ours"].append(ours)
            times["batchgenerators"].append(theirs)
            voxels.append(math.prod(drawn.source_size))
    row = {f"{side}_ms": round(1e3 * float(np.mean(values)), 2) for side, values in times.items()}
    row |= {f"{side}_median_ms": round(1e3 * float(np.median(values)), 2) for side, values in times.items()}
    row |= {f"{side}_slowest_ms": round(1e3 * max(values), 2) for side, values in times.items()}
    row["batchgenerators_over_ours"] = round(row["batchgenerators_ms"] / row["ours_ms"], 2)
    row["read_over_patch_ours"] = round(float(np.mean(voxels)) / math.prod(patch), 2)
    row["read_over_patch_batchgenerators"] = round(math.prod(read) / math.prod(patch), 2)
    return {"patch": patch, "samples": samples, **row}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "augmentation.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    on = about()
    rows = []
    for patch in PATCHES:
        rows.append(measure(patch, options.samples))
        print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": on | {"threads": 1}, "cpu_time_per_sample": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
