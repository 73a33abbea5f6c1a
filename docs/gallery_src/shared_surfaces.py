"""
What happens where two structures touch?
========================================

Surfaces that are made one by one leave thin gaps between neighbours, or overlap. ``shared_surfaces``, which
``--surfaces-shared`` asks for, makes all of them at once: the border is the same triangles for both.
"""

# %%
# Two halves of a ball and a core within it.

import matplotlib.pyplot as plt
import numpy as np

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.borders import measure_borders
from autoseg.reconstruct.shared import shared_surfaces
from autoseg.reconstruct.surface import surfaces_from_labels

shape = (32, 32, 32)
geometry = Geometry.from_spacing(shape, (1, 1, 1))
away = np.indices(shape) - 15.5
distance = np.linalg.norm(away, axis=0)
data = np.select([distance < 6, (distance < 13) & (away[2] < 0), distance < 13], [3, 1, 2]).astype(np.uint8)
labels = LabelVolume(data, geometry)
groups = {"left": (1,), "right": (2,), "core": (3,)}

# %%
# Both kinds of surfaces, cut at the same height. On the left, lines of two colours lie apart. On the right, they are one line.


def cut(mesh: SurfaceMesh, z_mm: float) -> np.ndarray:
    """(N, 2, 2) pieces of lines, (x, y), in which a surface meets the plane at a height."""
    corners = mesh.vertices_mm[mesh.faces]
    height = corners[:, :, 2] - z_mm
    lines = []
    for triangle, h in zip(corners, height, strict=True):
        ends = [(i, (i + 1) % 3) for i in range(3) if (h[i] > 0) != (h[(i + 1) % 3] > 0)]
        if ends:
            lines.append([triangle[i, :2] + (triangle[j, :2] - triangle[i, :2]) * h[i] / (h[i] - h[j]) for i, j in ends])
    return np.array(lines)


figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
kinds = {"one by one": surfaces_from_labels(labels, groups), "shared": shared_surfaces(labels, groups)}
for axis, (title, meshes) in zip(axes, kinds.items(), strict=True):
    for mesh, colour in zip(meshes, ("#0072b2", "#d55e00", "#009e73"), strict=True):
        for line in cut(mesh, 18.2):
            axis.plot(*line.T, color=colour, linewidth=1.6)
    axis.set(title=title, aspect="equal", xlim=(7, 24), ylim=(7, 24), xlabel="mm", ylabel="mm")

# %%
# What ``borders.csv`` would show.

for title, meshes in kinds.items():
    for border in measure_borders(labels, groups, meshes):
        print(
            f"{title:10}: {border.first} and {border.second}: gap {border.gap_mean_mm:.2f} mm in the mean, "
            f"{border.gap_max_mm:.2f} mm at most; {border.overlap_mm3:.1f} mm3 overlap"
        )

# %%
# Shared surfaces are closed, and enclose the volume of their voxels.

for name, mesh in zip(groups, kinds["shared"], strict=True):
    counted = int((data == groups[name][0]).sum())
    print(f"{name:5}: closed {mesh.is_watertight}, {mesh.volume_mm3:.1f} mm3 of {counted} mm3")
