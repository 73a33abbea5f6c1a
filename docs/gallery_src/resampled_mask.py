"""
What does a resampled mask look like?
=====================================

Slices that lie far apart leave steps in a mask. A finer grid alone does not remove them: the nearest voxel repeats
each slice. ``isotropic_labels`` interpolates the shape of every structure instead.
"""

# %%
# A scan of a synthetic abdomen, with slices of 6 mm and pixels of 1.5 mm. It is cut from front to back through a kidney.

import matplotlib.pyplot as plt
import numpy as np

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_image
from autoseg.imaging.volume import LabelVolume
from autoseg.phantoms import STRUCTURES, draw_phantom
from autoseg.reconstruct.surface import isotropic_labels

scan, labels = draw_phantom(np.random.default_rng(3), (6.0, 1.5, 1.5))
print(labels.geometry)

# %%
# The same box with cubic voxels: once from the nearest voxel, once interpolated by shape.

cubic = labels.geometry.isotropic()
nearest = resample_image(labels.data[None].astype(np.float32), labels.geometry, cubic, (0, 0, 0))[0].astype(np.uint8)
shaped = isotropic_labels(labels)
print(shaped.geometry)


def sagittal(volume: np.ndarray, geometry: Geometry, x_mm: float) -> np.ndarray:
    """The slice (Z, Y) at ``x_mm`` from the middle."""
    return volume[:, :, int(round(geometry.to_index([[x_mm, 0, 0]])[0][2]))]


figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
shown = (
    ("as drawn, 6 mm slices", labels.data, labels.geometry),
    ("nearest voxel", nearest, cubic),
    ("isotropic_labels", shaped.data, cubic),
)
for axis, (title, data, geometry) in zip(axes, shown, strict=True):
    ratio = geometry.spacing_mm[0] / geometry.spacing_mm[1]
    axis.imshow(sagittal(data, geometry, 28), origin="lower", cmap="viridis", vmax=4, aspect=ratio, interpolation="none")
    axis.set_title(title)
    axis.set_axis_off()

# %%
# Volumes become a little smaller, since the ends of the structures are now round. This matters most for small structures.


def volumes_ml(volume: LabelVolume) -> list[float]:
    """Of each structure, by counting voxels."""
    voxel = np.prod(volume.geometry.spacing_mm) / 1000
    return [float((volume.data == value).sum() * voxel) for value in range(1, len(STRUCTURES) + 1)]


for name, before, after in zip(STRUCTURES, volumes_ml(labels), volumes_ml(shaped), strict=True):
    print(f"{name:14} {before:6.1f} ml in slices of 6 mm, {after:6.1f} ml on cubic voxels")
