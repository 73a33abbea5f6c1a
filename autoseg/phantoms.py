"""A data set of synthetic abdomens, for the demo and for tests: no patient data, any size, known ground truth.

Each scan is drawn from formulas in patient millimetres (body, liver, two kidneys, aorta), so every grid shows the same
anatomy. Scans differ in size, pose, slice distance, contrast, noise, and a smooth bias field, as real ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.workspace import write_json

__all__ = ["STRUCTURES", "draw_phantom", "write_phantoms"]

STRUCTURES = ("liver", "kidney_right", "kidney_left", "aorta")

# centre and half axes in mm, (x, y, z) RAS+ around the middle of the body; mean intensity
ORGANS = {
    "body": ((0, 0, 0), (62, 46, 90), 0.30),
    "liver": ((27, 8, 10), (26, 24, 22), 0.62),
    "kidney_right": ((28, -20, -20), (10, 9, 15), 0.85),
    "kidney_left": ((-28, -20, -12), (10, 9, 15), 0.85),
    "aorta": ((-4, -14, 0), (6, 6, 200), 0.95),
}
FIELD_MM = (64, 100, 132)  # (z, y, x) field of view


def draw_phantom(rng: np.random.Generator, spacing_mm: Sequence[float]) -> tuple[Volume, LabelVolume]:
    """One scan and its labels.

    Args:
        rng: ``numpy.random.Generator``.
        spacing_mm: (z, y, x).

    Returns:
        (Volume with one channel, LabelVolume with 0 background and 1 to 4 as ``STRUCTURES``) on one canonical grid.
    """
    shape = tuple(int(round(f / s)) for f, s in zip(FIELD_MM, spacing_mm, strict=True))
    origin = Geometry.from_spacing(shape, spacing_mm)
    affine = origin.affine
    affine[:3, 3] -= origin.to_world([[(n - 1) / 2 for n in shape]])[0]
    geometry = Geometry.from_affine(shape, affine)
    points = geometry.to_world(np.indices(shape).reshape(3, -1).T) @ _turn(rng.normal(0, 0.07, 3)).T
    points += rng.normal(0, 3, 3)

    labels = np.zeros(len(points), np.uint8)
    image = np.zeros(len(points))
    for name, (middle, half, intensity) in ORGANS.items():
        centre = np.array(middle) + (0 if name == "body" else rng.normal(0, 2, 3))
        inside = (((points - centre) / (np.array(half) * rng.uniform(0.88, 1.12, 3))) ** 2).sum(axis=1) < 1
        image[inside] = intensity * rng.normal(1, 0.05)
        if name in STRUCTURES:
            labels[inside] = STRUCTURES.index(name) + 1
    bias = 1 + (points / 100) @ rng.normal(0, 0.15, 3)
    image = 1000 * rng.uniform(0.7, 1.4) * (image * bias + rng.normal(0, 0.04, image.shape))
    volume = Volume(image.reshape(1, *shape).astype(np.float32), geometry)
    return volume, LabelVolume(labels.reshape(shape), geometry)


def write_phantoms(
    folder: str | PathLike[str], *, training: int = 24, test: int = 6, in_plane_mm: float = 2.5, seed: int = 0
) -> Path:
    """Write a data-set folder in nnU-Net's layout; in every other scan, the slice spacing is twice the pixel size.

    Args:
        folder: gets ``imagesTr``, ``labelsTr``, ``imagesTs``, ``labelsTs`` and ``dataset.json``.
        training, test: number of scans.
        in_plane_mm: pixel size; the field of view is fixed, so it sets the number of voxels.
        seed: the same seed gives the same data.

    Returns:
        Path of the folder.
    """
    folder = Path(folder)
    for number in range(training + test):
        rng = np.random.default_rng([seed, number])
        spacing = (in_plane_mm * (1 + number % 2), in_plane_mm, in_plane_mm)
        volume, labels = draw_phantom(rng, spacing)
        part, case = ("Tr" if number < training else "Ts"), f"phantom_{number:03d}"
        write_volume(volume, folder / f"images{part}" / f"{case}_0000.nii.gz")
        write_label_volume(labels, folder / f"labels{part}" / f"{case}.nii.gz")
    write_json(
        folder / "dataset.json",
        {
            "name": "Phantoms",
            "channel_names": {"0": "MR"},
            "labels": {"background": 0} | {name: i for i, name in enumerate(STRUCTURES, 1)},
            "numTraining": training,
            "file_ending": ".nii.gz",
        },
    )
    return folder


def _turn(angles: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rotation matrix by the angles (radians) about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
