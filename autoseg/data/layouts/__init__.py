"""Arrangements of files that ``autoseg convert`` understands. A layout is a function, see ``found.py``."""

from autoseg.data.layouts import acdc, bids, brats, folders, lits, msd
from autoseg.registry import Registry

__all__ = ["LAYOUTS"]

LAYOUTS = Registry(
    "layout",
    {
        "acdc": acdc.find,
        "bids": bids.find,
        "brats": brats.find,
        "folders": folders.find,
        "lits": lits.find,
        "msd": msd.find,
    },
)
