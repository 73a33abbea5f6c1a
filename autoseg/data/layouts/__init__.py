"""Arrangements of files that ``autoseg convert`` understands. A layout is a function, see ``found.py``."""

from autoseg.registry import Later, Registry

__all__ = ["LAYOUTS"]

LAYOUTS = Registry(
    "layout",
    {
        "acdc": Later("autoseg.data.layouts.acdc:find"),
        "bids": Later("autoseg.data.layouts.bids:find"),
        "brats": Later("autoseg.data.layouts.brats:find"),
        "folders": Later("autoseg.data.layouts.folders:find"),
        "lits": Later("autoseg.data.layouts.lits:find"),
        "msd": Later("autoseg.data.layouts.msd:find"),
    },
)
