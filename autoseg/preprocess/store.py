"""Prepared cases on disk: compressed in blocks, so that a patch is read without the rest.

One folder per case: ``image.b2nd`` and ``codes.b2nd`` (blosc2), ``sites.npy``, and ``case.json``, which is written last and
holds the digest of everything the case was made from. A folder without it, or with another digest, is made anew; that is
all there is to resuming, skipping and noticing a changed plan.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np

from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.workspace import read_json, write_json
from planners.records import digest, from_json

__all__ = ["StoredCase", "is_stored", "open_case", "preparation_digest", "store_case"]

BLOCK, CHUNK = 32, 128  # voxels; 32^3 float32 is 128 KiB, which fits a core's cache


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A prepared case whose voxels stay on disk until they are asked for.

    ``image`` (C, z, y, x) and ``codes`` (z, y, x) are blosc2 arrays: slicing one reads the blocks it touches. ``sites`` maps a
    code to its (N, 3) voxels.
    """

    case: str
    image: blosc2.NDArray
    codes: blosc2.NDArray
    sites: dict[int, np.ndarray]
    geometry: Geometry

    @property
    def shape(self):
        return self.codes.shape


def preparation_digest(file_digests, labels, plan):
    """Sixteen hexadecimal digits of all that a prepared case depends on: its files, the label values, parts of the plan."""
    parts = (plan.axis_order, plan.spacing_mm, plan.normalization, plan.resampling, plan.patch_size[0] == 1)
    return digest([file_digests, labels, parts])


def is_stored(folder, made_from):
    """Whether ``folder`` holds a whole case with that digest."""
    path = Path(folder) / "case.json"
    if not path.is_file():
        return False
    try:
        return read_json(path).get("made_from") == made_from
    except AutosegError:
        return False


def store_case(folder, prepared, made_from):
    """Write a ``PreparedCase``; what was in ``folder`` is replaced, ``case.json`` comes last."""
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_array(folder / "image.b2nd", prepared.image)
    _write_array(folder / "codes.b2nd", prepared.codes)
    codes = sorted(prepared.sites)
    voxels = [prepared.sites[code] for code in codes]
    np.save(folder / "sites.npy", np.concatenate(voxels) if voxels else np.zeros((0, 3), np.int32))
    write_json(
        folder / "case.json",
        {
            "case": prepared.case,
            "geometry": prepared.geometry,
            "codes": codes,
            "sites": [len(v) for v in voxels],
            "made_from": made_from,
        },
    )


def open_case(folder):
    """Open a stored case.

    Raises:
        AutosegError: the folder is incomplete or damaged; says to prepare again.
    """
    folder = Path(folder)
    about = read_json(folder / "case.json")
    try:
        image = blosc2.open(str(folder / "image.b2nd"), mode="r", mmap_mode=_mapping())
        codes = blosc2.open(str(folder / "codes.b2nd"), mode="r", mmap_mode=_mapping())
        sites = np.load(folder / "sites.npy", allow_pickle=False)
    except (OSError, RuntimeError, ValueError) as fault:
        raise AutosegError(
            f"{folder}: the prepared case is damaged ({fault}). Delete the folder and run autoseg plan_and_preprocess"
        ) from fault
    ends = np.cumsum(about["sites"])
    pieces = np.split(sites, ends[:-1]) if len(ends) else []
    return StoredCase(
        case=about["case"],
        image=image,
        codes=codes,
        sites=dict(zip(about["codes"], pieces, strict=True)),
        geometry=from_json(Geometry, about["geometry"]),
    )


def _write_array(path, array):
    lead = (1,) * (array.ndim - 3)
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(path),
        mode="w",
        chunks=lead + tuple(min(n, CHUNK) for n in array.shape[-3:]),
        blocks=lead + tuple(min(n, BLOCK) for n in array.shape[-3:]),
        cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1),
    )


def _mapping():
    return None if os.name == "nt" else "r"  # a mapped file cannot be replaced on Windows
