"""The file formats of surfaces by name. The functions are in ``mesh`` and are imported when used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from autoseg.registry import Later, Registry

if TYPE_CHECKING:
    from autoseg.imaging.mesh import SurfaceMesh

__all__ = ["SURFACE_FORMATS", "SurfaceFormat"]


class SurfaceFormat(NamedTuple):
    """How one file format is written and read.

    Attributes:
        write: ``write(mesh, coordinates, colour)`` -> bytes: a SurfaceMesh, ``"lps"`` or ``"ras"`` for the file, (r, g, b).
        read: ``read(path, name)`` -> (vertices (V, 3), faces (F, 3)), in mm and in the coordinates of the file; ``name``
            selects one surface of several in a file.
    """

    write: Callable[[SurfaceMesh, str, tuple[int, int, int]], bytes]
    read: Callable[[Path, str], tuple[Any, Any]]


# file endings without the dot; if a structure has several files, the HTML report reads the first of these
SURFACE_FORMATS: Registry[SurfaceFormat] = Registry(
    "surface format",
    {
        "ply": Later("autoseg.imaging.mesh:PLY"),
        "stl": Later("autoseg.imaging.mesh:STL"),
        "obj": Later("autoseg.imaging.mesh:OBJ"),
        "vtp": Later("autoseg.imaging.mesh:VTP"),
        "glb": Later("autoseg.imaging.mesh:GLB"),
    },
)
