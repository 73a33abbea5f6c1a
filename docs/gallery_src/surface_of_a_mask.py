"""
How does a surface follow the mask?
===================================

Marching cubes on the voxels of a mask gives steps and too large an area. ``surfaces_from_labels`` interpolates the shape,
smooths the triangles without shrinking them, and keeps the volume of the voxels.
"""

# %%
# A ball of 12 mm, whose volume and area are known, in slices of 3 mm.

import matplotlib.pyplot as plt
import numpy as np
from skimage.measure import marching_cubes

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.surface import surfaces_from_labels

radius_mm, spacing_mm, shape = 12.0, (3.0, 1.0, 1.0), (11, 31, 31)
geometry = Geometry.from_spacing(shape, spacing_mm)
points = geometry.to_world(np.indices(shape).reshape(3, -1).T)
inside = np.linalg.norm(points - points.mean(axis=0), axis=1) < radius_mm
ball = LabelVolume(inside.reshape(shape).astype(np.uint8), geometry)

vertices, faces, _, _ = marching_cubes(ball.data.astype(np.float32), 0.5, gradient_direction="ascent")
stepped = SurfaceMesh(geometry.to_world(vertices), faces[:, ::-1], "ball")
(smooth,) = surfaces_from_labels(ball, {"ball": (1,)})

# %%
# Both surfaces, lit from the side.

figure = plt.figure(figsize=(8, 3.6), layout="constrained")
for place, (title, mesh) in enumerate((("marching cubes on voxels", stepped), ("surfaces_from_labels", smooth)), 1):
    axis = figure.add_subplot(1, 2, place, projection="3d")
    axis.plot_trisurf(*mesh.vertices_mm.T, triangles=mesh.faces, color="#56b4e9", edgecolor="none")
    axis.set_title(title)
    axis.set_box_aspect(np.ptp(mesh.vertices_mm, axis=0), zoom=1.3)
    axis.set_axis_off()

# %%
# The numbers. Surfaces that are made from the logits of a network are closer still: logits show where between two voxels the
# border runs.

volume, area = 4 / 3 * np.pi * radius_mm**3, 4 * np.pi * radius_mm**2
counted = ball.data.sum() * np.prod(spacing_mm)
print(f"voxels:               volume {counted / volume - 1:+.1%}")
for title, mesh in (("marching cubes", stepped), ("surfaces_from_labels", smooth)):
    print(f"{title + ':':21} volume {abs(mesh.volume_mm3) / volume - 1:+.1%}, area {mesh.area_mm2 / area - 1:+.1%}")
