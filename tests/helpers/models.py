"""A plan, a tiny model whose output is known in advance, and scans for it."""

import dataclasses

import numpy as np
import torch

from autoseg.data.labels import LabelSchema
from autoseg.imaging.files import write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import save_bundle
from autoseg.networks import build_network
from planners.plan import ChannelNormalization, Plan, Resampling
from tests.helpers.networks import small_unet

LABELS = LabelSchema(("ball",), ((7,),), False, (7,))


def make_plan(**changes):
    """1 mm grid, windows of 16 voxels, a two-stage U-Net of one channel and two classes."""
    plan = Plan(
        name="tiny",
        dataset="phantom",
        planner="fullres_3d",
        preset="m",
        axis_order=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(24.0, 24.0, 24.0),
        patch_size=(16, 16, 16),
        batch_size=2,
        batch_dice=False,
        normalization=(ChannelNormalization("MRI", "none", input_mean=0.5, input_std=0.25),),
        resampling=Resampling(),
        mirror_axes=(0, 1, 2),
        iterations=10,
        network=small_unet(4, 8, input_mean=(0.5,), input_std=(0.25,)),
        memory_elements=1,
    )
    return dataclasses.replace(plan, **changes)


class Threshold(torch.nn.Module):
    """Class 1 where the image exceeds 0.5: logits 0 for background and ``slope * (x - 0.5)`` for each further output."""

    def __init__(self, spec, ends=None):
        super().__init__()
        self.outputs = spec.out_channels
        self.slope = torch.nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        one = self.slope * (x[:, :1] - 0.5)
        return torch.cat([torch.zeros_like(one)] + [one] * (self.outputs - 1), dim=1)


def write_model(folder, plan, seeds=(0,), labels=LABELS, channels=("MRI",), learned_from=None):
    """A model of random weights, one fold per seed."""
    weights = {}
    for seed in seeds:
        torch.manual_seed(seed)
        weights[str(seed)] = build_network(plan.network).state_dict()
    about = {"info": {"note": "phantom"}, "learned_from": learned_from}
    return save_bundle(folder, plan=plan, labels=labels, channels=channels, weights=weights, **about)


def ball_volume(shape=(24, 30, 20), rows=None, radius=6.0):
    """0.25 everywhere and 1 in a ball around the middle voxel; read-only. Returns (Volume, mask)."""
    index = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) // 2
    mask = (index**2).sum(axis=0) <= radius**2
    data = np.where(mask, 1.0, 0.25).astype(np.float32)[None]
    data.setflags(write=False)
    geometry = Geometry.from_spacing(shape, (1.0, 1.0, 1.0)) if rows is None else Geometry.from_affine(shape, rows)
    return Volume(data, geometry), mask


def write_scans(folder, n, **options):
    """Scans ``a_0000.nii.gz``, ``b_0000.nii.gz``, ... of one ball each."""
    for i in range(n):
        volume, _ = ball_volume(radius=4.0 + i, **options)
        write_volume(volume, folder / f"{'abcdefgh'[i]}_0000.nii.gz")
    return folder
