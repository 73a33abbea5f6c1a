"""File layouts that ``autoseg convert`` understands. A layout is a function, see ``found.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autoseg.registry import Later, Registry

if TYPE_CHECKING:
    from autoseg.data.layouts.found import FoundDataset

__all__ = ["LAYOUTS"]

LAYOUTS: Registry[Callable[..., FoundDataset]] = Registry(
    "layout",
    {
        "acdc": Later("autoseg.data.layouts.acdc:find"),
        "bids": Later("autoseg.data.layouts.bids:find"),
        "brats": Later("autoseg.data.layouts.brats:find"),
        "folders": Later("autoseg.data.layouts.folders:find"),
        "join": Later("autoseg.data.layouts.join:find"),
        "lits": Later("autoseg.data.layouts.lits:find"),
        "msd": Later("autoseg.data.layouts.msd:find"),
    },
)
