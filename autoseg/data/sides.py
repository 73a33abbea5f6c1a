"""Structures that differ by their side in all cases, whatever their names.

Two structures of similar size are a left-right pair if one is to the right of the other in every case, at about the same
height and depth. If their names do not show this (see ``planners.mirror``), mirroring turns one into the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.data.scan import CaseScan

__all__ = ["opposite_pairs"]

FEWEST = 4  # cases with both: in fewer, the side may be the same by chance
MOST_RATIO = 1.5  # of their voxels, in every case
MOST_SLOPE = 0.5  # of their distance along y and along z over that along x, in every case


def opposite_pairs(scans: Sequence[CaseScan], labels: LabelSchema) -> list[tuple[str, str]]:
    """Pairs of names, the one on the patient's left first; [] if scans have no label positions.

    Structures with several values (regions) are skipped.
    """
    single = {name: group[0] for name, group in labels.groups.items() if len(group) == 1}
    if (n := len(single)) < 2:
        return []
    right, left = np.nonzero(~np.eye(n, dtype=bool))  # the pairs that no scan so far speaks against
    together = np.zeros(len(right), int)
    for scan in scans:
        voxels, centres = dict(scan.label_counts), dict(scan.label_centres_mm)
        points = np.array([centres.get(value, (np.nan,) * 3) for value in single.values()])  # (n, 3) x, y, z
        sizes = np.array([voxels.get(value, 0) for value in single.values()], float)
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = points[right] - points[left]
            ratio = sizes[right] / sizes[left]
            alike = (ratio <= MOST_RATIO) & (ratio >= 1 / MOST_RATIO)
            level = (np.abs(apart[:, 1:]) <= MOST_SLOPE * np.abs(apart[:, :1])).all(axis=1)
            there, is_right = np.isfinite(apart[:, 0]), apart[:, 0] > 0
        stays = ~there | (alike & level & is_right)
        right, left, together = right[stays], left[stays], (together + there)[stays]
    names = list(single)
    return [(names[b], names[a]) for a, b in np.stack([right, left], axis=1)[together >= FEWEST].tolist()]
