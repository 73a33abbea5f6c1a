"""
How does a window map save work?
================================

A network sees a scan through windows that overlap by half. With adaptive windows, they first lie side by side. Overlapping
ones follow only where the first pass is in doubt: at borders, at seams, and where two windows disagree.
"""

# %%
# No network is trained here. Smooth scores computed from the truth replace it: how far each voxel lies within its structure.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage

from autoseg.inference.sliding_window import window_starts
from autoseg.inference.windows import Doubt, Votes, WindowGrid, decide
from autoseg.phantoms import STRUCTURES, draw_phantom

scan, labels = draw_phantom(np.random.default_rng(1), (2.0, 2.0, 2.0))
values = range(len(STRUCTURES) + 1)
depth = [ndimage.gaussian_filter(4.0 * (labels.data == value), 1.0) for value in values]
logits = torch.from_numpy(np.stack(depth).astype(np.float32))

# %%
# Windows of 16 voxels that overlap by half, and those of the first pass.

patch = (16, 16, 16)
starts = tuple(window_starts(n, edge, 0.5) for n, edge in zip(labels.data.shape, patch, strict=True))
grid = WindowGrid(labels.data.shape, patch, starts)
first = grid.first_pass()


def places(windows: np.ndarray) -> list[tuple[slice, ...]]:
    """Where the windows that are True lie."""
    firsts = [[axis[i] for axis, i in zip(starts, window, strict=True)] for window in np.argwhere(windows)]
    return [tuple(slice(a, a + edge) for a, edge in zip(corner, patch, strict=True)) for corner in firsts]


votes = Votes.empty(grid.shape)
for place in places(first):
    votes.add_(place, *decide(logits[(slice(None), *place)], has_regions=False))

# %%
# Where the first pass is in doubt, and which windows that adds.

doubt = Doubt(margin=0.5, jump=1.0, halo=0.0)
doubtful = votes.doubt(grid, doubt)
chosen = first | grid.to_refine(doubtful, doubt.halo)
print(f"all windows {first.size}, first pass {first.sum()}, adaptive {chosen.sum()}")

# %%
# How many windows see each voxel of one slice.


def times_seen(windows: np.ndarray) -> np.ndarray:
    """(Z, Y, X) how many of the windows hold each voxel."""
    seen = np.zeros(grid.shape, int)
    for place in places(windows):
        seen[place] += 1
    return seen


middle = grid.shape[0] // 2
pictures = {
    "the scan": scan.data[0, middle],
    "where there is doubt": doubtful[middle].numpy(),
    "all windows": times_seen(np.ones_like(first))[middle],
    "adaptive windows": times_seen(chosen)[middle],
}
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    image = axis.imshow(picture, origin="lower", cmap="gray" if title in ("the scan", "where there is doubt") else "viridis")
    if "windows" in title:
        image.set_clim(0, times_seen(np.ones_like(first))[middle].max())
    axis.set_title(title)
    axis.set_axis_off()
figure.colorbar(image, ax=axes, label="windows that see a voxel", shrink=0.7)

# %%
# How much a real network gains depends on the scan and on the network. ``autoseg model calibrate`` measures it for yours, and
# what it costs in Dice.
