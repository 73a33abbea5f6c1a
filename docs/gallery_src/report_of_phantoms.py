"""
What does a report look like?
=============================

``autoseg evaluate`` scores masks and writes one HTML file. It opens from disk, and asks nothing of a network. Here it is
made for masks with mistakes that are put in on purpose.
"""

# %%
# Four scans of synthetic abdomens. Each mask is the truth with one mistake (moved, too large, a kidney missed) or with none.

import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.phantoms import write_phantoms
from autoseg.pipeline import evaluate

MISTAKES = {
    "phantom_000": lambda data: data,
    "phantom_001": lambda data: np.roll(data, 2, axis=2),
    "phantom_002": lambda data: np.where(data, data, ndimage.grey_dilation(data, 3)),
    "phantom_003": lambda data: np.where(data == 3, 0, data),
}
place = Path(tempfile.mkdtemp())
raw = write_phantoms(place / "raw", training=len(MISTAKES), test=0, in_plane_mm=3.0)
for case, mistake in MISTAKES.items():
    truth = read_label_volume(raw / "labelsTr" / f"{case}.nii.gz")
    wrong = LabelVolume(mistake(truth.data).astype(np.uint8), truth.geometry)
    write_label_volume(wrong, place / "predicted" / f"{case}.nii.gz")
shutil.copy(raw / "dataset.json", place / "predicted")

# %%
# One of the masks, beside the truth.

case = "phantom_002"
scan = read_volume(raw / "imagesTr" / f"{case}_0000.nii.gz").data[0]
figure, axes = plt.subplots(1, 2, figsize=(6, 2.6), layout="constrained")
for axis, folder, title in zip(
    axes, (raw / "labelsTr", place / "predicted"), ("truth", "mask, one voxel too large"), strict=True
):
    data = read_label_volume(folder / f"{case}.nii.gz").data
    middle = len(data) // 2 + 4
    axis.imshow(scan[middle], origin="lower", cmap="gray")
    axis.imshow(
        np.ma.masked_equal(data[middle], 0), origin="lower", cmap="viridis", vmin=0, vmax=4, alpha=0.6, interpolation="none"
    )
    axis.set_title(title)
    axis.set_axis_off()

# %%
# The scores. The means are over four cases, so their intervals are wide.

report = evaluate(raw / "labelsTr", place / "predicted", place / "scores")
print(report.table())

# %%
# And the report. The worst case comes first.


class Shown:
    """A report within this page."""

    def _repr_html_(self) -> str:
        address = "../report-of-phantoms.html"
        return (
            f'<p><a href="{address}">Open the report on a page of its own</a></p>'
            f'<iframe src="{address}" title="Report of four synthetic abdomens" style="width:100%; height:36rem"></iframe>'
        )


site = Path("../generated/extra")  # what lies here is part of the site
site.mkdir(parents=True, exist_ok=True)
shutil.copy(place / "scores" / "report.html", site / "report-of-phantoms.html")
shutil.rmtree(place)
Shown()
