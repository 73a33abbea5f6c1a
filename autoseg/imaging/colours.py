"""A colour for each structure, the same in every output: label tables, DICOM objects, surfaces, pictures.

The first eight can be distinguished with every common type of colour vision (after Okabe and Ito 2008, lighter, as scans are
dark). Each further colour is the candidate farthest, in CIELAB, from the greys of scans and from all earlier colours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache

import numpy as np

__all__ = ["Colour", "structure_colours"]

Colour = tuple[int, int, int]  # red, green, blue, from 0 to 255

FIRST = (  # sky, orange, green, yellow, pink, red, violet, lime
    (86, 180, 233),
    (230, 159, 0),
    (47, 191, 146),
    (240, 228, 66),
    (204, 121, 167),
    (255, 112, 67),
    (140, 158, 255),
    (178, 223, 138),
)
LIGHTNESS = (45.0, 85.0)  # L* of colours visible on both black and white
LEVELS = tuple(range(0, 256, 15))  # candidates per channel of sRGB


def structure_colours(names: Iterable[object]) -> tuple[Colour, ...]:
    """(red, green, blue), integers from 0 to 255, for each name; depends only on the number of names.

    A shorter list gets the first colours of a longer one.
    """
    return _colours(len(tuple(names)))


@cache
def _colours(count: int) -> tuple[Colour, ...]:
    if count <= len(FIRST):
        return FIRST[:count]
    candidates = np.array(list(itertools.product(LEVELS, repeat=3)))
    lab = _lab(candidates)
    usable = (lab[:, 0] >= LIGHTNESS[0]) & (lab[:, 0] <= LIGHTNESS[1])
    candidates, lab = candidates[usable], lab[usable]
    distance = np.hypot(lab[:, 1], lab[:, 2])  # from the grey of the same lightness
    chosen = list(FIRST)
    for colour in _lab(np.array(chosen)):
        distance = np.minimum(distance, np.linalg.norm(lab - colour, axis=1))
    while len(chosen) < count:
        best = int(distance.argmax())
        red, green, blue = candidates[best].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(chosen)


def _lab(colours: np.ndarray) -> np.ndarray:
    """(N, 3) sRGB of 0 to 255 to CIELAB under D65."""
    from skimage.color import rgb2lab  # takes a tenth of a second

    lab: np.ndarray = rgb2lab(colours / 255)
    return lab
