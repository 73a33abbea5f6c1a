"""Colours of structures: far from each other, from grey, and always the same."""

import itertools

import numpy as np
from skimage.color import rgb2lab

from autoseg.imaging.colours import structure_colours


def lab(colours):
    """CIELAB of another library."""
    return rgb2lab(np.array(colours)[None] / 255)[0]


def test_colours_can_be_told_apart_and_from_grey():
    # 2.3 is what an eye just notices side by side (Mahy 1994)
    for count, apart in ((2, 70.0), (20, 34.0), (140, 12.0)):
        colours = lab(structure_colours(range(count)))
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > apart
        assert np.hypot(*colours[:, 1:].T).min() > apart / 2


def test_more_structures_keep_the_colours_of_the_first():
    assert structure_colours("abcdef")[:3] == structure_colours("xyz")
    assert structure_colours([]) == ()
    assert all(type(level) is int and 0 <= level <= 255 for level in itertools.chain(*structure_colours("ab")))
